"""The distributions of a sweep file as inverse distribution functions, the one form that every method shares.

The formulas are those of https://docs.wandb.ai/models/sweeps/sweep-config-keys, in the arithmetic of W&B's
engine (https://github.com/wandb/sweeps). All are immutable and give plain Python values.
"""

# ruff: noqa: D102 - `Distribution` describes each method once, for all of them

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass
from typing import Any, Protocol

from scipy import special

from tune_cifar.sweep.values import clip, comparable, is_number

# An unbounded distribution is cut where a double can still tell the quantile from 0 and 1 (about 8 sigma).
SMALLEST_QUANTILE = 2.0**-53
# What a search takes for the range of a distribution that fades out at its ends: 998 of 1000 draws (3.1 sigma).
PRACTICAL_QUANTILES = (0.001, 0.999)


@dataclass(frozen=True)
class Description:
    """A distribution in words, for people."""

    distribution: str
    bounds: str
    scale: str


class Distribution(Protocol):
    """What every distribution offers; `kind` is its name in a sweep file."""

    @property
    def kind(self) -> str: ...

    def from_quantile(self, quantile: float) -> Any:
        """The value below which `quantile` (0 to 1) of all draws lie."""

    def contains(self, value: Any) -> bool:
        """Whether a draw can give `value`."""

    def describe(self) -> Description:
        """The distribution in words."""


@dataclass(frozen=True)
class Constant:
    """The same value in every trial."""

    value: Any
    kind: str = "constant"

    def from_quantile(self, quantile: float) -> Any:
        return copy.deepcopy(self.value)

    def contains(self, value: Any) -> bool:
        return comparable(value) == comparable(self.value)

    def describe(self) -> Description:
        return Description(self.kind, str(self.value), "")


@dataclass(frozen=True)
class Categorical:
    """One of `values` (of any JSON type), all equally probable unless `probabilities` says otherwise."""

    values: tuple[Any, ...]
    probabilities: tuple[float, ...] | None = None
    kind: str = "categorical"

    def from_quantile(self, quantile: float) -> Any:
        return copy.deepcopy(self.values[self.index_from_quantile(quantile)])

    def index_from_quantile(self, quantile: float) -> int:
        """The position in `values` that `quantile` falls on."""
        if self.probabilities is None:
            return min(int(quantile * len(self.values)), len(self.values) - 1)
        possible = [index for index, probability in enumerate(self.probabilities) if probability > 0]
        reached = itertools.accumulate(self.probabilities[index] for index in possible)
        # The sum may end just below 1, so the last possible value takes what is left.
        return next((index for index, total in zip(possible, reached, strict=True) if quantile < total), possible[-1])

    def contains(self, value: Any) -> bool:
        weights = self.probabilities or (1.0,) * len(self.values)
        possible = [own for own, weight in zip(self.values, weights, strict=True) if weight > 0]
        return comparable(value) in map(comparable, possible)

    def describe(self) -> Description:
        values = [str(value) for value in self.values]
        if self.probabilities is not None:
            values = [f"{value} ({p:.3g})" for value, p in zip(values, self.probabilities, strict=True)]
        return Description(self.kind, ", ".join(values), "")


@dataclass(frozen=True)
class IntUniform:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    kind: str = "int_uniform"

    def from_quantile(self, quantile: float) -> int:
        return min(self.low + int(quantile * (self.high - self.low + 1)), self.high)

    def contains(self, value: Any) -> bool:
        return is_number(value) and self.low <= value <= self.high and value == int(value)

    def describe(self) -> Description:
        return Description(self.kind, f"{self.low} to {self.high}", "linear")


@dataclass(frozen=True)
class Uniform:
    """Real numbers from `low` to `high`."""

    low: float
    high: float
    kind: str = "uniform"
    bounded: bool = True

    def from_quantile(self, quantile: float) -> float:
        return clip(self.low + quantile * (self.high - self.low), self.low, self.high)

    def contains(self, value: Any) -> bool:
        return is_number(value) and self.low <= value <= self.high

    def describe(self) -> Description:
        return Description(self.kind, f"{self.low:g} to {self.high:g}", "linear")


