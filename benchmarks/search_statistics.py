"""Turns the records of many searches into figures with bootstrap intervals, and weighs them against the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_simulator import SearchRecord

Values = NDArray[np.float64]
NUM_RESAMPLES = 2000

STATISTICS: dict[str, Callable[..., Any]] = {
    "median": np.median,
    "mean": np.mean,
    "p90": lambda values, axis=None: np.quantile(values, 0.9, axis=axis),
}


@dataclass(frozen=True)
class Cell:
    """A table, a number of trials at once and a method: what all seeds of the comparison have in common."""

    table: str
    workers: int
    method: str


# Records by cell, one a seed, in the order of the seeds.
Results = Mapping[Cell, Sequence[SearchRecord]]


@dataclass(frozen=True)
class Estimate:
    """A statistic over the seeds with its 95% bootstrap interval (percentile method, Efron 1979)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def estimate(values: Values, statistic: str) -> Estimate:
    """The statistic of `values` (one a seed)."""
    resampled = _resampled(values, statistic)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(STATISTICS[statistic](values)), float(low), float(high))


def _resampled(values: Values, statistic: str) -> Values:
    """The statistic of each bootstrap resample; the same seeds are drawn for every method, so that they pair up."""
    drawn = np.random.default_rng(0).integers(len(values), size=(NUM_RESAMPLES, len(values)))
    resampled: Values = STATISTICS[statistic](values[drawn], axis=1)
    return resampled


def after_trials(records: Sequence[SearchRecord], num_trials: int) -> Values:
    """The regret of each search once `num_trials` of its trials have ended."""
    return np.array([record.regrets[num_trials - 1] for record in records])


def after_epochs(records: Sequence[SearchRecord], num_epochs: int | Sequence[int]) -> Values:
    """The regret of each search once all its trials together have trained `num_epochs`; NaN before the first ends.

    `num_epochs` is one number for all searches or one for each.
    """
    regrets = []
    budgets = [num_epochs] * len(records) if isinstance(num_epochs, int) else num_epochs
    for record, budget in zip(records, budgets, strict=True):
        ended = int(np.searchsorted(record.epochs, budget, side="right"))
        regrets.append(record.regrets[ended - 1] if ended else np.nan)
    return np.array(regrets)


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured for it, and in which share of the resamples it is met (None: not resampled)."""

    target: str
    measured: str
    met: bool
    certainty: float | None


def ratio_verdict(target: str, ours: Values, others: Sequence[Values], statistic: str, bound: float) -> Verdict:
    """Whether the statistic of `ours` is at most `bound` times the lowest one of `others`, seeds paired."""
    ours_value = float(STATISTICS[statistic](ours))
    best_value = min(float(STATISTICS[statistic](values)) for values in others)
    best_resampled = np.min([_resampled(values, statistic) for values in others], axis=0)
    certainty = float(np.mean(_resampled(ours, statistic) <= bound * best_resampled))
    # Without regret on the other side no multiple says anything.
    times = f"{ours_value / best_value:.2f}" if best_value else "-"
    measured = f"{times} ({ours_value:.4f} to {best_value:.4f})"
    return Verdict(target, measured, ours_value <= bound * best_value, certainty)


def verdicts(results: Results, table: str, counts: tuple[int, int]) -> list[Verdict]:
    """Every target of search quality on one table that the methods and workers of `results` allow to check.

    `counts` are the two numbers of trials after which to look, 10 and 20.
    """
    few, many = counts
    rows: list[Verdict] = []

    def compare(share: str, bound: float, num_trials: int, other: str, workers: int = 1) -> None:
        ours, theirs = (results.get(Cell(table, workers, method)) for method in ("ours", other))
        if ours and theirs:
            at_once = f", {workers} at once" if workers > 1 else ""
            text = f"median after {num_trials}{at_once}: at most {share}{other}'s"
            values = [after_trials(theirs, num_trials)]
            rows.append(ratio_verdict(text, after_trials(ours, num_trials), values, "median", bound))

    compare("a quarter of ", 1 / 4, few, "wandb")
    compare("", 1.0, few, "sobol")
    compare("a third of ", 1 / 3, many, "wandb")
    for workers in sorted({cell.workers for cell in results} - {1}):
        compare("", 1.0, many, "wandb", workers)
    ours = results.get(Cell(table, 1, "ours"))
    if not ours:
        return rows
    peers = [
        records
        for cell, records in results.items()
        if (cell.table, cell.workers) == (table, 1) and not cell.method.startswith("ours")
    ]
    for num_trials in counts if peers else ():
        for statistic in ("mean", "p90"):
            others = [after_trials(records, num_trials) for records in peers]
            text = f"{statistic} after {num_trials}: not worse than any peer's"
            rows.append(ratio_verdict(text, after_trials(ours, num_trials), others, statistic, 1.0))
    if parallel := results.get(Cell(table, 4, "ours")):
        values = [after_trials(ours, many)]
        text = f"median after {many}, 4 at once: at most 1.5 times that of one at a time"
        rows.append(ratio_verdict(text, after_trials(parallel, many), values, "median", 1.5))
    if stopping := results.get(Cell(table, 1, "ours-curve")):
        values = [after_trials(ours, many)]
        text = f"median after {many} with early stopping: not worse than without"
        rows.append(ratio_verdict(text, after_trials(stopping, many), values, "median", 1.0))
        halves = [record.epochs[many - 1] // 2 for record in ours]
        text = "median with early stopping after half the epochs: not worse than without after all"
        rows.append(ratio_verdict(text, after_epochs(stopping, halves), values, "median", 1.0))
        spent, whole = (np.array([record.epochs[many - 1] for record in records]) for records in (stopping, ours))
        text = "epochs with early stopping: at most half of those without"
        rows.append(ratio_verdict(text, spent.astype(float), [whole.astype(float)], "median", 0.5))
    return rows
