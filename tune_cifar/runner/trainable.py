"""The function that Tune runs for each trial: the training room's run, with its results and checkpoints reported."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from ray import tune

from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.device import choose_device, prepare_device
from tune_cifar.trial.training import TrainingRun


def train_trial(parameters: dict[str, Any], *, data: ImageDataset, metric: str, cpu_threads: int) -> None:
    """Train one config, reporting each epoch with a checkpoint; goes on from Tune's checkpoint if there is one."""
    config = TrialConfig.from_parameters(parameters)
    device = choose_device()
    prepare_device(device, cpu_threads=cpu_threads)
    run = TrainingRun(config, data, device)
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            run.load(Path(folder))
    for result in run.epochs():
        metrics = result.metrics()
        # Tuples, because Tune's TensorBoard logger takes a list for a histogram.
        metrics["train_log"] = tuple(tuple(row) for row in metrics["train_log"])
        # Tune wants the metric in every result, a diverged one too; the searcher knows what NaN means.
        metrics.setdefault(metric, math.nan)
        if result.status == "diverged":
            tune.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            run.save(Path(folder))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
