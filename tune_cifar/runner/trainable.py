"""The function that Tune runs for each trial: the training room's run, with its results and checkpoints reported."""

from __future__ import annotations

import contextlib
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.train._internal.session import get_session

from tune_cifar.runner.checkpoint_storage import checkpoint_folders
from tune_cifar.runner.places import describe_place
from tune_cifar.runner.progress import BoardSender, ProgressThread
from tune_cifar.runner.reporting import EpochReporter
from tune_cifar.runner.storage_watch import tell_of_disk
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.device import choose_device, prepare_device
from tune_cifar.trial.training import EpochResult, TrainingRun
from tune_cifar.trial.workbench import Workbench

# Tune gives a stopped trial 2 seconds to leave its process to the next one, else it starts another process, which
# takes longer than the step, or the validation, that the trial is in.
_STOP_SECONDS = 60

_workbenches: list[Workbench] = []
"""The one of this process, which Tune uses for one trial after another."""


def train_trial(
    parameters: dict[str, Any],
    *,
    data: ImageDataset,
    metric: str,
    cpu_threads: int,
    board: BoardSender | None = None,
) -> None:
    """Train one config, reporting each epoch with a checkpoint; goes on from Tune's checkpoint if there is one.

    `board` is told how far the running epoch is.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(_STOP_SECONDS)
    config = TrialConfig.from_parameters(parameters)
    device = choose_device()
    prepare_device(device, cpu_threads=cpu_threads)
    run = TrainingRun(config, data, device, _workbench(data, device))
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            run.load(Path(folder))
    storage = get_session().storage
    where = describe_place()
    reporter = EpochReporter(
        run.stop,
        new_checkpoint=checkpoint_folders(storage),
        tell_of_disk=partial(tell_of_disk, storage.experiment_fs_path),
    )
    with reporter, _telling(board, run):
        for result in run.epochs(lambda: reporter.begin(run.copy_tensors())):
            metrics = {**_metrics(result, metric), "notes": tuple(run.notes), "where": where}
            reporter.report(metrics, None if result.status == "diverged" else run.progress_to_save())


def _telling(board: BoardSender | None, run: TrainingRun) -> contextlib.AbstractContextManager[object]:
    if board is None:
        return contextlib.nullcontext()
    return ProgressThread(run.progress, partial(board.send, tune.get_context().get_trial_id()))


def _workbench(data: ImageDataset, device: torch.device) -> Workbench:
    if not _workbenches or not _workbenches[0].fits(data, device):
        _workbenches[:] = [Workbench(data, device)]
    return _workbenches[0]


def _metrics(result: EpochResult, metric: str) -> dict[str, Any]:
    metrics = result.metrics()
    # Tuples, because Tune's TensorBoard logger takes a list for a histogram.
    metrics["train_log"] = tuple(tuple(row) for row in metrics["train_log"])
    # Tune wants the metric in every result, a diverged one too; the searcher knows what NaN means.
    metrics.setdefault(metric, math.nan)
    # Said with the last epoch: Tune would ask once more for a result to learn that the function has returned.
    metrics["done"] = result.status != "running"
    return metrics
