"""Serves W&B's own sweep engine (`sweeps` on PyPI) to wandb_searcher.py; runs in an environment of its own, numpy<2.

Reads a JSON request a line from standard input and writes a JSON answer a line to standard output.
"""

from __future__ import annotations

import json
import random
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
from sweeps import RunState, SweepRun, next_run  # noqa: E402

# A run that hyperband stops is killed, one that diverges has failed: to the engine both are as bad as the worst.
STATES = {"finished": RunState.finished, "stopped": RunState.killed, "diverged": RunState.failed}


class Sweep:
    """One search: its sweep file and its runs so far."""

    def __init__(self, document: dict[str, Any], seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)
        self.document = document
        self.runs: list[SweepRun] = []

    def suggest(self) -> dict[str, Any]:
        """The config of the next run, which is then running."""
        run = next_run(self.document, self.runs)
        run.state = RunState.running
        self.runs.append(run)
        return {name: entry["value"] for name, entry in run.config.items()}

    def observe(self, number: int, losses: list[float], end: str) -> None:
        """The run has ended with these values of the metric."""
        metric = self.document["metric"]["name"]
        run = self.runs[number]
        run.history = [{metric: loss} for loss in losses]
        run.summary_metrics = {metric: losses[-1]} if losses else {}
        run.state = STATES[end]


def main() -> None:
    """Serve one search after another."""
    sweep = Sweep({}, 0)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        if request["do"] == "start":
            sweep = Sweep(request["document"], request["seed"])
        elif request["do"] == "suggest":
            answer = sweep.suggest()
        else:
            sweep.observe(request["number"], request["losses"], request["end"])
        print(json.dumps(answer), flush=True)


main()
