"""Writes trials.json while Tune runs, so that a report can be made of a search that has not ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray import tune

from tune_cifar.runner.search_log import SearchLog
from tune_cifar.trials_file import EndedTexts, save_trials

MIN_SECONDS_BETWEEN = 2.0
# Tune waits while the file is written, so that writing may take a twentieth of its time, also of thousands of trials,
# and a fifth where a trial has ended, which a search that is killed shall not forget.
PAUSES_PER_WRITE = 20
PAUSES_PER_WRITE_FOR_ENDED = 4


class TrialsWriter(tune.Callback):  # type: ignore[misc]
    """Writes the records of a `SearchLog` soon after they change; it must stand after that log among the callbacks."""

    def __init__(self, log: SearchLog, folder: Path) -> None:
        self.log = log
        self.folder = folder
        self.changed = False
        self.has_ended = False
        self.ended_texts: EndedTexts = {}
        self.next_write = 0.0
        self.next_write_for_ended = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a resumed search has a writer of its own."""
        return {}

    def on_trial_start(self, **info: Any) -> None:
        """A trial begins or goes on."""
        self.changed = True

    def on_trial_result(self, **info: Any) -> None:
        """An epoch is done."""
        self.changed = True

    def on_trial_complete(self, **info: Any) -> None:
        """A trial ended by itself or was stopped."""
        self.changed = self.has_ended = True

    def on_trial_recover(self, **info: Any) -> None:
        """A trial failed and is tried again."""
        self.changed = True

    def on_trial_error(self, **info: Any) -> None:
        """A trial failed for good."""
        self.changed = self.has_ended = True

    def on_step_end(self, **info: Any) -> None:
        """Tune has handled what happened."""
        start_seconds = time.monotonic()
        if self.changed and start_seconds >= (self.next_write_for_ended if self.has_ended else self.next_write):
            save_trials(self.folder, self.log.trials.values(), "running", self.ended_texts)
            self.changed = self.has_ended = False
            end_seconds = time.monotonic()
            write_seconds = end_seconds - start_seconds
            self.next_write = end_seconds + max(MIN_SECONDS_BETWEEN, PAUSES_PER_WRITE * write_seconds)
            self.next_write_for_ended = end_seconds + PAUSES_PER_WRITE_FOR_ENDED * write_seconds
