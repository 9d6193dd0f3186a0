"""Measures what a search costs besides training: its start, and the time between two trials in one process.

`python benchmarks/startup.py` runs a search of a few trials on small noise images and reads the times at which
each trial's steps began and ended. The gap between two trials holds the validation and checkpoint of the
first, the searcher's choice, and the second one's first weights; between two epochs are the validation and a copy of
all that the checkpoint holds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import yaml

from tune_cifar.versions import installed_versions

Epoch = dict[str, float]


def run_search(folder: Path, *, num_trials: int, num_epochs: int, data: str, train_images: int | None) -> float:
    """Run a search of `num_trials` one after another; returns the Unix time of its start."""
    sweep = folder / "startup.yaml"
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "batch_size": {"value": 32},
        "epochs": {"value": num_epochs},
        "model": {"value": "ResNet18"},
    }
    metric = {"name": "val_loss", "goal": "minimize"}
    sweep.write_text(yaml.safe_dump({"method": "bayes", "metric": metric, "parameters": parameters}))
    command = [sys.executable, "-m", "tune_cifar.search", str(sweep), "--data", data, "--count", str(num_trials)]
    command += ["--name", "startup", "--results", str(folder), "--trials-at-once", "1", "--wandb", "offline"]
    command += ["--train-images", str(train_images)] if train_images else []
    started_at = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return started_at


def read_trials(folder: Path) -> dict[int, list[list[Epoch]]]:
    """The epochs of each trial in the order of their starts, by the process that ran them."""
    trials: dict[int, list[list[Epoch]]] = defaultdict(list)
    for path in folder.glob("startup/ray/trial-*/result.json"):
        epochs = [json.loads(line) for line in path.read_text().splitlines()]
        trials[int(epochs[0]["pid"])].append(epochs)
    for of_process in trials.values():
        of_process.sort(key=lambda epochs: epochs[0]["started_at"])
    return trials


def main() -> None:
    """Run one search and print and write its times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started_at = run_search(
            folder,
            num_trials=args.trials,
            num_epochs=args.epochs,
            data=args.data,
            train_images=args.train_images,
        )
        trials = read_trials(folder)
    first_step_seconds = min(of_process[0][0]["started_at"] for of_process in trials.values()) - started_at
    gaps = [
        (after[0]["started_at"] - before[-1]["trained_at"], before[-1]["validation_seconds"])
        for of_process in trials.values()
        for before, after in itertools.pairwise(of_process)
    ]
    between_epochs = [
        after["started_at"] - before["trained_at"] - before["validation_seconds"]
        for of_process in trials.values()
        for epochs in of_process
        for before, after in itertools.pairwise(epochs)
    ]
    figures = {
        "first_step_seconds": first_step_seconds,
        "num_processes": len(trials),
        "gap_seconds": [gap for gap, _ in gaps],
        "gap_seconds_without_validation": [gap - validation for gap, validation in gaps],
        "seconds_between_epochs": between_epochs,
        "versions": installed_versions(),
        "command": " ".join(sys.argv),
    }
    print(f"start to first training step     {first_step_seconds:.1f} s")
    print(f"last step to next trial's first  {_spread([gap for gap, _ in gaps])}, {len(trials)} process(es)")
    print(f"  without the validation         {_spread([gap - validation for gap, validation in gaps])}")
    print(f"between epochs, no validation    {_spread(between_epochs)}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f}, {len(seconds)} times)"


if __name__ == "__main__":
    main()
