"""Decides what becomes of a trial that failed: another attempt and where, or the end of it, or that of the search."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune.error import TuneError
from ray.tune.experiment import Trial

from tune_cifar.results import TrialRecord
from tune_cifar.runner.early_stopping import EarlyStopping, SearchScheduler, SearchStopper
from tune_cifar.runner.failures import Failure, read_failure
from tune_cifar.runner.hopeless import FirstTrials
from tune_cifar.runner.node_health import MAX_FAILURES_IN_A_ROW
from tune_cifar.runner.placement import TrialPlacement
from tune_cifar.runner.search_log import SearchLog

SECONDS_BETWEEN_LOOKS_AT_NODES = 5.0


@dataclass(frozen=True)
class Attempt:
    """A failed attempt: why, on which node ("" if unknown), and whether other trials shared its GPU."""

    failure: Failure
    node_id: str
    shared_gpu: bool


class RetryingScheduler(SearchScheduler):
    """Tune retries a trial `max_failures` times from its last checkpoint; this chooses the place and ends it sooner.

    It is a scheduler because of all that Tune lets a user write only this hears of a failure before the trial is
    put back into the queue. `say` gets one line for each retry and each node that is left alone.
    `stopped_because` says why the search was stopped before its end, or is empty.
    """

    def __init__(
        self,
        stopper: SearchStopper,
        early_stopping: EarlyStopping | None,
        log: SearchLog,
        *,
        placement: TrialPlacement,
        first_trials: FirstTrials,
        max_failures: int,
        tune_folder: str,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(stopper, early_stopping, log)
        self.placement = placement
        self.stopped_because = ""
        self._first_trials = first_trials
        self._max_failures = max_failures
        self._tune_folder = tune_folder
        self._say = say
        self._last_attempt: dict[str, Attempt] = {}
        self._requeued: set[str] = set()
        self._given_up: dict[str, Any] = {}
        self._next_look = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler; a resumed search has one of its own."""
        return {}

    def waits_for_room(self) -> bool:
        """Whether a trial waits for a place that a new one would take from it."""
        special = self.log.alone_trials | self.placement.avoided.keys()
        if not special and not self.placement.left_alone:
            return False
        waiting = self._waiting_trials()
        return bool(self.placement.left_alone and waiting) or not special.isdisjoint(waiting)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial joins Tune's queue: a new one, one of a resumed search, or one that failed."""
        super().on_trial_add(tune_controller, trial)
        if trial.trial_id in self._given_up:
            # Tune has put it back; this is its own way to end a trial for good (ray 2.60: no public one for errors).
            controller = self._given_up[trial.trial_id]
            controller._process_trial_failure(trial, exception=TuneError("not tried again, see the failure above"))
        elif trial.trial_id in self._requeued:
            self._requeued.remove(trial.trial_id)
        elif trial.status == Trial.PENDING and (self.placement.left_alone or trial.trial_id in self.log.alone_trials):
            self._place(trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """A trial ended by itself or was stopped, which speaks for its node."""
        super().on_trial_complete(tune_controller, trial, result)
        self.placement.health.succeeded(self.placement.leave(trial))
        self._last_attempt.pop(trial.trial_id, None)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """An attempt failed; Tune's status tells whether it will try again (ERROR) or not (ray 2.60)."""
        super().on_trial_error(tune_controller, trial)
        if trial.trial_id in self._given_up:
            return  # its end, as `on_trial_add` has asked for
        # A trial whose process is gone would stay "running" in Tune's snapshots (ray 2.60).
        tune_controller._mark_trial_to_checkpoint(trial)
        record = self.log.record_of(trial)
        record.failures += 1
        gpus = trial.placement_group_factory.required_resources.get("GPU", 0.0)
        attempt = Attempt(read_failure(trial), self.placement.leave(trial), 0 < gpus < 1)
        no_use = self._why_no_retry(trial, attempt)
        self._last_attempt[trial.trial_id] = attempt
        self.log.failure_causes[trial.trial_id] = "; ".join(filter(None, [attempt.failure.cause.rstrip("."), no_use]))
        self._judge_node(trial, attempt)
        if not self._cured_alone(attempt):
            self._first_trials.failed(trial.trial_id, attempt.failure)
        if self._first_trials.all_fail_alike(self.log.trials):
            self._stop_hopeless(trial, attempt.failure)
        elif trial.status == Trial.ERROR and no_use:
            self._given_up[trial.trial_id] = tune_controller
        elif trial.status == Trial.ERROR:
            self._retry(trial, record, attempt)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Tune's loop comes by: see that machines are left for the trials that may not run on all of them."""
        if (self.placement.left_alone or self.placement.avoided) and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS_AT_NODES
            # What Tune has asked of Ray cannot be changed any more, and would be waited for for ever.
            if not all(self.placement.has_room_for(trial_id) for trial_id in self._waiting_trials()):
                self._stop("the only machines left are those on which the trials that wait have failed.")
        chosen: Trial | None = super().choose_trial_to_run(tune_controller)
        return chosen

    def _waiting_trials(self) -> list[str]:
        return [trial.trial_id for trial in self.log.tune_trials if trial.status == Trial.PENDING]

    def _place(self, trial: Trial) -> None:
        alone = trial.trial_id in self.log.alone_trials
        trial.update_resources(self.placement.request(trial.trial_id, alone=alone))

    def _why_no_retry(self, trial: Trial, attempt: Attempt) -> str:
        """What to tell of a failure that another attempt cannot cure, or an empty string."""
        failure, last = attempt.failure, self._last_attempt.get(trial.trial_id)
        if failure.kind == "mistake":
            return "not tried again before that is mended"
        if failure.kind == "gpu memory":
            if not attempt.shared_gpu:
                return "it had the GPU to itself: choose a smaller batch_size"
            if trial.status != Trial.ERROR:
                return "it shared the GPU: choose a smaller batch_size, or a larger --gpus-per-trial"
            return ""
        if failure.kind != "exception" or last is None or not failure.repeats(last.failure):
            return ""
        # Training from a checkpoint repeats itself to the last digit, so what fails twice fails always; but a bad
        # machine fails twice as well, so where there is another one that has to be tried.
        if last.node_id == attempt.node_id and len(self.placement.able_nodes()) > 1:
            return ""
        return f"the same twice {_place_in_training(failure)}, so not tried again"

    def _cured_alone(self, attempt: Attempt) -> bool:
        return attempt.failure.kind == "gpu memory" and attempt.shared_gpu and self._max_failures > 0

    def _judge_node(self, trial: Trial, attempt: Attempt) -> None:
        if attempt.failure.kind in ("mistake", "gpu memory"):
            return
        name = self.placement.failed(attempt.node_id, trial, attempt.failure.likeness)
        if name:
            self._say(f"node     {name} failed {MAX_FAILURES_IN_A_ROW} trials in a row: no more are put there")

    def _retry(self, trial: Trial, record: TrialRecord, attempt: Attempt) -> None:
        alone = self._cured_alone(attempt)
        if alone:
            self.log.alone_trials.add(trial.trial_id)
        elif attempt.node_id:
            self.placement.avoid(trial.trial_id, attempt.node_id)
        self._place(trial)
        self._requeued.add(trial.trial_id)
        number = f"attempt {trial.num_failures + 1} of {self._max_failures + 1}"
        elsewhere = ", on another machine" if trial.trial_id in self.placement.avoided else ""
        how = f"{', alone on a GPU' if alone else elsewhere}, {_start(attempt.failure)}"
        self._say(f"retry    trial {record.number}: {attempt.failure.cause}; {number}{how}")

    def _stop_hopeless(self, trial: Trial, failure: Failure) -> None:
        number = self._first_trials.number
        who = "the only trial" if number == 1 else f"the first {number} trials all"
        log = f"{self._tune_folder}/{trial.storage.trial_dir_name}/error.txt"
        self._stop(
            f"{who} failed before any had finished an epoch: {failure.cause.rstrip('.')}. The whole error is in {log}."
        )

    def _stop(self, reason: str) -> None:
        """End the search as Ctrl-C does, which keeps everything for a resume."""
        if not self.stopped_because:
            self.stopped_because = reason
            signal.raise_signal(signal.SIGINT)


def _start(failure: Failure) -> str:
    return f"from epoch {failure.last_epoch + 1}" if failure.last_epoch else "from the beginning"


def _place_in_training(failure: Failure) -> str:
    return f"after epoch {failure.last_epoch}" if failure.last_epoch else "before the first epoch was done"
