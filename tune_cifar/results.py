"""What a search has found so far, here as plain values so that progress, reports and publishing need no Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.config import leaves

Status = Literal["waiting", "running", "finished", "stopped", "diverged", "failed"]
STATUSES: tuple[Status, ...] = ("finished", "stopped", "diverged", "failed", "running", "waiting")
ENDED: frozenset[Status] = frozenset({"finished", "stopped", "diverged", "failed"})
CAN_WIN: frozenset[Status] = frozenset({"finished", "stopped"})


@dataclass
class TrialRecord:
    """One trial: its number (from 1, in the order of suggestion), config, and one row of metrics an epoch.

    A row's `logged` lists every value of the search's metric in that epoch: one, but many of `train_loss`;
    `reported_at` is when the search heard of the epoch, in seconds since 1970.
    `repeat_of` is the number of the trial that this one repeats with another seed, or None.
    `failures` counts the attempts that failed, of which all but a last one were retried.
    `where` is the machine, and its GPUs if any, of the last epoch: `node-1 GPU 3`.
    """

    number: int
    trial_id: str
    config: dict[str, Any]
    status: Status = "waiting"
    epochs: list[dict[str, Any]] = field(default_factory=list)
    message: str = ""
    repeat_of: int | None = None
    failures: int = 0
    where: str = ""

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """Add an epoch's metrics; an epoch that is run again after a crash replaces its first form."""
        self.epochs = [old for old in self.epochs if old["epoch"] < row["epoch"]]
        self.epochs.append(dict(row))

    def best_epoch(self, metric: Metric) -> dict[str, Any] | None:
        """The first epoch with the best finite value of the metric, or None."""
        finite = [row for row in self.epochs if math.isfinite(row.get(metric.name, math.nan))]
        if not finite:
            return None
        best_value = metric.best(row[metric.name] for row in finite)
        return next(row for row in finite if row[metric.name] == best_value)

    def best_value(self, metric: Metric) -> float | None:
        """The best finite value of the metric over all epochs, or None."""
        epoch = self.best_epoch(metric)
        return None if epoch is None else float(epoch[metric.name])

    @property
    def logged_values(self) -> list[float]:
        """Every value of the search's metric that the trial has logged, in order."""
        return [value for row in self.epochs for value in row["logged"]]

    @property
    def training_seconds(self) -> float:
        """Seconds spent in epochs, validation included."""
        return float(sum(row["epoch_runtime (seconds)"] for row in self.epochs))


def best_trial(trials: Iterable[TrialRecord], metric: Metric) -> TrialRecord | None:
    """The best of the search's own trials; a repeat does not count alone (see `finalists`)."""
    return best_run((trial for trial in trials if trial.repeat_of is None), metric)


def best_run(trials: Iterable[TrialRecord], metric: Metric) -> TrialRecord | None:
    """The trial with the best epoch, finished or stopped early; those that failed or diverged cannot win."""
    winner: TrialRecord | None = None
    winning_value = math.nan
    for trial in trials:
        value = trial.best_value(metric)
        if trial.status not in CAN_WIN or value is None:
            continue
        if winner is None or metric.better(value, than=winning_value):
            winner, winning_value = trial, value
    return winner


def count_by_status(trials: Iterable[TrialRecord]) -> dict[Status, int]:
    """How many trials are in each status; statuses without a trial are left out."""
    counts = Counter(trial.status for trial in trials)
    return {status: counts[status] for status in STATUSES if counts[status]}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a nested config into one level with dotted names."""
    return dict(leaves(config))


def leaf(config: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of parameter `name` wherever its group is in a nested config, or `default`."""
    return next((value for path, value in flatten(config).items() if path.rpartition(".")[2] == name), default)


def show_score(value: float) -> str:
    """A metric's value for people: four decimals, or a power of ten for what has run away."""
    return f"{value:.4f}" if abs(value) < 10_000 else f"{value:.3g}"
