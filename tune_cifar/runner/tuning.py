"""Runs a search with Ray Tune, from the first trial or from where an earlier process left it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune

from tune_cifar.errors import UserError
from tune_cifar.results import Metric, TrialRecord, best_trial
from tune_cifar.runner.resources import TrialSlots
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.runner.trainable import train_trial
from tune_cifar.sweep.searcher import SearchPlan
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.checkpoint import WEIGHTS_FILE
from tune_cifar.trial.data import ImageDataset, ImageSplit

TUNE_FOLDER = "ray"
"""Tune's own files live in this folder of a search's results."""


@dataclass(frozen=True)
class SearchOutcome:
    """All trials, the best finished one and its weights file, and whether trials are left for a resume."""

    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None
    best_weights: Path | None
    interrupted: bool


def run_search(
    *,
    folder: Path,
    space: SearchSpace,
    plan: SearchPlan,
    metric: Metric,
    data: ImageDataset,
    slots: TrialSlots,
    constants: Mapping[str, Any],
    log: SearchLog,
    callbacks: list[tune.Callback],
    resume: bool,
) -> SearchOutcome:
    """Run all trials of `plan` and keep Tune's state in `folder`; Ctrl-C ends it early, with what finished kept.

    `constants` join every trial's config; `log` is filled with the trials. With `resume`, Tune takes up
    its state and only what is left is run.
    """
    # What Tune and Optuna print of their own is either in the terminal's table or of no use to a reader:
    # Tune's new output prints boxes even when told to be silent, and an interrupted search is to it an error.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainable = tune.with_resources(
        tune.with_parameters(train_trial, data=_without_test(data), metric=metric.name, cpu_threads=slots.cpu_threads),
        {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
    )
    all_callbacks = [log, *callbacks]
    if resume:
        tuner = _restore(folder, trainable, all_callbacks)
    else:
        tuner = _new_tuner(folder, trainable, space, plan, metric, slots, constants, all_callbacks)
    grid = tuner.fit()
    trials = tuple(sorted(log.trials.values(), key=lambda trial: trial.number))
    best = best_trial(trials, metric)
    ended = sum(trial.status in ("finished", "diverged", "failed") for trial in trials)
    return SearchOutcome(
        trials=trials,
        best=best,
        best_weights=_weights_of(best, metric, grid) if best else None,
        interrupted=ended < plan.num_trials,
    )


def _new_tuner(
    folder: Path,
    trainable: Any,
    space: SearchSpace,
    plan: SearchPlan,
    metric: Metric,
    slots: TrialSlots,
    constants: Mapping[str, Any],
    callbacks: list[tune.Callback],
) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        param_space=dict(constants),
        tune_config=tune.TuneConfig(
            search_alg=SweepSearch(space, plan, metric),
            num_samples=plan.num_trials,
            # More than there are slots would make Tune ask for configs before it has the results to choose them by.
            max_concurrent_trials=slots.trials_at_once,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=str(folder.resolve()),
            callbacks=callbacks,
            verbose=0,
            # The best epoch and the last one. With a number to keep, Tune also writes its own state after
            # each checkpoint, so that a killed search loses no epoch.
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute=metric.name,
                checkpoint_score_order="min" if metric.goal == "minimize" else "max",
            ),
        ),
    )


def _restore(folder: Path, trainable: Any, callbacks: list[tune.Callback]) -> tune.Tuner:
    path = str(folder.resolve() / TUNE_FOLDER)
    if not tune.Tuner.can_restore(path):
        raise UserError(f"{folder} holds no state to resume from. Start the search again under another --name.")
    tuner = tune.Tuner.restore(path, trainable=trainable)
    # Tune would go on with the callbacks it pickled; the new ones belong to this process (its terminal,
    # its W&B mode) and get the old ones' state through `set_state`.
    tuner._local_tuner._run_config.callbacks = callbacks
    return tuner


def _without_test(data: ImageDataset) -> ImageDataset:
    """No trial can read the test images: it is not given them."""
    nothing = ImageSplit(data.test.images[:0].copy(), data.test.labels[:0].copy())
    return dataclasses.replace(data, test=nothing)


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"


def _weights_of(best: TrialRecord, metric: Metric, grid: tune.ResultGrid) -> Path:
    """The weights file of the best epoch, in Tune's storage."""
    epoch = best.best_epoch(metric) or {}
    for result in grid:
        if result.metrics and result.metrics.get("trial_id") == best.trial_id:
            for checkpoint, metrics in result.best_checkpoints:
                if metrics["epoch"] == epoch.get("epoch"):
                    return Path(checkpoint.path) / WEIGHTS_FILE
    raise RuntimeError(f"no checkpoint of trial {best.trial_id} at its best epoch {epoch.get('epoch')}")
