"""`python -m tune_cifar.cluster.missing_workers ADDRESS SECONDS WORKER…`: waits on the head until they have joined.

It prints, as a JSON list, those that have not joined when all have or time is up. Ray reads RAY_AUTH_MODE when it is
imported, so that it must be in the environment (ray 2.60).
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from collections.abc import Sequence

import ray

POLL_SECONDS = 1.0


def main(address: str, seconds: float, workers: Sequence[str]) -> None:
    """Join the cluster at `address` and wait there, for at most `seconds`, for the `workers` by address or name."""
    deadline = time.monotonic() + seconds
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    while True:
        joined = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        missing = [worker for worker in workers if socket.gethostbyname(worker) not in joined]
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    ray.shutdown()  # which may print news of lost machines
    print(json.dumps(missing))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
