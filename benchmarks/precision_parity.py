"""Compares bf16 with fp32 by what counts, the scores after training, over several seeds.

`python benchmarks/precision_parity.py` trains the best config of the tutorial's sweep on real images in both
precisions and prints each one's validation loss and accuracy with their spread. Stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import describe_machine
from benchmarks.trial_runs import DEFAULT_DATA, Record, default_processes, train_all
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.device import choose_device

BEST_CONFIG = TrialConfig(model="ResNet18", batch_size=32, lr=0.005678, epochs=5)
"""Of the tutorial's sweep; see RESULTS.md."""

PRECISIONS = ("fp32", "bf16")


def main() -> None:
    """Train what is missing and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=DEFAULT_DATA, help="as for a search (default TUNE_CIFAR_DATA)")
    parser.add_argument("--train-images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--processes", type=int, default=default_processes())
    parser.add_argument("--log", type=Path, default=Path("benchmarks/results/precision.partial.jsonl"))
    args = parser.parse_args()
    configs = [
        replace(BEST_CONFIG, seed=seed, precision=precision) for seed in range(args.seeds) for precision in PRECISIONS
    ]
    records = list(
        train_all(configs, args.log, data=args.data, train_images=args.train_images, num_processes=args.processes)
    )
    print(describe_machine(choose_device()))
    for precision in PRECISIONS:
        of_precision = [record for record in records if record["config"]["precision"] == precision]
        for name in ("val_loss", "val_accuracy"):
            print(f"{precision}  {name:<13}{_spread([_last(record, name) for record in of_precision])}")
    for name in ("val_loss", "val_accuracy"):
        differences = [
            _last(_find(records, seed, "bf16"), name) - _last(_find(records, seed, "fp32"), name)
            for seed in range(args.seeds)
        ]
        print(f"bf16 - fp32, seed by seed  {name:<13}{_spread(differences)}")


def _find(records: list[Record], seed: int, precision: str) -> Record:
    wanted = (seed, precision)
    return next(record for record in records if (record["config"]["seed"], record["config"]["precision"]) == wanted)


def _last(record: Record, name: str) -> float:
    """The value after the last epoch; a diverged run has none and ends the comparison."""
    return float(record["epochs"][-1][name])


def _spread(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    listed = ", ".join(f"{value:.4f}" for value in values)
    return f"mean {statistics.mean(values):.4f}, standard deviation {spread:.4f} ({listed})"


if __name__ == "__main__":
    main()
