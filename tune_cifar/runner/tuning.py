"""Runs a search with Ray Tune, from the first trial or from where an earlier process left it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from ray import tune

from tune_cifar.bucket_results import BucketResults
from tune_cifar.files import describe_disk_error, disk_error
from tune_cifar.limits import RunLimits
from tune_cifar.runner.early_stopping import (
    EarlyStopping,
    HyperbandStopping,
    LagStopping,
    SearchStopper,
    StopRequested,
)
from tune_cifar.runner.ending import SearchEnding
from tune_cifar.runner.given_up import GivenUpCheckpoints
from tune_cifar.runner.hang_watch import HangWatch
from tune_cifar.runner.held_search import HeldSearch
from tune_cifar.runner.holding import ConcurrencyLimiter, HoldingScheduler
from tune_cifar.runner.hopeless import FirstTrials
from tune_cifar.runner.lost_processes import every_loss_is_a_failure
from tune_cifar.runner.outcome import SearchOutcome, outcome_of
from tune_cifar.runner.placement import TrialPlacement
from tune_cifar.runner.places import TunePlace
from tune_cifar.runner.progress import BoardSender
from tune_cifar.runner.rebuilding import rebuild_state
from tune_cifar.runner.repeats import RepeatSearch
from tune_cifar.runner.resources import TrialSlots
from tune_cifar.runner.restoring import RestoreGuard, restore
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.runner.storage_watch import StorageWatch
from tune_cifar.runner.trainable import train_trial
from tune_cifar.runner.trials_writer import TrialsWriter
from tune_cifar.runner.tune_state import TUNE_FOLDER
from tune_cifar.sweep.curve_stopping import CurveRule
from tune_cifar.sweep.early_stopping import HyperbandRule
from tune_cifar.sweep.schema import CurveStopping, Hyperband, Metric, SweepConfig
from tune_cifar.sweep.searcher import SearchPlan
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.data import ImageDataset, ImageSplit


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
    max_failures: int,
    say: Callable[[str], None],
    board: BoardSender | None = None,
    limits: RunLimits | None = None,
    rebuild: bool = False,
    bucket: BucketResults | None = None,
) -> SearchOutcome:
    """Run all trials of `plan` and keep Tune's state in `folder`; Ctrl-C ends it early, with what finished kept.

    Where there is a `bucket`, that has the state and the checkpoints instead. `constants` join every trial's config;
    `log` is filled with the trials; `stop_requested` says after an epoch whether a trial was told to stop. With
    `resume`, Tune takes up its state and only what is left is run; with `rebuild` too, that state is first written anew
    from what the trials left behind. A trial that fails is tried again `max_failures` times, and `say` gets a line of
    it. `board` is told how far the running epochs are.
    """
    _silence_tune()
    metric = config.metric
    place, placement, limits = TunePlace(folder, bucket), TrialPlacement(slots), limits or RunLimits()
    ending, given_up = SearchEnding(log, limits, say), GivenUpCheckpoints()
    scheduler = HoldingScheduler(
        SearchStopper(metric, log, stop_requested),
        _early_stopping(config, log),
        log,
        placement=placement,
        first_trials=FirstTrials(plan.num_trials, slots.trials_at_once),
        max_failures=max_failures,
        tune_folder=place.shown,
        say=say,
        ending=ending,
        given_up=given_up,
    )
    watches = [
        HangWatch(log, limits.hang_seconds, ending.is_held, say),
        StorageWatch(folder.resolve() / ("" if bucket else TUNE_FOLDER), ending.disk_broke, place.tune_path),
        ending,
    ]
    guard = RestoreGuard(place, expects=resume)
    trainable = tune.with_resources(
        tune.with_parameters(
            train_trial, data=_without_test(data), metric=metric.name, cpu_threads=slots.cpu_threads, board=board
        ),
        {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
    )
    tune_config = _tune_config(SweepSearch(space, plan, metric), scheduler, ending, plan, slots, metric, log)
    # Tune keeps the state of each callback by its place in the list.
    every_callback = [guard, log, TrialsWriter(log, folder), *callbacks, placement, *watches]
    run_config = _run_config(place, every_callback, max_failures, metric)
    if rebuild:
        rebuild_state(folder, trainable, constants, tune_config, run_config, log=log, metric=metric, say=say)
    if resume:
        tuner = restore(place, trainable, tune_config, run_config)
    else:
        place.begin()
        tuner = tune.Tuner(trainable, param_space=dict(constants), tune_config=tune_config, run_config=run_config)
    grid = _fit(tuner, folder, ending, given_up)
    log.interrupt()
    return outcome_of(log, plan, metric, grid, place, ending, scheduler.stopped_because)


def _silence_tune() -> None:
    """What Tune and Optuna print of their own is either in the terminal's table or of no use to a reader.

    Tune's new output prints boxes even when told to be silent, and an interrupted search is to it an error.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _tune_config(
    searcher: SweepSearch,
    scheduler: HoldingScheduler,
    ending: SearchEnding,
    plan: SearchPlan,
    slots: TrialSlots,
    metric: Metric,
    log: SearchLog,
) -> tune.TuneConfig:
    repeats = log.repeats
    repeating = RepeatSearch(searcher, repeats, plan.num_trials, metric, log) if repeats else searcher
    return tune.TuneConfig(
        # More than there are slots would make Tune ask for configs before it has the results to choose them by.
        search_alg=ConcurrencyLimiter(
            HeldSearch(repeating, scheduler.waits_for_room), max_concurrent=slots.trials_at_once, ending=ending
        ),
        scheduler=scheduler,
        num_samples=plan.num_trials + (repeats.most_repeats(plan.num_trials) if repeats else 0),
        reuse_actors=True,
        trial_name_creator=_trial_name,
        trial_dirname_creator=_trial_name,
    )


