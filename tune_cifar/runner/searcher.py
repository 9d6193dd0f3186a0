"""Tune's Optuna searcher with the rules of a sweep: decoded values, the best of each history, no trial left pending."""

from __future__ import annotations

import math
from typing import Any

import optuna
from ray.tune.search.optuna import OptunaSearch

from tune_cifar.results import Metric
from tune_cifar.sweep.searcher import SearchPlan
from tune_cifar.sweep.space import SearchSpace


class SweepSearch(OptunaSearch):  # type: ignore[misc]
    """Asks Optuna on the model's scale and hands Tune the sweep file's values.

    Unlike the plain OptunaSearch it tells Optuna the best value of a trial's history, as W&B's engine
    does, instead of the last; a diverged trial is told as the worst value seen; and whatever ends
    without a usable value is closed as failed, where a NaN would stay pending for ever.
    """

    def __init__(self, space: SearchSpace, plan: SearchPlan, metric: Metric) -> None:
        super().__init__(
            space=dict(space.distributions),
            metric=metric.name,
            mode="min" if metric.goal == "minimize" else "max",
            sampler=plan.sampler,
            points_to_evaluate=plan.start_points,
        )
        self._sweep_space = space
        self._sweep_metric = metric
        self._values: dict[str, dict[int, float]] = {}
        self._untold_diverged: list[str] = []
        if not self._space:  # A sweep of constants only: the base class sets nothing up for an empty space.
            self._setup_study(self._mode)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The sweep file has fixed space and metric; Tune may not set others."""
        return False

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next config, in the sweep file's values."""
        if trial_id not in self._ot_trials:
            self._ot_trials[trial_id] = self._ot_study.ask(fixed_distributions=self._space)
        return self._sweep_space.decode(self._ot_trials[trial_id].params)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the value of each epoch; an epoch repeated after a crash replaces its first value."""
        value = result.get(self._sweep_metric.name)
        if value is not None and math.isfinite(value):
            self._values.setdefault(trial_id, {})[result["epoch"]] = value

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial in Optuna's study with its best value, the worst of all, or as failed."""
        if trial_id in self._completed_trials or trial_id not in self._ot_trials:
            return
        if result:
            self.on_trial_result(trial_id, result)
        self._completed_trials.add(trial_id)
        values = self._values.get(trial_id, {}).values()
        if not error and result and result.get("status") == "diverged":
            self._untold_diverged.append(trial_id)
        elif not error and values:
            self._ot_study.tell(self._ot_trials[trial_id], self._sweep_metric.best(values))
        else:
            self._ot_study.tell(self._ot_trials[trial_id], state=optuna.trial.TrialState.FAIL)
        self._tell_diverged()

    def _tell_diverged(self) -> None:
        """Tell diverged trials as the worst value seen; until there is one they wait, as they cannot be ranked."""
        seen = [value for values in self._values.values() for value in values.values()]
        if not seen:
            return
        for trial_id in self._untold_diverged:
            self._ot_study.tell(self._ot_trials[trial_id], self._sweep_metric.worst(seen))
        self._untold_diverged.clear()
