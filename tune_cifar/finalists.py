"""Chooses among the best configurations by several seeds of each: one run with a lucky seed says little.

Two runs that differ only in their seed can differ by more than two good configurations do (Bouthillier et al., 2021,
https://arxiv.org/abs/2103.03098), and the best of many single runs is mostly a lucky one.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.results import CAN_WIN, ENDED, TrialRecord, best_run, leaf, show_score
from tune_cifar.sweep.distributions import Constant
from tune_cifar.sweep.schema import Metric, SweepConfig
from tune_cifar.trial.config import TrialConfig, check_parameter

SEED = "seed"
DEFAULT_SEEDS = 2


@dataclass(frozen=True)
class Repeats:
    """The `num_best` best configurations are trained again with `num_seeds` other seeds each.

    `seed` is that of the search's own trials; those of the repeats are the next numbers.
    """

    num_best: int
    num_seeds: int
    seed: int

    @property
    def seeds(self) -> range:
        """The seeds of the repeats."""
        return range(self.seed + 1, self.seed + 1 + self.num_seeds)

    def most_repeats(self, num_trials: int) -> int:
        """How many repeats a search of `num_trials` has, if that many different configurations can be repeated."""
        return min(self.num_best, num_trials) * self.num_seeds

    def is_repeat(self, config: Mapping[str, Any]) -> bool:
        """Whether a trial of this config repeats another: the search's own trials all have the same seed."""
        return bool(leaf(config, SEED, self.seed) != self.seed)

    def missing(
        self, trials: Iterable[TrialRecord], metric: Metric, started: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """The configs of all repeats that are not among the `started` ones, a seed of each finalist at a time.

        `trials` must have ended, but for repeats: the best of them are the finalists.
        """
        best = best_configurations(trials, metric, self.num_best)
        configs = [with_seed(trial.config, seed) for seed in self.seeds for trial in best]
        return [config for config in configs if config not in started]


def plan_repeats(
    config: SweepConfig, *, repeat_best: int | None, seeds: int | None, search_seed: int
) -> Repeats | None:
    """The repeats that the flags ask for, or None; raises `UserError` where the sweep has no single seed to change."""
    if repeat_best is None or seeds is None:
        if seeds is not None:
            raise UserError(
                "--seeds says how often --repeat-best trains a configuration again. Give --repeat-best too."
            )
        return None
    seed = search_seed
    for parameter in config.parameters:
        if parameter.name.rpartition(".")[2] != SEED:
            continue
        if not isinstance(parameter.distribution, Constant):
            raise UserError(
                f"--repeat-best trains the best configurations with other seeds, but {config.path} searches "
                f"{'.'.join(parameter.path)} itself. Leave --repeat-best out, or give the parameter one value: "
                f"`{parameter.name}: {{value: 0}}`."
            )
        seed = int(parameter.distribution.value)
    problem = check_parameter(SEED, seed + seeds)
    if problem:
        raise UserError(f"--repeat-best: the seed of a repeat {problem}. Choose a smaller --seed or --seeds.")
    return Repeats(repeat_best, seeds, seed)


@dataclass(frozen=True)
class Finalist:
    """A configuration that was trained with several seeds: its first run, its repeats, and what they reached.

    `values` are the best values of the metric of all runs that finished or were stopped, in the order of `runs`.
    A run that failed tells nothing and is left out; one that diverged is no score, but see `rank`.
    """

    runs: tuple[TrialRecord, ...]
    values: tuple[float, ...]

    @property
    def number(self) -> int:
        """The number of the first run, by which the configuration is called."""
        return self.runs[0].number

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run."""
        return tuple(leaf(run.config, SEED, TrialConfig.seed) for run in self.runs)

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return statistics.fmean(self.values)

    @property
    def standard_deviation(self) -> float:
        """The sample standard deviation of the values; NaN of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def diverged(self) -> int:
        """How many runs diverged."""
        return sum(run.status == "diverged" for run in self.runs)

    def rank(self, metric: Metric) -> tuple[bool, float, int]:
        """Lower is better: the mean decides, but a configuration that diverges with some seed comes last."""
        return self.diverged > 0, self.mean if metric.goal == "minimize" else -self.mean, self.number


def finalists(trials: Sequence[TrialRecord], metric: Metric) -> list[Finalist]:
    """The configurations of `trials` that were repeated, the best first; empty before the first repeat."""
    numbers = {trial.repeat_of for trial in trials}
    found = []
    for first in trials:
        if first.number in numbers:
            runs = (first, *(trial for trial in trials if trial.repeat_of == first.number))
            values = (run.best_value(metric) for run in runs if run.status in CAN_WIN)
            found.append(Finalist(runs, tuple(value for value in values if value is not None)))
    return sorted(found, key=lambda finalist: finalist.rank(metric))


def repeats_have_ended(trials: Sequence[TrialRecord], metric: Metric, repeats: Repeats) -> bool:
    """Whether all repeats of a search whose own trials have ended were run to their end."""
    started = [trial.config for trial in trials]
    return all(trial.status in ENDED for trial in trials) and not repeats.missing(trials, metric, started)


def best_configurations(trials: Iterable[TrialRecord], metric: Metric, count: int) -> list[TrialRecord]:
    """The first runs of the `count` best different configurations, the best first."""
    left = [trial for trial in trials if trial.repeat_of is None]
    best: list[TrialRecord] = []
    while len(best) < count and (winner := best_run(left, metric)) is not None:
        best.append(winner)
        left = [trial for trial in left if trial.config != winner.config]
    return best


def first_run_of(config: Mapping[str, Any], trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The first trial that `config` repeats: with the same config, but for the seed."""
    same = with_seed(config, 0)
    return next((trial for trial in trials if with_seed(trial.config, 0) == same), None)


def with_seed(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A copy of a nested config with another seed."""
    changed: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            changed[name] = with_seed(value, seed)
        else:
            changed[name] = seed if name.rpartition(".")[2] == SEED else copy.deepcopy(value)
    return changed


def describe_finalist(finalist: Finalist, metric: Metric, *, won: bool = False) -> str:
    """One line: the mean, its spread and every value."""
    values = ", ".join(map(show_score, finalist.values))
    spread = f" ± {show_score(finalist.standard_deviation)}" if len(finalist.values) > 1 else ""
    num_seeds = f"{len(finalist.values)} {'seed' if len(finalist.values) == 1 else 'seeds'}"
    diverged = f"; diverged with {finalist.diverged}" if finalist.diverged else ""
    winner = " <- the winner" if won else ""
    score = f"{metric.name} {show_score(finalist.mean)}{spread}"
    return f"trial {finalist.number}: {score} over {num_seeds} ({values}){diverged}{winner}"
