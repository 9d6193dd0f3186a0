"""The search space of a sweep: what a sampler draws, and the nested parameters of a trial it stands for."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from tune_cifar.sweep.distributions import (
    Categorical,
    Constant,
    Distribution,
    IntUniform,
    Quantized,
)
from tune_cifar.sweep.encoding import ChoiceEncoding, Encoding, QuantileEncoding, encode_for_model
from tune_cifar.sweep.grid import grid_values
from tune_cifar.sweep.parameters import Parameter
from tune_cifar.sweep.schema import Method, SweepConfig
from tune_cifar.sweep.values import is_number


@dataclass(frozen=True)
class Row:
    """One parameter in words, with three sample values, for people."""

    name: str
    distribution: str
    bounds: str
    scale: str
    samples: tuple[str, ...]


class SearchSpace:
    """The parameters of a sweep, encoded for its method.

    `distributions` are what an Optuna sampler draws from, by parameter key ("optimizer/lr"), in the file's order.
    Encoded points are dicts from those keys to what was drawn. Constants are not encoded; `decode` adds them.
    """

    def __init__(self, config: SweepConfig) -> None:
        self.parameters = config.parameters
        self.encodings: dict[str, Encoding] = {
            parameter.key: _encode(parameter, config.method)
            for parameter in config.parameters
            if not isinstance(parameter.distribution, Constant)
        }
        self.distributions: dict[str, BaseDistribution] = {
            key: encoding.searched for key, encoding in self.encodings.items()
        }

    def decode(self, encoded: Mapping[str, Any]) -> dict[str, Any]:
        """The trial's parameters for an encoded point: nested as in the file, constants included."""
        decoded: dict[str, Any] = {}
        for parameter in self.parameters:
            group = decoded
            for name in parameter.path[:-1]:
                group = group.setdefault(name, {})
            if isinstance(parameter.distribution, Constant):
                group[parameter.name] = copy.deepcopy(parameter.distribution.value)
            else:
                group[parameter.name] = self.encodings[parameter.key].decode(encoded[parameter.key])
        return decoded

    def encode(self, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """The encoded point that decodes to a trial's parameters, but for rounding; None where there is none."""
        point = {}
        for parameter in self.parameters:
            if (encoding := self.encodings.get(parameter.key)) is not None:
                value: Any = parameters
                for name in parameter.path:
                    value = value.get(name) if isinstance(value, Mapping) else None
                point[parameter.key] = encoding.encode(value)
        return point if None not in point.values() else None

    def has(self, encoded: Mapping[str, Any]) -> bool:
        """Whether `encoded`, of whatever types, is an encoded point of this space."""
        if encoded.keys() != self.distributions.keys():
            return False
        return all(_has(distribution, encoded[key]) for key, distribution in self.distributions.items())

    def from_quantiles(self, quantiles: Sequence[float]) -> dict[str, Any]:
        """The encoded point at the quantiles (0 to 1) of the parameters, one for each of `distributions`."""
        pairs = zip(self.encodings.items(), quantiles, strict=True)
        return {key: encoding.from_quantile(quantile) for (key, encoding), quantile in pairs}

    def grid_points(self) -> Iterator[dict[str, Any]]:
        """Every encoded point of a grid, in the order of W&B: names sorted, the last one varies fastest."""
        ordered = sorted((p for p in self.parameters if p.key in self.encodings), key=lambda p: p.path)
        positions = [range(_num_choices(self.encodings[parameter.key])) for parameter in ordered]
        for point in itertools.product(*positions):
            yield {parameter.key: index for parameter, index in zip(ordered, point, strict=True)}

    def num_grid_points(self) -> int:
        """How many points `grid_points` yields; 1 where everything is constant."""
        return math.prod(_num_choices(encoding) for encoding in self.encodings.values())

    def num_settings(self) -> int | None:
        """How many different trials the file allows; None where a parameter takes any number in a range."""
        counts = [_num_values(p.distribution) for p in self.parameters if p.key in self.encodings]
        known = [count for count in counts if count is not None]
        return math.prod(known) if len(known) == len(counts) else None

    def rows(self, seed: int = 0) -> list[Row]:
        """The space in words, a row a parameter, with three values drawn from each distribution."""
        random = Random(seed)  # noqa: S311 - samples for people, not for secrets
        rows = []
        for parameter in self.parameters:
            words = parameter.distribution.describe()
            draws = []
            if (encoding := self.encodings.get(parameter.key)) is not None:
                draws = [encoding.decode(encoding.from_quantile(random.random())) for _ in range(3)]
            samples = tuple(f"{value:.4g}" if isinstance(value, float) else str(value) for value in draws)
            rows.append(Row(".".join(parameter.path), words.distribution, words.bounds, words.scale, samples))
        return rows


def _has(distribution: BaseDistribution, encoded: Any) -> bool:
    if not isinstance(distribution, CategoricalDistribution) and not is_number(encoded):
        return False
    try:
        return distribution._contains(distribution.to_internal_repr(encoded))
    except ValueError:  # none of the categories
        return False


def _encode(parameter: Parameter, method: Method) -> Encoding:
    if method == "bayes":
        return encode_for_model(parameter.distribution)
    if method == "random":
        return QuantileEncoding(parameter.distribution)
    return ChoiceEncoding(Categorical(grid_values(parameter.distribution)))


def _num_choices(encoding: Encoding) -> int:
    if not isinstance(encoding, ChoiceEncoding):
        raise TypeError("only the space of a grid has grid points")
    return len(encoding.distribution.values)


def _num_values(distribution: Distribution) -> int | None:
    match distribution:
        case Categorical(values, probabilities):
            return len(values) if probabilities is None else sum(p > 0 for p in probabilities)
        case IntUniform(low, high):
            return high - low + 1
        case Quantized() if distribution.base.bounded:
            lowest, highest = distribution.from_quantile(0.0), distribution.from_quantile(1.0)
            return round((highest - lowest) / distribution.q) + 1
    return None
