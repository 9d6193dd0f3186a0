"""The parameters that a search varied, as numbers: what a plot, a forest and a rank correlation need alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune_cifar.results import TrialRecord, flatten
from tune_cifar.sweep.distributions import Categorical, Constant
from tune_cifar.sweep.schema import SweepConfig

# A range that spans less than this is as readable on a plain scale as on a logarithmic one.
LOG_RATIO = 8.0


@dataclass(frozen=True)
class SearchedParameter:
    """One parameter: its dotted name, and its value in each of the trials that were given.

    `categories` are the different values in the sweep file's order where they are no numbers, else empty. `listed` are
    the numbers that the file allows, in order, where it lists them one by one.
    """

    name: str
    values: tuple[Any, ...]
    categories: tuple[Any, ...]
    log: bool
    listed: tuple[float, ...]

    @property
    def label(self) -> str:
        """The name without its groups, which change nothing in a trial and would leave a plot no room."""
        return self.name.rpartition(".")[2]

    @property
    def varies(self) -> bool:
        """Whether two trials differ in it."""
        return len(set(map(repr, self.values))) > 1

    @property
    def numbers(self) -> list[float]:
        """The value in each trial, or its place among the categories."""
        if self.categories:
            return [float(self.categories.index(value)) for value in self.values]
        return [float(value) for value in self.values]

    def indicators(self) -> dict[str, list[float]]:
        """The columns that a model is given: the numbers, or for each category 1 where a trial has it and else 0.

        The keys are names for people, without groups: of a category, `model = ResNet34`.
        """
        if not self.categories:
            return {self.label: self.numbers}
        return {
            f"{self.label} = {category}": [float(value == category) for value in self.values]
            for category in self.categories
        }


def searched_parameters(config: SweepConfig, trials: Sequence[TrialRecord]) -> list[SearchedParameter]:
    """The parameters that the sweep file does not hold constant, in its order, with their values in `trials`."""
    configs = [flatten(trial.config) for trial in trials]
    found = []
    for parameter in config.parameters:
        if isinstance(parameter.distribution, Constant):
            continue
        name = ".".join(parameter.path)
        values = tuple(config[name] for config in configs)
        distribution = parameter.distribution
        allowed = distribution.values if isinstance(distribution, Categorical) else ()
        are_numbers = all(is_finite_number(value) for value in (*values, *allowed))
        numbers = [*values, *allowed] if are_numbers else []
        is_wide = bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_RATIO
        found.append(
            SearchedParameter(
                name=name,
                values=values,
                categories=() if are_numbers else tuple(dict.fromkeys((*allowed, *values))),
                listed=tuple(sorted(map(float, allowed))) if are_numbers else (),
                log=is_wide and (distribution.describe().scale == "log" or bool(allowed)),
            )
        )
    return found


def is_finite_number(value: Any) -> bool:
    """Whether `value` is a number, which True and NaN are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
