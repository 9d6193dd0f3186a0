"""Maps each parameter to what an Optuna sampler searches: numbers on the file's own scale, or positions.

Samplers model numbers best on the scale that the file implies, and cannot hold values such as lists at all.
"""

# ruff: noqa: D102 - `Encoding` describes each method once, for all of them

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tune_cifar.sweep.distributions import (
    PRACTICAL_QUANTILES,
    Categorical,
    Distribution,
    IntUniform,
    LogUniform,
    Quantized,
    Uniform,
    practical_range,
)
from tune_cifar.sweep.values import ROUNDING, agree, clip, is_number

# Optuna's GP sampler lists every value of an integer parameter, so a wider one is searched as a real number.
MOST_INTEGERS = 10_000


class Encoding(Protocol):
    """One parameter as a sampler sees it."""

    @property
    def searched(self) -> BaseDistribution:
        """What the sampler draws an encoded value from."""

    def decode(self, encoded: Any) -> Any:
        """The parameter's value, a plain Python one."""

    def encode(self, value: Any) -> Any:
        """The encoded value that decodes to `value`, but for rounding; None for a value that is not searched."""

    def from_quantile(self, quantile: float) -> Any:
        """The encoded value at `quantile` (0 to 1) of the file's distribution."""


@dataclass(frozen=True)
class QuantileEncoding:
    """The quantile itself, from `low` to `high`: uniform draws of it give exactly the file's distribution."""

    distribution: Distribution
    low: float = 0.0
    high: float = 1.0

    @property
    def searched(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high)

    def decode(self, encoded: float) -> Any:
        return self.distribution.from_quantile(encoded)

    def encode(self, value: Any) -> float | None:
        position_at: Callable[[float], float] = self.distribution.from_quantile
        position = value if is_number(value) else None
        if isinstance(self.distribution, Categorical):
            position_at = self.distribution.index_from_quantile
            position = _index_of(value, self.distribution.values)
        if position is None:
            return None
        # Where the distribution is rounded many quantiles give the value: the middle one has room on both sides.
        slack = abs(position) * ROUNDING
        first = self._first_quantile(lambda quantile: position_at(quantile) >= position - slack)
        last = self._first_quantile(lambda quantile: position_at(quantile) > position + slack)
        middle = (first + last) / 2
        span = position_at(self.high) - position_at(self.low)
        return middle if abs(position_at(middle) - position) <= slack + span * ROUNDING else None

    def _first_quantile(self, reached: Callable[[float], bool]) -> float:
        """The lowest quantile that has `reached` it, to the last digit; `high` where none has."""
        low, high = self.low, self.high
        while low < (middle := (low + high) / 2) < high:
            low, high = (low, middle) if reached(middle) else (middle, high)
        return low if reached(low) else high

    def from_quantile(self, quantile: float) -> float:
        return clip(quantile, self.low, self.high)


@dataclass(frozen=True)
class NumberEncoding:
    """The number itself, on a linear or logarithmic scale; rounded on decoding where the file rounds."""

    distribution: Uniform | LogUniform | IntUniform | Quantized
    low: float
    high: float
    log: bool

    @property
    def searched(self) -> BaseDistribution:
        return FloatDistribution(self.low, self.high, log=self.log)

    def decode(self, encoded: float) -> float:
        value = clip(float(encoded), self.low, self.high)
        if isinstance(self.distribution, Quantized):
            return self.distribution.multiple(value)
        return round(value) if isinstance(self.distribution, IntUniform) else value

    def encode(self, value: Any) -> float | None:
        if not is_number(value):
            return None
        encoded = clip(float(value), self.low, self.high)
        return encoded if agree(self.decode(encoded), value) else None

    def from_quantile(self, quantile: float) -> float:
        base = self.distribution.base if isinstance(self.distribution, Quantized) else self.distribution
        return base.from_quantile(quantile)


@dataclass(frozen=True)
class MultipleEncoding:
    """Whole numbers k from `low` to `high` that stand for k * step: integers, and multiples of q."""

    distribution: IntUniform | Quantized
    low: int
    high: int
    step: float

    @property
    def searched(self) -> BaseDistribution:
        return IntDistribution(self.low, self.high)

    def decode(self, encoded: int) -> float:
        return int(encoded) * self.step

    def encode(self, value: Any) -> int | None:
        if not is_number(value):
            return None
        encoded = round(clip(value / self.step, self.low, self.high))
        return encoded if agree(self.decode(encoded), value) else None

    def from_quantile(self, quantile: float) -> int:
        position = round(self.distribution.from_quantile(quantile) / self.step)
        return min(max(position, self.low), self.high)


@dataclass(frozen=True)
class ChoiceEncoding:
    """The position in a list of values; `ordered` where neighbours in the list are neighbours in effect."""

    distribution: Categorical
    ordered: bool = False

    @property
    def searched(self) -> BaseDistribution:
        last = len(self.distribution.values) - 1
        return IntDistribution(0, last) if self.ordered else CategoricalDistribution(range(last + 1))

    def decode(self, encoded: int) -> Any:
        return copy.deepcopy(self.distribution.values[int(encoded)])

    def encode(self, value: Any) -> int | None:
        return _index_of(value, self.distribution.values)

    def from_quantile(self, quantile: float) -> int:
        return self.distribution.index_from_quantile(quantile)


def encode_for_model(distribution: Distribution) -> Encoding:
    """The encoding for a sampler that models the metric over the parameter, such as a Gaussian process."""
    match distribution:
        case Categorical():
            return _choice(distribution)
        case IntUniform(low, high):
            if high - low < MOST_INTEGERS:
                return MultipleEncoding(distribution, low, high, 1)
            return NumberEncoding(distribution, float(low), float(high), log=False)
        case Uniform(low, high) | LogUniform(low, high):
            return NumberEncoding(distribution, low, high, log=isinstance(distribution, LogUniform))
        case Quantized(LogUniform(low, high)):
            return NumberEncoding(distribution, low, high, log=True)
        case Quantized(Uniform(low, high), step) if (high - low) / step >= MOST_INTEGERS:
            return NumberEncoding(distribution, low, high, log=False)
        case Quantized(_, step):
            lowest, highest = (round(value / step) for value in practical_range(distribution))
            if highest - lowest < MOST_INTEGERS:
                return MultipleEncoding(distribution, lowest, highest, step)
    # A model searches its corners, and the ends of a distribution that fades out are no sensible values.
    return QuantileEncoding(distribution, *PRACTICAL_QUANTILES)


def _index_of(value: Any, values: Sequence[Any]) -> int | None:
    return next((index for index, own in enumerate(values) if agree(own, value)), None)


def _choice(distribution: Categorical) -> ChoiceEncoding:
    """Values of probability 0 are left out; three or more numbers in order, such as batch sizes, keep it."""
    if distribution.probabilities is not None:
        pairs = zip(distribution.values, distribution.probabilities, strict=True)
        possible = [(value, probability) for value, probability in pairs if probability > 0]
        values, probabilities = zip(*possible, strict=True)
        distribution = Categorical(values, probabilities, distribution.kind)
    numbers = [value for value in distribution.values if is_number(value)]
    steps = list(pairwise(numbers))
    in_order = all(one < other for one, other in steps) or all(one > other for one, other in steps)
    return ChoiceEncoding(distribution, in_order and len(numbers) == len(distribution.values) > 2)
