"""Draws a search that runs as a table: the trials, how far each is, and what is known of the time left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_cifar.finalists import Repeats, describe_finalist, finalists, repeats_have_ended
from tune_cifar.report.words import show_value
from tune_cifar.results import ENDED, TrialRecord, best_trial, count_by_status, flatten, leaf, show_score
from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.progress import EpochProgress

STYLES = {
    "finished": "green",
    "stopped": "green",
    "running": "cyan",
    "diverged": "yellow",
    "failed": "red",
    "waiting": "dim",
}
BAR_CHARACTERS = 10
WIDTH_FOR_BARS = 100
"""A narrower terminal needs its columns for the parameters, and shows how far an epoch is in percent alone."""

NUMERIC = frozenset({"#", "epoch", "%", "images/s", "at epoch", "time"})

Cell = str | Text | ProgressBar
Running = Mapping[str, EpochProgress]
"""What is known of the running epochs, by trial id."""


@dataclass(frozen=True)
class SearchTable:
    """Draws the records of a search of `num_trials` trials, repeats included, `trials_at_once` side by side."""

    metric: Metric
    num_trials: int
    trials_at_once: int
    repeats: Repeats | None = None

    def draw(self, trials: Sequence[TrialRecord], running: Running, console: Console, *, ended: bool = False) -> Group:
        """The newest trials and the best one, as many as the screen holds; epochs' progress until it has `ended`."""
        records = sorted(trials, key=lambda trial: trial.number)
        best = best_trial(records, self.metric)
        repeated = self._finalists(records)[: max(3, console.height // 3)]
        room = max(3, console.height - 6 - len(repeated))
        shown = [trial for trial in records if trial is best or trial.number > len(records) - room + 1]
        parameters = _varied(records)
        columns = ["#", "status", *parameters, "epoch", self.metric.name, "at epoch", "time"]
        if not ended:
            in_epoch = ("bar", "%", "images/s") if console.width >= WIDTH_FOR_BARS else ("%",)
            columns[-3:-3] = in_epoch
        rows = [self._cells(trial, running.get(trial.trial_id), is_best=trial is best) for trial in shown]
        table = _table(columns, rows)
        for column in ("bar", "images/s", *reversed(parameters), "at epoch", "time"):
            if _width(table, console) <= console.width:
                break  # else every column would be cut, down to a letter of each word
            columns = [name for name in columns if name != column]
            table = _table(columns, rows)
        return Group(table, *repeated, Text(self._headline(records, running, best), style="bold"))

    def seconds_left(self, records: Sequence[TrialRecord], running: Running) -> float | None:
        """Time left if the other trials take as long as those seen so far, or None before anything is known."""
        at_work = [trial for trial in records if trial.status == "running"]
        ended = [trial for trial in records if trial.status in ENDED and trial.epochs]
        if ended:
            trial_seconds = sum(trial.training_seconds for trial in ended) / len(ended)
        else:
            guesses = [t.training_seconds / len(t.epochs) * num_epochs(t) for t in at_work if t.epochs]
            if not guesses:
                return None
            trial_seconds = sum(guesses) / len(guesses)
        trials_left = self.num_trials - len(records) + sum(trial.status == "waiting" for trial in records)
        work_left = float(trials_left)
        for trial in at_work:
            epoch, share = _position(trial, running.get(trial.trial_id))
            work_left += 1 - (epoch - 1 + share) / num_epochs(trial)
        return max(0.0, work_left) * trial_seconds / self.trials_at_once

    def outlook(self, records: Sequence[TrialRecord], running: Running, best: TrialRecord | None) -> list[str]:
        """The best so far and the time left in words, as far as they are known."""
        parts = []
        if best:
            value = show_score(best.best_value(self.metric) or 0.0)
            parts.append(f"best {self.metric.name} {value} (trial {best.number})")
        left = self.seconds_left(records, running)
        if left:
            parts.append(f"about {duration(left)} left")
        return parts

    def _finalists(self, records: list[TrialRecord]) -> list[Text]:
        """A line for each configuration that is trained again, the best first."""
        all_ended = self.repeats is not None and repeats_have_ended(records, self.metric, self.repeats)
        return [
            Text(describe_finalist(finalist, self.metric, won=all_ended and place == 0))
            for place, finalist in enumerate(finalists(records, self.metric))
        ]

    def _cells(self, trial: TrialRecord, progress: EpochProgress | None, *, is_best: bool) -> dict[str, Cell]:
        """The cells of a trial by column."""
        cells: dict[str, Cell] = {name: show_value(value) for name, value in flatten(trial.config).items()}
        epoch, share = _position(trial, progress)
        cells |= {
            "#": str(trial.number),
            "status": Text(trial.status, style=STYLES[trial.status]),
            "epoch": f"{epoch}/{num_epochs(trial)}",
            "time": duration(trial.training_seconds),
        }
        if trial.status == "running":
            cells["bar"] = ProgressBar(total=1.0, completed=share, width=BAR_CHARACTERS)
            cells["%"] = f"{share:.0%}"
            cells["images/s"] = f"{progress.images_per_second:,.0f}" if progress else ""
        best_epoch = trial.best_epoch(self.metric)
        if best_epoch:
            score = show_score(best_epoch[self.metric.name])
            cells[self.metric.name] = Text(score, style="bold green" if is_best else "")
            cells["at epoch"] = str(best_epoch["epoch"])
        return cells

    def _headline(self, records: list[TrialRecord], running: Running, best: TrialRecord | None) -> str:
        counts = dict(count_by_status(records))
        waiting = self.num_trials - len(records) + counts.pop("waiting", 0)
        parts = [f"{number} {status}" for status, number in counts.items()] + [f"{waiting} waiting"]
        return " · ".join(parts + self.outlook(records, running, best))


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column("" if column == "bar" else column, justify="right" if column in NUMERIC else "left")
    for cells in rows:
        table.add_row(*(cells.get(column, "") for column in columns))
    return table


def _width(table: Table, console: Console) -> int:
    """How wide the table is where nothing of it has to be cut."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def _varied(records: list[TrialRecord]) -> list[str]:
    """The parameters that are not the same in all trials."""
    values: dict[str, set[str]] = {}
    for config in (flatten(trial.config) for trial in records):
        for name, value in config.items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1]


def _position(trial: TrialRecord, progress: EpochProgress | None) -> tuple[int, float]:
    """The epoch that a trial is in, and the share of it that is trained.

    Epochs are reported while training goes on, so progress may be an epoch ahead of the results, or one behind.
    """
    done, total = len(trial.epochs), num_epochs(trial)
    if trial.status == "running" and progress and progress.epoch > done:
        return progress.epoch, progress.share
    if trial.status == "running" and done < total:
        return done + 1, 0.0
    return done, 1.0


def num_epochs(trial: TrialRecord) -> int:
    """How many epochs the trial has if nothing ends it."""
    return int(leaf(trial.config, "epochs", TrialConfig.epochs))


def describe_config(config: dict[str, Any]) -> str:
    """A config in one line, nested names by their last part."""
    return " ".join(f"{name.rpartition('.')[2]}={show_value(value)}" for name, value in flatten(config).items())


def duration(seconds: float) -> str:
    """Seconds in words a person reads at a glance."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
