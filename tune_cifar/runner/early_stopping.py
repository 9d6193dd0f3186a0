"""Ends trials, and the search, before their time: the sweep's hyperband rule, its target, W&B's stop button."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_cifar.results import show_score
from tune_cifar.runner.search_log import SearchLog, logged_values
from tune_cifar.sweep.early_stopping import HyperbandRule
from tune_cifar.sweep.schema import Metric

StopRequested = Callable[[str, dict[str, Any]], bool]


class HyperbandScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks the sweep's rule after each epoch, with the histories of the search's log, which a resume brings back."""

    def __init__(self, rule: HyperbandRule, metric: Metric, log: SearchLog) -> None:
        super().__init__()
        self.rule = rule
        self.sweep_metric = metric
        self.log = log

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop the trial when the rule says so, and note why; a trial that ends by itself is left alone."""
        if result["status"] != "running":
            return str(TrialScheduler.CONTINUE)
        record = self.log.record_of(trial)
        # Tune asks its scheduler before its callbacks, so this epoch is not in the log yet; after a crash an
        # epoch can come again.
        earlier = [value for row in record.epochs if row["epoch"] < result["epoch"] for value in row["logged"]]
        history = earlier + logged_values(result, self.sweep_metric.name)
        others = [other.logged_values for other in self.log.trials.values() if other is not record]
        stop = self.rule.decide(history, others)
        if stop is None:
            return str(TrialScheduler.CONTINUE)
        side = "above" if self.sweep_metric.goal == "minimize" else "below"
        self.log.stop_reasons[trial.trial_id] = (
            f"stopped at band {stop.band}: {self.sweep_metric.name} {show_score(stop.value)} is {side} "
            f"the threshold {show_score(stop.threshold)} of {stop.num_trials} trials"
        )
        return str(TrialScheduler.STOP)


class SearchStopper(tune.Stopper):  # type: ignore[misc]
    """Ends single trials on request (the stop button of their W&B page), and all of them once the target is reached.

    Tune's own way to end a search (`stop_all`) cuts trials off without a word to searcher and callbacks;
    here each ends after its running epoch, and the searcher suggests no more.
    """

    def __init__(self, metric: Metric, log: SearchLog, stop_requested: StopRequested) -> None:
        self.metric = metric
        self.log = log
        self.stop_requested = stop_requested

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial ends now, with the reason noted."""
        if result["status"] != "running":
            return False
        reason = "stopped on its W&B page" if self.stop_requested(trial_id, result) else self._target_reached(result)
        if reason:
            self.log.stop_reasons[trial_id] = reason
        return bool(reason)

    def _target_reached(self, result: dict[str, Any]) -> str:
        values = logged_values(result, self.metric.name)
        if any(self.metric.reached(value) for value in values):
            return f"reached the target {self.metric.target:g}"
        for trial in self.log.trials.values():
            if any(self.metric.reached(value) for value in trial.logged_values):
                return f"the search is over: trial {trial.number} reached the target"
        return ""

    def stop_all(self) -> bool:
        """Never: see the class."""
        return False
