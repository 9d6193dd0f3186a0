"""Runs a search with Ray Tune, from the first trial or from where an earlier process left it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import TrialScheduler

from tune_cifar.errors import UserError
from tune_cifar.finalists import Finalist, finalists, repeats_have_ended
from tune_cifar.results import ENDED, TrialRecord, best_run, best_trial
from tune_cifar.runner.early_stopping import (
    EarlyStopping,
    HyperbandStopping,
    LagStopping,
    SearchScheduler,
    SearchStopper,
    StopRequested,
)
from tune_cifar.runner.progress import BoardSender
from tune_cifar.runner.repeats import RepeatSearch
from tune_cifar.runner.resources import TrialSlots
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.runner.trainable import train_trial
from tune_cifar.runner.trials_writer import TrialsWriter
from tune_cifar.sweep.curve_stopping import CurveRule
from tune_cifar.sweep.early_stopping import HyperbandRule
from tune_cifar.sweep.schema import CurveStopping, Hyperband, Metric, SweepConfig
from tune_cifar.sweep.searcher import SearchPlan
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.checkpoint import WEIGHTS_FILE
from tune_cifar.trial.data import ImageDataset, ImageSplit

TUNE_FOLDER = "ray"
"""Tune's own files live in this folder of a search's results."""


@dataclass(frozen=True)
class SearchOutcome:
    """All trials, the best finished one and its weights file, and whether trials are left for a resume.

    Where the best configurations were repeated, `finalists` are these, the best first. Once all repeats have ended
    `winner` is the first of them, and `best` is its best run.
    """

    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None
    best_weights: Path | None
    interrupted: bool
    finalists: tuple[Finalist, ...] = ()
    winner: Finalist | None = None


def run_search(
    *,
    folder: Path,
    config: SweepConfig,
    space: SearchSpace,
    plan: SearchPlan,
    data: ImageDataset,
    slots: TrialSlots,
    constants: Mapping[str, Any],
    log: SearchLog,
    callbacks: list[tune.Callback],
    stop_requested: StopRequested,
    resume: bool,
    board: BoardSender | None = None,
) -> SearchOutcome:
    """Run all trials of `plan` and keep Tune's state in `folder`; Ctrl-C ends it early, with what finished kept.

    `constants` join every trial's config; `log` is filled with the trials; `stop_requested` says after an epoch
    whether a trial was told to stop. With `resume`, Tune takes up its state and only what is left is run.
    `board` is told how far the running epochs are.
    """
    # What Tune and Optuna print of their own is either in the terminal's table or of no use to a reader:
    # Tune's new output prints boxes even when told to be silent, and an interrupted search is to it an error.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    metric, repeats = config.metric, log.repeats
    searcher = SweepSearch(space, plan, metric)
    trainable = tune.with_resources(
        tune.with_parameters(
            train_trial, data=_without_test(data), metric=metric.name, cpu_threads=slots.cpu_threads, board=board
        ),
        {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
    )
    tune_config = tune.TuneConfig(
        search_alg=RepeatSearch(searcher, repeats, plan.num_trials, metric, log) if repeats else searcher,
        scheduler=_scheduler(config, log, stop_requested),
        num_samples=plan.num_trials + (repeats.most_repeats(plan.num_trials) if repeats else 0),
        # More than there are slots would make Tune ask for configs before it has the results to choose them by.
        max_concurrent_trials=slots.trials_at_once,
        reuse_actors=True,
        trial_name_creator=_trial_name,
        trial_dirname_creator=_trial_name,
    )
    run_config = tune.RunConfig(
        name=TUNE_FOLDER,
        storage_path=str(folder.resolve()),
        callbacks=[log, TrialsWriter(log, folder), *callbacks],
        verbose=0,
        # The best epoch and the last one. With a number to keep, Tune also writes its own state after
        # each checkpoint, so that a killed search loses no epoch.
        checkpoint_config=tune.CheckpointConfig(
            num_to_keep=1,
            checkpoint_score_attribute=metric.name,
            checkpoint_score_order="min" if metric.goal == "minimize" else "max",
        ),
    )
    if resume:
        tuner = _restore(folder, trainable, tune_config, run_config)
    else:
        tuner = tune.Tuner(trainable, param_space=dict(constants), tune_config=tune_config, run_config=run_config)
    grid = tuner.fit()
    log.interrupt()
    trials = tuple(sorted(log.trials.values(), key=lambda trial: trial.number))
    own = [trial for trial in trials if trial.repeat_of is None]
    complete = sum(trial.status in ENDED for trial in own) >= plan.num_trials or _target_ended_it(own, metric)
    complete = complete and (repeats is None or repeats_have_ended(trials, metric, repeats))
    repeated = finalists(trials, metric)
    winner = repeated[0] if repeated and complete else None
    best = best_run(winner.runs, metric) if winner else best_trial(trials, metric)
    return SearchOutcome(
        trials=trials,
        best=best,
        best_weights=_weights_of(best, metric, grid) if best else None,
        interrupted=not complete,
        finalists=tuple(repeated),
        winner=winner,
    )


def _scheduler(config: SweepConfig, log: SearchLog, stop_requested: StopRequested) -> TrialScheduler:
    early_stopping: EarlyStopping | None = None
    if isinstance(config.early_terminate, Hyperband):
        early_stopping = HyperbandStopping(
            HyperbandRule(config.early_terminate, config.metric.goal), config.metric, log
        )
    elif isinstance(config.early_terminate, CurveStopping):
        early_stopping = LagStopping(CurveRule(config.early_terminate, config.metric.goal), config.metric, log)
    return SearchScheduler(SearchStopper(config.metric, log, stop_requested), early_stopping, log)


def _target_ended_it(trials: Sequence[TrialRecord], metric: Metric) -> bool:
    reached = any(metric.reached(value) for trial in trials for value in trial.logged_values)
    return reached and all(trial.status in ENDED for trial in trials)


def has_started(folder: Path) -> bool:
    """Whether Tune has written anything for the search in `folder`."""
    return (folder / TUNE_FOLDER).exists()


def _restore(folder: Path, trainable: Any, tune_config: tune.TuneConfig, run_config: tune.RunConfig) -> tune.Tuner:
    path = str(folder.resolve() / TUNE_FOLDER)
    if not tune.Tuner.can_restore(path):
        raise UserError(f"{folder} holds no state to resume from. Start the search again under another --name.")
    tuner = tune.Tuner.restore(path, trainable=trainable)
    # Tune would go on with the objects it pickled at the first start. Those of this process (its terminal, its
    # W&B mode, one log for all of them) take their place; the log and the W&B callback get their state through
    # `set_state`, the searcher its own from the files that Tune saved.
    tuner._local_tuner._run_config.callbacks = run_config.callbacks
    tuner._local_tuner._tune_config.scheduler = tune_config.scheduler
    tuner._local_tuner._tune_config.search_alg = tune_config.search_alg
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
