"""A whole search whose trials report one epoch at once, so that what is left is the cost of searching itself.

`python benchmarks/stub_search.py SWEEP.yaml FOLDER` runs the trials with Ray, Tune, searcher, W&B (offline),
TensorBoard and all state files as `python -m tune_cifar.search` does, and leaves out what comes after the last trial.
With `--profile FILE` it writes what Python's profiler saw of the search's main thread.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ray import tune

from tune_cifar import search_trials
from tune_cifar.console import SearchConsole
from tune_cifar.request import SearchRequest
from tune_cifar.runner import tuning
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.load import load_sweep
from tune_cifar.trial.checkpoint import WEIGHTS_FILE
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter
from tune_cifar.trial.data import load_dataset


def report_at_once(parameters: dict[str, Any], **_: Any) -> None:
    """One epoch with an empty checkpoint; its loss has its least value at lr 0.001."""
    now = time.time()
    loss = 1 + math.log10(parameters["lr"] / 0.001) ** 2
    metrics = {
        "epoch": 1,
        "step": 1,
        "train_log": ((1, 1.0, loss),),
        "train_loss": loss,
        "val_loss": loss,
        "val_accuracy": 1 / (1 + loss),
        "epoch_runtime (seconds)": 0.001,
        "avg epoch runtime (seconds)": 0.001,
        "started_at": now,
        "trained_at": now,
        "lr": parameters["lr"],
        "status": "finished",
        "notes": (),
        "done": True,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / WEIGHTS_FILE).touch()
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def main() -> None:
    """Run the trials of a sweep file with nothing trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("folder", type=Path, help="of the results; must not exist")
    parser.add_argument("--profile", type=Path)
    args = parser.parse_args()
    settings = SearchSettings(
        data="digits",
        train_images=20,
        count=None,
        seed=0,
        cpus_per_trial=None,
        gpus_per_trial=None,
        trials_at_once=2,
        precision="fp32",
        wandb_project="benchmark",
    )
    config = load_sweep(args.sweep, check_parameter, EPOCH_METRICS)
    tuning.train_trial = report_at_once
    request = SearchRequest(config, settings, args.folder, wandb="offline", resume=False, console=SearchConsole())
    data = load_dataset("digits", train_images=20)
    profile = cProfile.Profile()
    with profile if args.profile else contextlib.nullcontext():
        search_trials.run_trials(request, data, "offline", "W&B writes to disk")
    if args.profile:
        profile.dump_stats(args.profile)


if __name__ == "__main__":
    main()
