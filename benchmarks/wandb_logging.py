"""Measures what logging a trial to W&B costs the search's process: our callback beside Ray's WandbLoggerCallback.

`python benchmarks/wandb_logging.py` gives both the same trials, offline, one after another as Tune does, and times
the calls that Tune waits for and the whole until all runs are on disk. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.logger import LoggerCallback

from benchmarks.machine import describe_machine
from tune_cifar.runner.ray_session import ray_session
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.tracking.wandb_callback import SearchWandbCallback

ROWS_PER_EPOCH = 28
"""What an epoch of the tutorial logs at its smaller batch size: 45,000 images, 32 a batch, a row each 50 batches."""


@dataclass(eq=False)
class LoggedTrial:
    """The part of a Ray trial that both callbacks read."""

    trial_id: str
    config: dict[str, Any]
    local_path: str
    experiment_dir_name: str = "benchmark"

    def __str__(self) -> str:
        return self.trial_id


def epoch_result(epoch: int) -> dict[str, Any]:
    """What a trial reports after an epoch."""
    steps = range((epoch - 1) * ROWS_PER_EPOCH + 1, epoch * ROWS_PER_EPOCH + 1)
    return {
        "epoch": epoch,
        "step": steps[-1],
        "train_log": tuple((step, step / ROWS_PER_EPOCH, 2.0 / step) for step in steps),
        "train_loss": 2.0 / steps[-1],
        "val_loss": 1.0 / epoch,
        "val_accuracy": 0.1 * epoch,
        "epoch_runtime (seconds)": 12.0,
        "status": "running",
        "message": "",
    }


def log_trials(callback: LoggerCallback, folder: Path, *, num_trials: int, num_epochs: int) -> dict[str, Any]:
    """Log trials one after another; seconds in the calls of each trial, and for all until nothing is left to write."""
    call_seconds = []
    cpu_started, started = time.process_time(), time.perf_counter()
    callback.setup()
    for number in range(num_trials):
        trial = LoggedTrial(f"trial{number:03}", {"lr": 0.001 * (number + 1), "model": "ResNet18"}, str(folder))
        trial_started = time.perf_counter()
        callback.log_trial_start(trial)
        for epoch in range(1, num_epochs + 1):
            callback.log_trial_result(epoch, trial, epoch_result(epoch))
        callback.log_trial_end(trial)
        call_seconds.append(time.perf_counter() - trial_started)
    callback.on_experiment_end([])
    return {
        "trials": num_trials,
        "call_seconds": call_seconds,
        "seconds_per_trial": (time.perf_counter() - started) / num_trials,
        "driver_cpu_seconds_per_trial": (time.process_time() - cpu_started) / num_trials,
        "runs_on_disk": len(list(folder.rglob("run-*.wandb"))),
    }


def measure(folder: Path, *, num_trials: int, num_stock_trials: int, num_epochs: int) -> dict[str, dict[str, Any]]:
    """Both callbacks in one process, Ray's last because it needs a Ray that runs."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    ours = SearchWandbCallback(
        project="benchmark",
        group="benchmark",
        folder=folder / "ours",
        mode="offline",
        log=SearchLog("val_loss"),
        metric="val_loss",
        goal="minimize",
        free_parameters=("lr",),
    )
    (folder / "ours").mkdir()
    (folder / "stock").mkdir()
    figures = {"ours": log_trials(ours, folder / "ours", num_trials=num_trials, num_epochs=num_epochs)}
    with ray_session():
        stock = WandbLoggerCallback(project="benchmark", group="benchmark", dir=str(folder / "stock"))
        figures["Ray's"] = log_trials(stock, folder / "stock", num_trials=num_stock_trials, num_epochs=num_epochs)
    return figures


def main() -> None:
    """Measure, print a table, and write the figures if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--stock-trials", type=int, default=5, help="of Ray's callback, which takes seconds a trial")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    machine = describe_machine(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            Path(folder), num_trials=args.trials, num_stock_trials=args.stock_trials, num_epochs=args.epochs
        )
    print(
        "| callback | trials | calls of a trial, median (least to most) | all, a trial | driver's CPU, a trial | runs |"
    )
    print("|---|---|---|---|---|---|")
    for name, figure in figures.items():
        calls = figure["call_seconds"]
        spread = f"{statistics.median(calls):.4f} s ({min(calls):.4f} to {max(calls):.4f})"
        whole = f"{figure['seconds_per_trial']:.3f} s | {figure['driver_cpu_seconds_per_trial']:.3f} s"
        print(f"| {name} | {figure['trials']} | {spread} | {whole} | {figure['runs_on_disk']} |")
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "figures": figures, "command": sys.argv}, indent=2) + "\n")


if __name__ == "__main__":
    main()
