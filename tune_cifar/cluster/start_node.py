"""`python -m tune_cifar.cluster.start_node ray start …`: Ray on a machine of a cluster, started as a cluster needs it.

`cluster.yaml` has it in its start commands, where Ray's own examples have `ray stop`, which ends every Ray of the user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tune_cifar.cluster.node import MARK, stop
from tune_cifar.command import run_command
from tune_cifar.errors import UserError
from tune_cifar.scrubbing import environment_without_secrets


def main(arguments: Sequence[str]) -> int:
    """End what runs of this cluster on this machine, then become `ray start` with the flags given."""
    if list(arguments[:2]) != ["ray", "start"]:
        raise UserError(f"start_node takes `ray start` and its flags, got {' '.join(arguments)!r}.")
    _, left = stop()
    if left:
        raise UserError("Processes of the cluster's last start do not end:\n" + "\n".join(left))
    ray = str(Path(sys.executable).parent / "ray")
    os.execve(ray, [ray, *arguments[1:], *_address_flags()], _environment())  # noqa: S606


def _address_flags() -> list[str]:
    """The address that the login came to, which is the one in cluster.yaml.

    A machine with several networks would else join by the address of its default route, and the autoscaler, which knows
    it by the other one, starts it again and again (ray 2.60).
    """
    login = os.environ.get("SSH_CONNECTION", "").split()  # client, its port, server, its port
    return [f"--node-ip-address={login[2]}"] if login else []


def _environment() -> dict[str, str]:
    # Ray's processes, and the trials in them, inherit it: no key is any use to them.
    mark, _, value = MARK.partition("=")
    ours = {mark: value, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**environment_without_secrets(), **ours, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


if __name__ == "__main__":
    sys.exit(run_command(main))
