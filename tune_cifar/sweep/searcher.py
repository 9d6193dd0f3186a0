"""Plans a search: how many trials, which points come first, and which Optuna sampler proposes the others."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from scipy.stats import qmc

from tune_cifar.errors import UserError
from tune_cifar.sweep.sampler import ModelSampler, SweepSampler, is_much_to_know
from tune_cifar.sweep.schema import Metric, SweepConfig
from tune_cifar.sweep.space import SearchSpace

DEFAULT_NUM_TRIALS = 10
# A grid is planned as a whole; nobody trains more networks than this in one search.
MOST_GRID_TRIALS = 100_000


@dataclass(frozen=True)
class PriorTrial:
    """A trial of an earlier search: an encoded point of this one's space, and the value of its metric."""

    point: dict[str, Any]
    value: float


@dataclass(frozen=True)
class SearchPlan:
    """The course of a search.

    `start_points` are encoded points (see `SearchSpace`) to try first, in order; `sampler` proposes the rest of
    the `num_trials`, and knows `prior_trials` from the start. `reason` says in one line where the numbers come from.
    """

    num_trials: int
    sampler: SweepSampler
    start_points: list[dict[str, Any]]
    reason: str
    prior_trials: tuple[PriorTrial, ...] = ()


def plan_search(
    config: SweepConfig,
    space: SearchSpace,
    *,
    num_trials: int | None,
    seed: int,
    trials_at_once: int,
    prior_trials: tuple[PriorTrial, ...] = (),
) -> SearchPlan:
    """Plan the search of `config`; `num_trials` is the command's own count, if it has one.

    Without it the file's run_cap counts, else the size of the grid, else 10. Each of `prior_trials` saves a start
    point. Raises `UserError` for a grid that is too large to run.
    """
    if config.method == "grid":
        return _plan_grid(config, space, num_trials, seed)
    count, origin = _count(config, num_trials, default=DEFAULT_NUM_TRIALS if space.distributions else 1)
    num_settings = space.num_settings()
    repeats = num_settings is not None and num_settings < count
    remark = f"; the file allows only {_trials(num_settings or 1, 'different')}, so some repeat" if repeats else ""
    if config.method == "random" or not space.distributions:
        return SearchPlan(count, SweepSampler(space, seed), [], f"{_trials(count)}, at random ({origin}){remark}")
    start_points = _start_points(space, count, seed, trials_at_once)
    start_points = start_points[: max(0, len(start_points) - len(prior_trials))]
    _quiet_optuna()
    sampler = ModelSampler(space, seed)
    spread = f"{len(start_points)} spread evenly, then " if start_points else ""
    known = f", which knows {_trials(len(prior_trials), 'prior')}" if prior_trials else ""
    quick = ", by Parzen estimators (TPE) once that would be slow" if is_much_to_know(count, trials_at_once) else ""
    course = f"{spread}by Gaussian process{known}{quick}"
    return SearchPlan(count, sampler, start_points, f"{_trials(count)}: {course} ({origin}){remark}", prior_trials)


def imputed_value(metric: Metric, history: Sequence[float], other_histories: Iterable[Sequence[float]]) -> float | None:
    """The value that a failed trial counts with, by the file's `metric.impute`, as in W&B's engine.

    `history` is what the trial itself logged, `other_histories` what every other ended trial did. `best` and
    `latest` are the trial's own values, `worst` is the worst that any ended trial ever logged. A trial without
    values of its own takes the worst too (W&B takes 0, which would be the best loss of all). None where there is
    no finite value at all.
    """
    worse, better = (min, max) if metric.goal == "maximize" else (max, min)
    own = [value for value in history if math.isfinite(value)]
    if own and metric.impute == "best":
        return better(own)
    if own and metric.impute == "latest":
        return own[-1]
    others = [value for values in other_histories for value in values if math.isfinite(value)]
    return worse(own + others, default=None)


def _quiet_optuna() -> None:
    """Silence a remark of Optuna's that a user can do nothing with: that a space has few points."""
    logging.getLogger("optuna._gp.optim_mixed").setLevel(logging.ERROR)


def _trials(count: int, which: str = "") -> str:
    return " ".join(word for word in (f"{count:,}", which, "trial" if count == 1 else "trials") if word)


def _count(config: SweepConfig, num_trials: int | None, default: int) -> tuple[int, str]:
    """The number of trials and where it comes from."""
    if num_trials is not None:
        if num_trials < 1:
            raise UserError(f"--count must be 1 or more, got {num_trials}.")
        instead = f" instead of the file's run_cap {config.run_cap}" if config.run_cap else ""
        return num_trials, f"--count{instead}"
    if config.run_cap is not None:
        return config.run_cap, "the file's run_cap"
    if default == 1:
        return 1, "the file has no free parameter"
    return default, "the default; the file has no run_cap"


def _plan_grid(config: SweepConfig, space: SearchSpace, num_trials: int | None, seed: int) -> SearchPlan:
    size = space.num_grid_points()
    count, origin = size, "the whole grid"
    if num_trials is not None or config.run_cap is not None:
        wanted, origin = _count(config, num_trials, default=size)
        count = min(wanted, size)
        origin = f"{origin}, of a grid of {size:,}" if wanted <= size else f"the whole grid; {origin} allows {wanted}"
    if count > MOST_GRID_TRIALS:
        raise UserError(
            f"{config.path}: the grid has {count:,} points, too many to train. "
            "Give `run_cap` or --count, list fewer values, or choose `method: random` or `bayes`."
        )
    points = list(islice(space.grid_points(), count))
    return SearchPlan(count, SweepSampler(space, seed), points, f"{_trials(count)}, by grid ({origin})")


def _start_points(space: SearchSpace, num_trials: int, seed: int, trials_at_once: int) -> list[dict[str, Any]]:
    """Different points spread evenly over the space, before the model has anything to learn from.

    One more than twice the number of parameters, but at most half of the trials; and one for each trial that
    starts before the first one ends. That number was the best or near it in simulated searches, where fewer points
    missed one of three optimizers more often (benchmarks/RESULTS.md). From a scrambled Sobol sequence (Owen, 1998,
    https://doi.org/10.1145/274952.274962), whose every first 2^k points are spread evenly along each parameter.
    """
    if not space.distributions:
        return []
    num_free = sum(not distribution.single() for distribution in space.distributions.values())
    few = min(2 * num_free + 1, max(2, num_trials // 2))
    wanted = min(num_trials, max(few, trials_at_once))
    # Points can fall on the same values of discrete parameters, so more are drawn than wanted.
    exponent = (4 * wanted - 1).bit_length()
    quantiles = qmc.Sobol(len(space.distributions), rng=seed).random_base2(exponent).tolist()
    different: dict[str, dict[str, Any]] = {}
    for point in map(space.from_quantiles, quantiles):
        different.setdefault(str(point), point)
    return list(different.values())[:wanted]
