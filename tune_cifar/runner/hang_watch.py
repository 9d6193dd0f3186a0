"""Stops trials that hang, by killing their process, so that Tune tries them again from their last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from tune_cifar.limits import show_duration
from tune_cifar.runner.search_log import SearchLog

EPOCHS_OF_SILENCE = 10
LEAST_SECONDS = 120.0
SECONDS_BEFORE_ANY_EPOCH = 4 * 3600.0
"""Nobody knows yet how long an epoch takes: a large network on one core may need hours, and a wrong guess kills it."""

# A step of Tune's loop takes 0.1 s. When one takes long, because the machine or the disk stood still, what trials said
# meanwhile has not been read yet, so that time does not count.
_MOST_SECONDS_A_STEP = 5.0
# All trials are looked at, and with hundreds at once Tune's loop takes a hundred steps a second.
_SECONDS_BETWEEN_LOOKS = 1.0


class HangWatch(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Kills the process of a trial that was silent for `EPOCHS_OF_SILENCE` of its slowest epochs.

    Before its first epoch the slowest epoch of all trials counts. `hang_seconds` sets the time instead; with 0 nothing
    is killed, nor where `is_held` says that a trial is silent by order. To Tune a killed process is a failure of the
    trial like any other. It must stand after `log` among the callbacks.
    """

    def __init__(
        self,
        log: SearchLog,
        hang_seconds: float | None,
        is_held: Callable[[str], bool],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = log
        self.hang_seconds = hang_seconds
        self._is_held = is_held
        self._say = say
        self._clock = clock
        self._last_step: float | None = None
        self._now = 0.0
        self._next_look = 0.0
        self._heard: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a clock belongs to one process."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial begins or goes on."""
        self._heard[trial.trial_id] = self._now

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any) -> None:
        """An epoch is done."""
        self._heard[trial.trial_id] = self._now

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tune's loop comes by."""
        clock = self._clock()
        if self._last_step is not None:
            self._now += min(clock - self._last_step, _MOST_SECONDS_A_STEP)
        self._last_step = clock
        if self.hang_seconds == 0 or self._now < self._next_look:
            return
        self._next_look = self._now + _SECONDS_BETWEEN_LOOKS
        slowest_epoch_seconds = self._slowest_epoch_seconds()
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if trial.status != Trial.RUNNING or actor is None or trial.trial_id not in self._heard:
                continue
            silent_seconds = self._now - self._heard[trial.trial_id]
            limit_seconds = self._limit_seconds(trial, slowest_epoch_seconds)
            if silent_seconds > limit_seconds and not self._is_held(trial.trial_id):
                self._heard[trial.trial_id] = self._now  # until the failure arrives
                self._kill(trial, actor, silent_seconds)

    def limit_seconds(self, trial: Trial) -> float:
        """How long this trial may be silent."""
        return self._limit_seconds(trial, self._slowest_epoch_seconds())

    def _limit_seconds(self, trial: Trial, slowest_epoch_seconds: float | None) -> float:
        if self.hang_seconds is not None:
            return self.hang_seconds
        own = self.log.record_of(trial).epochs
        slowest = max(map(_epoch_seconds, own)) if own else slowest_epoch_seconds
        return SECONDS_BEFORE_ANY_EPOCH if slowest is None else max(LEAST_SECONDS, EPOCHS_OF_SILENCE * slowest)

    def _slowest_epoch_seconds(self) -> float | None:
        """Of all epochs of the search; None before there is one."""
        rows = (row for record in self.log.trials.values() for row in record.epochs)
        return max(map(_epoch_seconds, rows), default=None)

    def _kill(self, trial: Trial, actor: Any, silent_seconds: float) -> None:
        record = self.log.record_of(trial)
        since = f"since epoch {record.epochs[-1]['epoch']}" if record.epochs else "since its start"
        silent = show_duration(silent_seconds)
        self._say(f"hung     trial {record.number}: no word {since} for {silent}; its process is killed")
        ray.kill(actor)


def _epoch_seconds(row: Mapping[str, Any]) -> float:
    return float(row["epoch_runtime (seconds)"])
