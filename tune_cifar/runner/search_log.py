"""Keeps a record of every trial while Tune runs, as a callback because only callbacks see each epoch as it comes."""

from __future__ import annotations

import math
import time
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from tune_cifar.finalists import Repeats, first_run_of
from tune_cifar.results import TrialRecord

EPOCH_COLUMNS = (
    "epoch",
    "step",
    "train_loss",
    "val_loss",
    "val_accuracy",
    "epoch_runtime (seconds)",
    "avg epoch runtime (seconds)",
)


class SearchLog(tune.Callback):  # type: ignore[misc]
    """Fills `trials` with one record a trial; Tune keeps them in its snapshots, so a resumed search has them all.

    Whoever stops a trial says why in `stop_reasons`, and why one failed in `failure_causes`. `alone_trials` are
    those that get a GPU to themselves, after they failed for want of its memory. `repeats` tells which trials
    repeat another. `tune_trials` is Tune's own list, in which a new trial stands as soon as there is one. The process
    has to be over at `deadline_seconds`, a `time.monotonic()`, once a scheduler has asked it to end.
    """

    def __init__(self, metric: str, repeats: Repeats | None = None) -> None:
        self.metric = metric
        self.repeats = repeats
        self.stop_reasons: dict[str, str] = {}
        self.failure_causes: dict[str, str] = {}
        self.alone_trials: set[str] = set()
        self.trials: dict[str, TrialRecord] = {}
        self.tune_trials: list[Trial] = []
        self.deadline_seconds = math.inf

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; its own list of trials, and the deadline, belong to one process."""
        return {**self.__dict__, "tune_trials": [], "deadline_seconds": math.inf}

    def record_of(self, trial: Trial) -> TrialRecord:
        """The record of a Tune trial, made when it is first seen."""
        if trial.trial_id not in self.trials:
            config = dict(trial.config)
            is_repeat = self.repeats is not None and self.repeats.is_repeat(config)
            first = first_run_of(config, self.trials.values()) if is_repeat else None
            number = len(self.trials) + 1
            self.trials[trial.trial_id] = TrialRecord(
                number, trial.trial_id, config, repeat_of=first.number if first else None
            )
        return self.trials[trial.trial_id]

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tune is about to ask for trials and to handle what happened."""
        self.tune_trials = trials

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial begins or goes on."""
        self.record_of(trial).status = "running"

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done."""
        record = self.record_of(trial)
        row = {name: result[name] for name in EPOCH_COLUMNS if name in result}
        record.add_epoch({**row, "reported_at": time.time(), "logged": logged_values(result, self.metric)})
        record.message = result.get("message", "")
        record.where = result.get("where", "")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial ended by itself or was stopped."""
        record = self.record_of(trial)
        status = (trial.last_result or {}).get("status")
        if status in ("finished", "diverged"):
            record.status = status
        else:
            record.status = "stopped"
            record.message = self.stop_reasons.get(trial.trial_id, "stopped early")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial failed for good."""
        record = self.record_of(trial)
        record.status = "failed"
        record.message = self.failure_causes.get(trial.trial_id, "failed for an unknown reason")

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial failed and waits for another attempt, unless the scheduler has ended it instead."""
        if trial.status == Trial.PENDING:
            self.record_of(trial).status = "waiting"

    def get_state(self) -> dict[str, Any]:
        """What Tune writes into its snapshot."""
        return {"trials": self.trials, "alone_trials": self.alone_trials}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the records of the search that is resumed."""
        self.trials = state["trials"]
        self.alone_trials = state.get("alone_trials", set())
        self.interrupt()

    def interrupt(self) -> None:
        """What still runs when a process ends waits for a resume to go on."""
        for record in self.trials.values():
            if record.status == "running":
                record.status = "waiting"


def logged_values(result: dict[str, Any], metric: str) -> list[float]:
    """The values of `metric` that an epoch logged: one an epoch, but of train_loss one each 50 batches."""
    values = [row[2] for row in result["train_log"]] if metric == "train_loss" else [result.get(metric, math.nan)]
    return [float(value) for value in values if math.isfinite(value)]
