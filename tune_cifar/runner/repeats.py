"""Trains the best configurations again with other seeds, as the last trials of a search and by the same machinery."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from tune_cifar.finalists import Repeats
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric


class RepeatSearch(Searcher):  # type: ignore[misc]
    """Hands out the trials of `searcher`, and once `num_trials` of them have ended, the repeats of the best.

    It has no state that a resume could lose: a trial whose seed is not the search's own is a repeat, and what is
    left to run follows from Tune's list of trials, which is always the true one. `searcher` hears of no repeat.
    """

    def __init__(self, searcher: Searcher, repeats: Repeats, num_trials: int, metric: Metric, log: SearchLog) -> None:
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher = searcher  # the name by which Tune finds whose state to save
        self._repeats = repeats
        self._num_trials = num_trials
        self._sweep_metric = metric
        self._log = log

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Pass on what Tune knows of the search."""
        return bool(self.searcher.set_search_properties(metric, mode, config, **spec))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next config; None while the trials are still running that decide what is repeated."""
        trials = self._log.tune_trials
        own = [trial for trial in trials if not self._repeats.is_repeat(trial.config)]
        if len(own) < self._num_trials:
            suggestion: dict[str, Any] | str | None = self.searcher.suggest(trial_id)
            if suggestion != Searcher.FINISHED:
                return suggestion
        if not all(trial.is_finished() for trial in own):
            return None
        started = [trial.config for trial in trials]
        missing = self._repeats.missing(self._log.trials.values(), self._sweep_metric, started)
        return missing[0] if missing else str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the searcher of an epoch of its own trials."""
        record = self._log.trials.get(trial_id)
        if record is None or record.repeat_of is None:
            self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the searcher of the end of a trial; it knows its own."""
        self.searcher.on_trial_complete(trial_id, result=result, error=error)

    def get_state(self) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to take back."""
