"""Ends trials, and the search, before their time: the sweep's hyperband rule, its target, W&B's stop button."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_cifar.results import TrialRecord, show_score
from tune_cifar.runner.search_log import SearchLog, logged_values
from tune_cifar.sweep.curve_stopping import CurveRule
from tune_cifar.sweep.early_stopping import HyperbandRule
from tune_cifar.sweep.schema import Metric

StopRequested = Callable[[str, dict[str, Any]], bool]


class EarlyStopping(Protocol):
    """A rule of the sweep file that looks at a trial after each epoch."""

    def reason(self, record: TrialRecord, result: dict[str, Any]) -> str:
        """Why the trial stops after the epoch of `result`, or an empty string.

        Tune asks its scheduler before its callbacks, so this epoch is not in the record yet; after a crash an
        epoch can come again.
        """


class HyperbandStopping:
    """Asks W&B's rule, with the histories of the search's log, which a resume brings back."""

    def __init__(self, rule: HyperbandRule, metric: Metric, log: SearchLog) -> None:
        self.rule = rule
        self.metric = metric
        self.log = log

    def reason(self, record: TrialRecord, result: dict[str, Any]) -> str:
        """See `EarlyStopping`; every logged value of the metric counts."""
        earlier = [value for row in record.epochs if row["epoch"] < result["epoch"] for value in row["logged"]]
        others = [other.logged_values for other in self.log.trials.values() if other is not record]
        stop = self.rule.decide(earlier + logged_values(result, self.metric.name), others)
        if stop is None:
            return ""
        side = "above" if self.metric.goal == "minimize" else "below"
        return (
            f"stopped at band {stop.band}: {self.metric.name} {show_score(stop.value)} is {side} "
            f"the threshold {show_score(stop.threshold)} of {stop.num_trials} trials"
        )


class LagStopping:
    """Asks the rule of `type: curve`, with the values after each epoch of the trials that have finished."""

    def __init__(self, rule: CurveRule, metric: Metric, log: SearchLog) -> None:
        self.rule = rule
        self.metric = metric
        self.log = log

    def reason(self, record: TrialRecord, result: dict[str, Any]) -> str:
        """See `EarlyStopping`."""
        name = self.metric.name
        history = [row.get(name, math.nan) for row in record.epochs if row["epoch"] < result["epoch"]]
        finished = [other for other in self.log.trials.values() if other.status == "finished"]
        curves = [[row.get(name, math.nan) for row in other.epochs] for other in finished]
        lag = self.rule.decide([*history, result.get(name, math.nan)], curves)
        if lag is None:
            return ""
        return (
            f"stopped after epoch {lag.epoch}: {name} {show_score(lag.value)} lags {show_score(lag.lag)} behind the "
            f"best finished trial ({show_score(lag.leader_value)} by then); trials caught up or fell back by "
            f"{show_score(lag.catch_up)} from there"
        )


class SearchStopper:
    """Ends single trials on request (the stop button of their W&B page), and all of them once the target is reached.

    Tune's own way to end a search (`stop_all`) cuts trials off without a word to searcher and callbacks;
    here each ends after its running epoch, and the searcher suggests no more. Repeats run on past the target.
    """

    def __init__(self, metric: Metric, log: SearchLog, stop_requested: StopRequested) -> None:
        self.metric = metric
        self.log = log
        self.stop_requested = stop_requested

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial ends now, with the reason noted."""
        if result["status"] != "running":
            return False
        record = self.log.trials.get(trial_id)
        reason = ""
        if self.stop_requested(trial_id, result):
            reason = "stopped on its W&B page"
        elif record is None or record.repeat_of is None:
            reason = self._target_reached(result)
        if reason:
            self.log.stop_reasons[trial_id] = reason
        return bool(reason)

    def _target_reached(self, result: dict[str, Any]) -> str:
        if self.metric.target is None:
            return ""
        values = logged_values(result, self.metric.name)
        if any(self.metric.reached(value) for value in values):
            return f"reached the target {self.metric.target:g}"
        for trial in self.log.trials.values():
            if any(self.metric.reached(value) for value in trial.logged_values):
                return f"the search is over: trial {trial.number} reached the target"
        return ""


class SearchScheduler(FIFOScheduler):  # type: ignore[misc]
    """Ends a trial where the stopper or the sweep's early stopping says so, and notes why.

    The stopper is asked here, and not by Tune itself, because Tune writes its stopper into its state and takes that
    one at a restore: a resumed search would ask the log and the W&B callback of a process that is gone.
    """

    def __init__(self, stopper: SearchStopper, early_stopping: EarlyStopping | None, log: SearchLog) -> None:
        super().__init__()
        self.stopper = stopper
        self.early_stopping = early_stopping
        self.log = log

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop the trial or let it go on; early stopping leaves repeats alone, and trials that end by themselves."""
        if self.stopper(trial.trial_id, result):
            return str(TrialScheduler.STOP)
        record = self.log.record_of(trial)
        if self.early_stopping is None or result["status"] != "running" or record.repeat_of is not None:
            return str(TrialScheduler.CONTINUE)
        reason = self.early_stopping.reason(record, result)
        if not reason:
            return str(TrialScheduler.CONTINUE)
        self.log.stop_reasons[trial.trial_id] = reason
        return str(TrialScheduler.STOP)
