"""Counts how often trials fail on each machine, so that a bad one does not spoil trial after trial."""

from __future__ import annotations

MAX_FAILURES_IN_A_ROW = 3


class NodeHealth:
    """The trials that failed on each node since one last ended well there, with the cause of each.

    A trial that fails the same way on another node is to blame itself and counts against neither.
    """

    def __init__(self) -> None:
        self._failed: dict[str, dict[str, str]] = {}

    def failed(self, node_id: str, trial_id: str, cause: str) -> bool:
        """Note a failure; returns whether so many different trials have failed there in a row that it is the node."""
        elsewhere = [trials for node, trials in self._failed.items() if node != node_id]
        if any(trials.get(trial_id) == cause for trials in elsewhere):
            for trials in self._failed.values():
                trials.pop(trial_id, None)
            return False
        here = self._failed.setdefault(node_id, {})
        here[trial_id] = cause
        return len(here) >= MAX_FAILURES_IN_A_ROW

    def succeeded(self, node_id: str) -> None:
        """A trial ended well there."""
        self._failed.pop(node_id, None)
