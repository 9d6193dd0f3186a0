"""Shows a running search in the terminal: a live table, or plain lines where the output is a file."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tune_cifar.finalists import describe_finalist, finalists, repeats_have_ended
from tune_cifar.results import ENDED, TrialRecord, best_trial, count_by_status, flatten, leaf, show_score
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.config import TrialConfig

STYLES = {
    "finished": "green",
    "stopped": "green",
    "running": "cyan",
    "diverged": "yellow",
    "failed": "red",
    "waiting": "dim",
}


class TerminalProgress(tune.Callback):  # type: ignore[misc]
    """Draws the records of a `SearchLog`; it must stand after that log in Tune's list of callbacks."""

    def __init__(
        self, log: SearchLog, metric: Metric, *, num_trials: int, trials_at_once: int, console: Console
    ) -> None:
        self.log = log
        self.metric = metric
        self.num_trials = num_trials
        self.trials_at_once = trials_at_once
        self.console = console
        self.live: Live | None = None
        self.notes_said: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a terminal belongs to one process, so nothing of it goes along."""
        return {}

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any) -> None:
        """The search begins."""
        if self.console.is_terminal:
            self.live = Live(self._table(), console=self.console, refresh_per_second=2)
            self.live.start()

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
        self._show(f"{self._prefix(record)} epoch {result['epoch']}/{_num_epochs(record)}: {score}")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial ended by itself."""
        self._show_end(self.log.record_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial failed."""
        self._show_end(self.log.record_of(trial))

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """The search is over, or was interrupted: leave the last table on the screen."""
        if self.live:
            self.live.update(self._table(), refresh=True)
            self.live.stop()
            self.live = None

    def _show_end(self, record: TrialRecord) -> None:
        epoch = record.best_epoch(self.metric)
        value = (
            f"{self.metric.name} {show_score(epoch[self.metric.name])} at epoch {epoch['epoch']}"
            if epoch
            else "no result"
        )
        parts = [f"{self._prefix(record)} {record.status}: {value}, {duration(record.training_seconds)}"]
        if record.message:
            parts.append(record.message)
            if self.live:  # Why a trial was stopped or failed has no room in the table; this goes above it.
                self._print(" | ".join(parts))
        best = best_trial(self.log.trials.values(), self.metric)
        if best:
            parts.append(self._best_in_words(best))
        left = self.seconds_left()
        if left:
            parts.append(f"about {duration(left)} left")
        self._show(" | ".join(parts))

    def _show(self, line: str) -> None:
        if self.live:
            self.live.update(self._table())
        else:
            self._print(line)

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _prefix(self, record: TrialRecord) -> str:
        return f"[{record.number}/{self.num_trials}]"

    def _best_in_words(self, best: TrialRecord) -> str:
        return f"best {self.metric.name} {show_score(best.best_value(self.metric) or 0.0)} (trial {best.number})"

    def seconds_left(self) -> float | None:
        """Time left if the other trials take as long as those seen so far, or None before anything is known."""
        records = list(self.log.trials.values())
        ended = [trial for trial in records if trial.status in ENDED and trial.epochs]
        running = [trial for trial in records if trial.status == "running"]
        if ended:
            trial_seconds = sum(trial.training_seconds for trial in ended) / len(ended)
        else:
            guesses = [t.training_seconds / len(t.epochs) * _num_epochs(t) for t in running if t.epochs]
            if not guesses:
                return None
            trial_seconds = sum(guesses) / len(guesses)
        trials_left = self.num_trials - len(records) + sum(trial.status == "waiting" for trial in records)
        work_left = trials_left + sum(1 - len(trial.epochs) / _num_epochs(trial) for trial in running)
        return max(0.0, work_left) * trial_seconds / self.trials_at_once

    def _table(self) -> Group:
        records = sorted(self.log.trials.values(), key=lambda trial: trial.number)
        parameters = list(dict.fromkeys(name for trial in records for name in flatten(trial.config)))
        varied = [name for name in parameters if len({str(flatten(t.config).get(name)) for t in records}) > 1]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("#", "status", *varied, "epoch", self.metric.name, "at epoch", "time"):
            table.add_column(column, justify="right" if column in ("#", "epoch", "at epoch", "time") else "left")
        best = best_trial(records, self.metric)
        # The newest trials and the best one, as many as the screen holds.
        repeated = self._finalists(records)[: max(3, self.console.height // 3)]
        room = max(3, self.console.height - 6 - len(repeated))
        shown = [trial for trial in records if trial is best or trial.number > len(records) - room + 1]
        for trial in shown:
            self._add_row(table, trial, varied, is_best=trial is best)
        return Group(table, *repeated, Text(self._headline(records, best), style="bold"))

    def _finalists(self, records: list[TrialRecord]) -> list[Text]:
        """A line for each configuration that is trained again, the best first."""
        repeats = self.log.repeats
        all_ended = repeats is not None and repeats_have_ended(records, self.metric, repeats)
        return [
            Text(describe_finalist(finalist, self.metric, won=all_ended and place == 0))
            for place, finalist in enumerate(finalists(records, self.metric))
        ]

    def _add_row(self, table: Table, trial: TrialRecord, varied: list[str], *, is_best: bool) -> None:
        config = flatten(trial.config)
        epoch = trial.best_epoch(self.metric)
        table.add_row(
            str(trial.number),
            Text(trial.status, style=STYLES[trial.status]),
            *(show_value(config.get(name, "")) for name in varied),
            f"{len(trial.epochs)}/{_num_epochs(trial)}",
            Text(f"{show_score(epoch[self.metric.name])}" if epoch else "", style="bold green" if is_best else ""),
            str(epoch["epoch"]) if epoch else "",
            duration(trial.training_seconds),
        )

    def _headline(self, records: list[TrialRecord], best: TrialRecord | None) -> str:
        counts = dict(count_by_status(records))
        waiting = self.num_trials - len(records) + counts.pop("waiting", 0)
        parts = [f"{number} {status}" for status, number in counts.items()] + [f"{waiting} waiting"]
        if best:
            parts.append(self._best_in_words(best))
        left = self.seconds_left()
        if left:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)


def _num_epochs(trial: TrialRecord) -> int:
    return int(leaf(trial.config, "epochs", TrialConfig.epochs))


def describe_config(config: dict[str, Any]) -> str:
    """A config in one line, nested names by their last part."""
    return " ".join(f"{name.rpartition('.')[2]}={show_value(value)}" for name, value in flatten(config).items())


def show_value(value: Any) -> str:
    """A parameter's value, floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds in words a person reads at a glance."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
