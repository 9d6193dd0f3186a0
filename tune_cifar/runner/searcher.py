"""Tune's Optuna searcher with the rules of a sweep: decoded values, the best of each history, no trial left pending."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from tune_cifar.results import ENDED, TrialRecord, flatten
from tune_cifar.sweep.sampler import PRIOR
from tune_cifar.sweep.schema import Metric
from tune_cifar.sweep.searcher import SearchPlan, imputed_value
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.sweep.values import agree


class SweepSearch(OptunaSearch):  # type: ignore[misc]
    """Asks Optuna on the model's scale and hands Tune the sweep file's values.

    Unlike the plain OptunaSearch it tells Optuna the best value of a trial's history, as W&B's engine
    does, instead of the last; a failed or diverged trial gets the value of the file's `impute`, the worst
    one seen unless it says otherwise; and no trial stays pending, as one that ends with a NaN would.
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
        self._to_impute: list[str] = []
        self._plan = plan
        if not self._space:  # A sweep of constants only: the base class sets nothing up for an empty space.
            self._setup_study(self._mode)
        self._add_prior()

    def _add_prior(self) -> None:
        for prior in self._plan.prior_trials:
            known = create_trial(
                params=prior.point,
                distributions=self._sweep_space.distributions,
                value=prior.value,
                # The model knows this point, but this search has not tried it.
                user_attrs={PRIOR: True},
            )
            self._ot_study.add_trial(known)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The sweep file has fixed space and metric; Tune may not set others."""
        return False

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next config, in the sweep file's values; FINISHED once a trial has reached the metric's target."""
        seen = (value for values in self._values.values() for value in values.values())
        if any(map(self._sweep_metric.reached, seen)):
            return str(Searcher.FINISHED)
        if trial_id not in self._ot_trials:
            self._ot_trials[trial_id] = self._ot_study.ask(fixed_distributions=self._space)
        return self._sweep_space.decode(self._ot_trials[trial_id].params)

    def recall(self, trials: Sequence[TrialRecord]) -> list[str]:
        """Take in the trials of a process whose state is lost, in the order of their suggestion, before any other.

        Those that have not ended count as running. Start points that they have used up are not handed out again, and
        neither are the draws. Returns a line for each trial that is none of this sweep.
        """
        unused = list(self._plan.start_points)
        points: dict[str, dict[str, Any]] = {}
        lines = []
        for trial in trials:
            point = self._sweep_space.encode(trial.config)
            if point is None:
                lines.append(f"trial {trial.number} is no trial of the sweep file: the searcher does not know it")
                continue
            planned = next((start for start in unused if self._is_same(start, point)), None)
            if planned is not None:
                unused.remove(planned)
            points[trial.trial_id] = planned or point
        if self._space:
            self._points_to_evaluate = [*points.values(), *unused]
            self._setup_study(self._mode)
            self._add_prior()
        for trial_id in points:  # each gets the next of the points
            self._ot_trials[trial_id] = self._ot_study.ask(fixed_distributions=self._space)
        self._plan.sampler.skip(len(points))
        for trial in trials:
            for row in trial.epochs:
                self.on_trial_result(trial.trial_id, row)
            if trial.status in ENDED:
                self.on_trial_complete(trial.trial_id, {"status": trial.status}, error=trial.status == "failed")
        return lines

    def _is_same(self, point: dict[str, Any], other: dict[str, Any]) -> bool:
        values, others = (flatten(self._sweep_space.decode(one)) for one in (point, other))
        return all(agree(value, others[name]) for name, value in values.items())

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the value of each epoch; an epoch repeated after a crash replaces its first value."""
        value = result.get(self._sweep_metric.name)
        if value is not None and math.isfinite(value):
            self._values.setdefault(trial_id, {})[result["epoch"]] = value

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Close the trial in Optuna's study: with its best value, or as failed."""
        if trial_id in self._completed_trials or trial_id not in self._ot_trials:
            return
        if result:
            self.on_trial_result(trial_id, result)
        self._completed_trials.add(trial_id)
        values = self._values.get(trial_id, {}).values()
        if values and not error and (result or {}).get("status") != "diverged":
            self._ot_study.tell(self._ot_trials[trial_id], self._sweep_metric.best(values))
        else:
            self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.FAIL)
            self._to_impute.append(trial_id)
        self._impute()

    def _impute(self) -> None:
        """Add failed and diverged trials once more with the value that the file's `impute` gives them.

        Optuna's model leaves failed trials out. Until some trial has a value there is nothing to impute from.
        """
        for trial_id in list(self._to_impute):
            own = list(self._values.get(trial_id, {}).values())
            others = [list(self._values.get(other, {}).values()) for other in self._completed_trials - {trial_id}]
            value = imputed_value(self._sweep_metric, own, others)
            if value is None:
                continue
            failed = self._ot_trials[trial_id]
            again = create_trial(params=failed.params, distributions=failed.distributions, value=value)
            self._ot_study.add_trial(again)
            self._to_impute.remove(trial_id)
