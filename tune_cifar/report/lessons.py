"""Says in words what a search has learned: how far ahead its best is, which parameter mattered, which range is narrow.

A list of scores does not say whether the first is better than the second or only luckier.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from tune_cifar.finalists import Finalist, best_configurations
from tune_cifar.report.importance import importances
from tune_cifar.results import TrialRecord, flatten, show_score
from tune_cifar.sweep.distributions import Distribution, IntUniform, LogUniform, Quantized, Uniform
from tune_cifar.sweep.parameters import Parameter
from tune_cifar.sweep.schema import Metric, SweepConfig

# A forest that explains less than this of the trials it was not fitted to says nothing of the parameters.
LEAST_EXPLAINED = 0.2
# A best value in the outer twentieth of its range may have better ones beyond it.
EDGE_SHARE = 0.05


def lessons(
    config: SweepConfig, trials: Sequence[TrialRecord], finalists: Sequence[Finalist], best: TrialRecord | None
) -> list[str]:
    """What a search has learned, a line each; nothing without a `best` trial."""
    if best is None:
        return []
    own = [trial for trial in trials if trial.repeat_of is None]
    lines = [lead_in_words(own, finalists, config.metric), importance_in_words(config, own)]
    return [line for line in lines if line] + edges_in_words(best, config.parameters)


def importance_in_words(config: SweepConfig, trials: Sequence[TrialRecord]) -> str:
    """Which parameters mattered, where the trials can tell; empty for a search of one parameter or none."""
    found = importances(config, trials)
    if len(found.shares) < 2:
        return ""
    if found.unseen_r2 < LEAST_EXPLAINED:
        return f"{found.num_trials} trials do not tell which parameter mattered most"
    most, *others = [f"{name} ({share:.0%})" for name, share in found.shares.items()]
    return f"{most} mattered most for {config.metric.name} in a random forest's eyes, then {', '.join(others)}"


def lead_in_words(trials: Sequence[TrialRecord], finalists: Sequence[Finalist], metric: Metric) -> str:
    """How far the best configuration is ahead of the next, beside what runs of one configuration differ by."""
    if len(finalists) > 1 and all(finalist.values for finalist in finalists):
        return _lead_over_seeds(finalists, metric)
    best = best_configurations(trials, metric, 2)
    if len(best) < 2:
        return ""
    first, second = (trial.best_value(metric) or 0.0 for trial in best)
    line = f"trial {best[0].number} is {show_score(abs(first - second))} ahead of the next best, trial {best[1].number}"
    noise = _noise(finalists)
    if noise is None:
        return f"{line}; what of it is luck of the seed is not known (--repeat-best 3 tells)"
    return f"{line}; runs that differ in the seed alone differ by about {show_score(noise)}"


def edges_in_words(best: TrialRecord, parameters: Sequence[Parameter]) -> list[str]:
    """A line for each parameter whose best value lies at an end of its range."""
    config = flatten(best.config)
    lines = []
    for parameter in parameters:
        name = ".".join(parameter.path)
        value = config.get(name)
        share = _share_of_range(parameter.distribution, value)
        if share is None or EDGE_SHARE < share < 1 - EDGE_SHARE:
            continue
        end, key = ("lower", "min") if share <= EDGE_SHARE else ("upper", "max")
        low, high = _range(parameter.distribution)
        lines.append(
            f"the best {name}, {value:.4g}, is at the {end} end of its range ({low:g} to {high:g}): "
            f"a better one may lie beyond it; widen {name}.{key}"
        )
    return lines


def _lead_over_seeds(finalists: Sequence[Finalist], metric: Metric) -> str:
    first, second = sorted(finalists, key=lambda finalist: finalist.rank(metric))[:2]
    lead = abs(first.mean - second.mean)
    line = f"trial {first.number}'s mean is {show_score(lead)} ahead of the next best, trial {second.number}'s"
    noise = _noise(finalists)
    if noise is None:
        return line
    # The difference of two means has the sum of their variances (Student's t-test, unpaired).
    error = noise * math.sqrt(1 / len(first.values) + 1 / len(second.values))
    verdict = "more than luck of the seeds" if lead > 2 * error else "no more than luck of the seeds may be"
    return f"{line}; {verdict} (its standard error is {show_score(error)})"


def _noise(finalists: Sequence[Finalist]) -> float | None:
    """The standard deviation between seeds, pooled over the configurations; None where nothing was repeated."""
    repeated = [finalist.values for finalist in finalists if len(finalist.values) > 1]
    degrees = sum(len(values) - 1 for values in repeated)
    if not degrees:
        return None
    return math.sqrt(sum(statistics.variance(values) * (len(values) - 1) for values in repeated) / degrees)


def _share_of_range(distribution: Distribution, value: Any) -> float | None:
    """Where `value` lies in a range with two ends, from 0 to 1 on the scale that the file implies; else None."""
    base = distribution.base if isinstance(distribution, Quantized) else distribution
    if not isinstance(base, Uniform | LogUniform | IntUniform) or not isinstance(value, int | float):
        return None
    low, high = _range(distribution)
    if not low < high:
        return None
    if isinstance(base, LogUniform) and min(low, value) > 0:
        low, value, high = (math.log(number) for number in (low, value, high))
    return float((value - low) / (high - low))


def _range(distribution: Distribution) -> tuple[float, float]:
    return float(distribution.from_quantile(0.0)), float(distribution.from_quantile(1.0))
