"""Lets Tune take the loss of a trial's process for what it is, in two cases in which it does not (ray 2.60)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from tune_cifar.runner.failures import LostProcessError


@contextlib.contextmanager
def every_loss_is_a_failure() -> Iterator[None]:
    """While this lasts, a process that is lost for any reason, at any moment, fails its trial's attempt, once."""
    with _every_error_is_known(), _no_reset_fails_twice():
        yield


@contextlib.contextmanager
def _every_error_is_known() -> Iterator[None]:
    """Where Ray's memory monitor ends a process, its calls raise `OutOfMemoryError`, which is no `RayActorError`.

    Tune's actor manager knows only these and raises from the search's loop (seen with `memory_usage_threshold=0.02`).
    """
    original = RayActorManager._actor_task_failed

    def fail_the_trial(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, (RayActorError, RayTaskError)):
            exception = LostProcessError(error_msg=str(exception))
        original(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = fail_the_trial
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original


@contextlib.contextmanager
def _no_reset_fails_twice() -> Iterator[None]:
    """A trial that comes into a process that another has left is still pending while that is reset for it.

    If it is lost just then Tune hears of that twice: it puts the trial back into the queue, and then ends it for good,
    because what is pending cannot be tried again. It also goes on waiting for that reset, and never starts the trial.
    """
    original = TuneController._trial_task_failure
    handled: list[Exception] = []

    def fail_once(self: TuneController, trial: Trial, exception: Exception) -> None:
        if any(exception is earlier for earlier in handled):
            handled.clear()
            return
        if trial in self._resetting_trials:
            self._resetting_trials.discard(trial)
            if trial.status == Trial.PENDING:  # the process is still there: Tune does this for one that is lost
                self._set_trial_status(trial, Trial.RUNNING)
                self._unstage_trial_with_resources(trial)
            else:
                handled[:] = [exception]
        original(self, trial, exception)

    TuneController._trial_task_failure = fail_once
    try:
        yield
    finally:
        TuneController._trial_task_failure = original