@dataclass(frozen=True)
class LogUniform:
    """Real numbers from `low` to `high`, above 0, whose logarithm is uniform; the inv_ forms are the same."""

    low: float
    high: float
    kind: str = "log_uniform_values"
    bounded: bool = True

    def from_quantile(self, quantile: float) -> float:
        log_low, log_high = math.log(self.low), math.log(self.high)
        return clip(math.exp(log_low + quantile * (log_high - log_low)), self.low, self.high)

    def contains(self, value: Any) -> bool:
        return is_number(value) and self.low <= value <= self.high

    def describe(self) -> Description:
        return Description(self.kind, f"{self.low:g} to {self.high:g}", "log")


@dataclass(frozen=True)
class Normal:
    """Real numbers around `mu` with standard deviation `sigma`."""

    mu: float
    sigma: float
    kind: str = "normal"
    bounded: bool = False

    def from_quantile(self, quantile: float) -> float:
        quantile = clip(quantile, SMALLEST_QUANTILE, 1 - SMALLEST_QUANTILE)
        return self.mu + self.sigma * float(special.ndtri(quantile))

    def contains(self, value: Any) -> bool:
        return is_number(value)

    def describe(self) -> Description:
        return Description(self.kind, f"mean {self.mu:g}, sigma {self.sigma:g}", "linear")


@dataclass(frozen=True)
class LogNormal:
    """Real numbers above 0 whose natural logarithm has mean `mu` and standard deviation `sigma`."""

    mu: float
    sigma: float
    kind: str = "log_normal"
    bounded: bool = False

    def from_quantile(self, quantile: float) -> float:
        return math.exp(Normal(self.mu, self.sigma).from_quantile(quantile))

    def contains(self, value: Any) -> bool:
        return is_number(value) and value > 0

    def describe(self) -> Description:
        return Description(self.kind, f"exp(mean {self.mu:g}, sigma {self.sigma:g})", "log")


@dataclass(frozen=True)
class Beta:
    """Real numbers from 0 to 1, of the beta distribution with the shape parameters `a` and `b`."""

    a: float
    b: float
    kind: str = "beta"
    bounded: bool = True

    def from_quantile(self, quantile: float) -> float:
        # Of very small quantiles scipy makes NaN (scipy 1.17: 5e-324 with a = b = 2, 1e-300 with a = 5, b = 0.1).
        return float(special.betaincinv(self.a, self.b, quantile if quantile > SMALLEST_QUANTILE else 0.0))

    def contains(self, value: Any) -> bool:
        return is_number(value) and 0 <= value <= 1

    def describe(self) -> Description:
        return Description(self.kind, f"0 to 1, a {self.a:g}, b {self.b:g}", "linear")


Continuous = Uniform | LogUniform | Normal | LogNormal | Beta


@dataclass(frozen=True)
class Quantized:
    """`base` rounded to a multiple of `q`: round(X/q)*q, halves to even; whole numbers where `q` is an int.

    Rounding can leave the bounds of `base`: 1 to 10 in steps of 4 gives 0, 4 and 8.
    """

    base: Continuous
    q: float
    kind: str

    def from_quantile(self, quantile: float) -> float:
        return self.multiple(self.base.from_quantile(quantile))

    def multiple(self, value: float) -> float:
        """The multiple of `q` that `value` is rounded to."""
        return round(value / self.q) * self.q

    def contains(self, value: Any) -> bool:
        if not is_number(value) or value != self.multiple(value):
            return False
        return not self.base.bounded or bool(self.from_quantile(0.0) <= value <= self.from_quantile(1.0))

    def describe(self) -> Description:
        base = self.base.describe()
        return Description(self.kind, f"{base.bounds}, in steps of {self.q:g}", base.scale)


def practical_range(distribution: Distribution) -> tuple[Any, Any]:
    """The lowest and highest value; of normal, log_normal and beta, those that 1 draw in 1000 goes beyond."""
    base = distribution.base if isinstance(distribution, Quantized) else distribution
    low, high = PRACTICAL_QUANTILES if isinstance(base, Normal | LogNormal | Beta) else (0.0, 1.0)
    return distribution.from_quantile(low), distribution.from_quantile(high)
