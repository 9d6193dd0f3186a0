"""Tells a search that cannot work from one with some bad trials, so that it ends after a few and not after all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.results import TrialRecord
from tune_cifar.runner.failures import Failure
from tune_cifar.trials_file import load_trials

MIN_TRIALS = 3


class FirstTrials:
    """Whether the first trials of a search all fail in the same way with no epoch finished by any.

    These are as many as run at once, at least `MIN_TRIALS`, or all there are. One that is being tried again
    counts as failed: to wait for its last attempt would only take longer.
    """

    def __init__(self, num_trials: int, trials_at_once: int) -> None:
        self.number = min(max(trials_at_once, MIN_TRIALS), num_trials)
        self._likeness: dict[str, str] = {}

    def failed(self, trial_id: str, failure: Failure) -> None:
        """A trial failed for a cause that it cannot be cured of by other means."""
        self._likeness[trial_id] = failure.likeness

    def all_fail_alike(self, trials: Mapping[str, TrialRecord]) -> bool:
        """Whether there is no use in going on."""
        if any(trial.epochs for trial in trials.values()):
            return False
        first = [trial.trial_id for trial in trials.values() if trial.number <= self.number]
        causes = {self._likeness.get(trial_id) for trial_id in first}
        return len(first) == self.number and len(causes) == 1 and None not in causes


def starts_over(folder: Path) -> bool:
    """Whether a resume of the search in `folder` begins anew, since it was stopped with failed trials and no epoch.

    There is nothing to lose then, and a failed trial would not be run again. A search that ended by itself stays
    as it is, however its trials ended.
    """
    try:
        saved = load_trials(folder)
    except UserError:
        return False
    if saved is None or saved.state == "complete" or any(trial.epochs for trial in saved.trials):
        return False
    return any(trial.failures for trial in saved.trials)