def _run_config(place: TunePlace, callbacks: list[tune.Callback], max_failures: int, metric: Metric) -> tune.RunConfig:
    return tune.RunConfig(
        name=TUNE_FOLDER,
        storage_path=place.storage_path,
        storage_filesystem=place.filesystem,
        callbacks=callbacks,
        verbose=0,
        failure_config=tune.FailureConfig(max_failures=max_failures),
        # The best epoch and the last one. With a number to keep, Tune also writes its own state after
        # each checkpoint, so that a killed search loses no epoch.
        checkpoint_config=tune.CheckpointConfig(
            num_to_keep=1,
            checkpoint_score_attribute=metric.name,
            checkpoint_score_order="min" if metric.goal == "minimize" else "max",
        ),
    )


def _fit(tuner: tune.Tuner, folder: Path, ending: SearchEnding, given_up: GivenUpCheckpoints) -> tune.ResultGrid | None:
    """Run the trials; None where the disk broke so suddenly that Tune itself fell over it."""
    with ending.at_sigterm(), every_loss_is_a_failure(), given_up.kept():
        try:
            return tuner.fit()
        except Exception as failure:
            error = disk_error(failure)
            if error is None:
                raise
            ending.disk_broke(describe_disk_error(error, folder))
            return None


def _early_stopping(config: SweepConfig, log: SearchLog) -> EarlyStopping | None:
    if isinstance(config.early_terminate, Hyperband):
        return HyperbandStopping(HyperbandRule(config.early_terminate, config.metric.goal), config.metric, log)
    if isinstance(config.early_terminate, CurveStopping):
        return LagStopping(CurveRule(config.early_terminate, config.metric.goal), config.metric, log)
    return None


def _without_test(data: ImageDataset) -> ImageDataset:
    """No trial can read the test images: it is not given them."""
    nothing = ImageSplit(data.test.images[:0].copy(), data.test.labels[:0].copy())
    return dataclasses.replace(data, test=nothing)


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"
