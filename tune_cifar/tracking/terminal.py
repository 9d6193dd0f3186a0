"""Shows a running search in the terminal: a live table, or plain lines where the output is a file."""

from __future__ import annotations

import time
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.live import Live

from tune_cifar.console import SearchConsole
from tune_cifar.results import TrialRecord, best_trial, show_score
from tune_cifar.runner.progress import ProgressBoard
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric
from tune_cifar.tracking.search_table import Running, SearchTable, describe_config, duration, num_epochs

# All trials are looked at for a table, so that drawing one of thousands may take a tenth of Tune's time at most.
_PAUSES_PER_DRAWING = 9


class TerminalProgress(tune.Callback):  # type: ignore[misc]
    """Draws the records of a `SearchLog`; it must stand after that log in Tune's list of callbacks.

    A terminal that can be drawn over also shows how far the running epochs are, by what trials say on `board`. A log
    gets one line an epoch. A quiet console gets notes and failures only.
    """

    def __init__(
        self,
        log: SearchLog,
        metric: Metric,
        *,
        num_trials: int,
        trials_at_once: int,
        console: SearchConsole,
        board: ProgressBoard | None = None,
    ) -> None:
        self.log = log
        self.metric = metric
        self.console = console
        self.table = SearchTable(metric, num_trials, trials_at_once, log.repeats)
        self.running: Running = {}
        self.live: Live | None = None
        self.notes_said: set[str] = set()
        self.board = board
        self._outdated = False
        self._next_drawing = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a terminal belongs to one process, so nothing of it goes along."""
        return {}

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        """The search begins."""
        if self.console.can_redraw:
            self.live = Live(console=self.console, refresh_per_second=2)
            self.live.start()
            self._draw()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tune's loop comes by, as it does ten times a second while nothing happens."""
        news = self.board.news() if self.live and self.board else None
        if news is not None:
            self.running = news
        if news is not None or self._outdated:
            self._draw()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial begins or goes on."""
        record = self.log.record_of(trial)
        repeat = f"repeat of trial {record.repeat_of}, " if record.repeat_of else ""
        self._show(f"{self._prefix(record)} started: {repeat}{describe_config(record.config)}")

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any) -> None:
        """An epoch is done."""
        record = self.log.record_of(trial)
        for note in result.get("notes", ()):
            if note not in self.notes_said:  # what one trial had to do otherwise, most trials had to
                self.notes_said.add(note)
                self._print(f"note     trial {record.number} and maybe others: {note}")
        score = f"{self.metric.name} {show_score(result[self.metric.name])}"
        self._show(f"{self._prefix(record)} epoch {result['epoch']}/{num_epochs(record)}: {score}")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial ended by itself."""
        self._show_end(self.log.record_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial failed."""
        self._show_end(self.log.record_of(trial))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """The search is over, or was interrupted: leave the last table on the screen."""
        if self.live:
            self._draw(ended=True)
            self.live.stop()
            self.live = None

    def _show_end(self, record: TrialRecord) -> None:
        epoch = record.best_epoch(self.metric)
        value = (
            f"{self.metric.name} {show_score(epoch[self.metric.name])} at epoch {epoch['epoch']}"
            if epoch
            else "no result"
        )
        line = f"{self._prefix(record)} {record.status}: {value}, {duration(record.training_seconds)}"
        line = " | ".join([line, record.message] if record.message else [line])
        if (self.live and record.message) or (self.console.details.quiet and record.status == "failed"):
            self._print(line)  # Why a trial was stopped or failed has no room in the table; this goes above it.
        if not self.live and not self.console.details.quiet:  # else nobody sees it, and it looks at all trials
            records = list(self.log.trials.values())
            line = " | ".join([line, *self.table.outlook(records, self.running, best_trial(records, self.metric))])
        self._show(line)

    def _show(self, line: str) -> None:
        if self.live:
            self._draw()
        else:
            self.console.details.print(line, markup=False, highlight=False, soft_wrap=True)

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, *, ended: bool = False) -> None:
        begin_seconds = time.monotonic()
        self._outdated = not ended and begin_seconds < self._next_drawing
        if self.live and not self._outdated:
            records = list(self.log.trials.values())
            self.live.update(self.table.draw(records, self.running, self.console, ended=ended), refresh=ended)
            end_seconds = time.monotonic()
            self._next_drawing = end_seconds + _PAUSES_PER_DRAWING * (end_seconds - begin_seconds)

    def _prefix(self, record: TrialRecord) -> str:
        return f"[{record.number}/{self.table.num_trials}]"
