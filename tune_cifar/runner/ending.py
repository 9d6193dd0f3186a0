"""Ends a search before its trials have: at SIGTERM, when its time is over, or when the disk takes no more."""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from tune_cifar.files import describe_disk_error
from tune_cifar.limits import Cause, EarlyEnd, RunLimits, show_duration
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.runner.whole_state import WholeStateSyncer

MOST_END_SECONDS = 15.0
"""What the end takes at most after the last epoch: stopping the trials, the snapshot, the results, W&B."""


class SearchEnding(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Decides when the search ends, and lets running trials come to the end of their epoch where there is time.

    A trial that is to go no further is held after its epoch: to Tune it is still running, so its checkpoint and the
    snapshot are those of an interrupted search, and a resume goes on with it. `cause` is why the search ended, and
    None while it has not. `say` prints a line. It must stand after `log` among the callbacks.
    """

    def __init__(
        self,
        log: SearchLog,
        limits: RunLimits,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = log
        self.limits = limits
        self.cause: Cause | None = None
        self.disk_message = ""
        self.syncer: WholeStateSyncer | None = None
        self._say = say
        self._clock = clock
        self._deadline = math.inf
        self._heard: dict[str, float] = {}
        self._held: set[str] = set()
        self._announced = False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; how a search ends belongs to one process."""
        return {}

    @contextlib.contextmanager
    def at_sigterm(self) -> Iterator[None]:
        """While the context lasts, SIGTERM ends the search within its grace time, and a second one at once."""
        before = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _on_sigterm(self, _signal: int, _frame: Any) -> None:
        if self.cause == "SIGTERM":
            _end_tunes_loop()
            return
        self.cause = "SIGTERM"
        self.log.deadline_seconds = self._clock() + self.limits.grace_seconds
        self._deadline = self.log.deadline_seconds - self._end_seconds()

    def _end_seconds(self) -> float:
        return min(MOST_END_SECONDS, self.limits.grace_seconds / 2)

    @property
    def early_end(self) -> EarlyEnd:
        """Why a search that has trials left ended, for those who write and tell it."""
        return EarlyEnd(self.cause or "interrupt", self.disk_message, self.log.deadline_seconds)

    def disk_broke(self, message: str) -> None:
        """End the search because the disk does not take its files; the first message is kept."""
        if self.cause != "disk":
            self.cause = "disk"
            self.disk_message = message

    def admits_trials(self) -> bool:
        """Whether a new trial may start: not while the search ends, nor where none of its epochs would be in time."""
        if self.cause is not None or self.limits.time_budget_seconds is None:
            return self.cause is None
        return self._budget_left() >= self._median_epoch_seconds()

    def holds(self, trial: Trial) -> bool:
        """Whether a trial that has just reported an epoch goes no further for now."""
        if self.cause is None and self._budget_left() <= 0:
            self.cause = "time budget"
        if self.cause is not None:
            self._held.add(trial.trial_id)
        return self.cause is not None

    def is_held(self, trial_id: str) -> bool:
        """Whether a trial waits for the end of the search, or for the disk."""
        return trial_id in self._held or self.cause == "disk"

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial begins or goes on."""
        self._heard[trial.trial_id] = self._clock()

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any) -> None:
        """An epoch is done."""
        self._heard[trial.trial_id] = self._clock()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tune's loop comes by; the last place in it, so what happens here is in the snapshot."""
        if self.syncer and self.syncer.error:
            self.disk_broke(describe_disk_error(self.syncer.error, self.syncer.folder))
        running = [trial for trial in trials if trial.status == Trial.RUNNING]
        if self.cause is None and (self._budget_left() <= 0 or not (running or self.admits_trials())):
            self.cause = "time budget"
        if self.cause is None:
            return
        awaited = [trial for trial in running if self._is_awaited(trial)]
        self._announce(len(running), len(awaited))
        if not awaited:
            _end_tunes_loop()

    def _is_awaited(self, trial: Trial) -> bool:
        if self.cause == "disk":
            return False
        if trial.trial_id in self._held:
            return bool(trial.is_saving) and self._clock() <= self._deadline
        return self.cause == "time budget" or self._epoch_end(trial) <= self._deadline

    def _epoch_end(self, trial: Trial) -> float:
        """When the running epoch of a trial is expected to end; never where no epoch was seen to judge by."""
        now = self._clock()
        if now > self._deadline:
            return math.inf
        own = self.log.record_of(trial).epochs
        rows = own or [row for record in self.log.trials.values() for row in record.epochs]
        epoch_seconds = max((_epoch_seconds(row) for row in rows), default=math.inf)
        # An epoch that takes longer than expected is waited for as long as there is time.
        return max(now, self._heard.get(trial.trial_id, now) + epoch_seconds)

    def _budget_left(self) -> float:
        budget = self.limits.time_budget_seconds
        return math.inf if budget is None else self.limits.start_seconds + budget - self._clock()

    def _median_epoch_seconds(self) -> float:
        means = [
            statistics.fmean(map(_epoch_seconds, record.epochs)) for record in self.log.trials.values() if record.epochs
        ]
        return statistics.median(means) if means else 0.0

    def _announce(self, num_running: int, num_awaited: int) -> None:
        if self._announced:
            return
        self._announced = True
        what = f"{num_awaited} of {num_running} running trials go on to the end of their epoch" if num_awaited else ""
        if self.cause == "SIGTERM":
            grace = show_duration(self.limits.grace_seconds)
            self._say(f"SIGTERM  the search ends within {grace}; {what or 'its trials stop at once'}")
        elif self.cause == "time budget":
            budget = show_duration(self.limits.time_budget_seconds or 0.0)
            self._say(f"budget   no new trial starts after {budget}; {what or 'none is running'}")


def _epoch_seconds(row: dict[str, Any]) -> float:
    return float(row["epoch_runtime (seconds)"])


def _end_tunes_loop() -> None:
    """As Ctrl-C does: Tune (ray 2.60) leaves its loop after the step, writes its snapshot and stops the trials."""
    signal.raise_signal(signal.SIGINT)
