"""Keeps new trials back while an earlier one waits for a place that they would take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher


class HeldSearch(Searcher):  # type: ignore[misc]
    """Hands out the trials of `searcher`, but none while `hold` says so.

    Tune gives a process that is free to the next trial at once, so one that needs more room, such as a whole GPU,
    would wait for as long as there are trials that need less.
    """

    def __init__(self, searcher: Searcher, hold: Callable[[], bool]) -> None:
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.searcher = searcher  # the name by which Tune finds whose state to save
        self._hold = hold

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Pass on what Tune knows of the search."""
        return bool(self.searcher.set_search_properties(metric, mode, config, **spec))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next config; None while trials are held back."""
        suggestion: dict[str, Any] | str | None = None if self._hold() else self.searcher.suggest(trial_id)
        return suggestion

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on an epoch."""
        self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on the end of a trial."""
        self.searcher.on_trial_complete(trial_id, result=result, error=error)

    def get_state(self) -> dict[str, Any]:
        """Nothing: what is held follows from the trials."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to take back."""
