"""Lists the values that one parameter takes in a grid, as W&B's engine does, for the checks and for the space."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import numpy as np

from tune_cifar.sweep.distributions import Categorical, Distribution, IntUniform, Quantized, Uniform
from tune_cifar.sweep.values import comparable

# More values than these are a file that was meant for another method.
MOST_GRID_VALUES = 10_000
GRID_KINDS = ("constant", "categorical", "int_uniform", "q_uniform")


def grid_values(distribution: Distribution) -> tuple[Any, ...]:
    """The values of one parameter in a grid, as W&B's engine lists them; raises `ValueError` for too many.

    Of values given twice, the first stays. q_uniform starts at min, unrounded, and leaves max out.
    """
    match distribution:
        case Categorical(values, None):
            different: dict[Hashable, Any] = {}
            for value in values:
                different.setdefault(comparable(value), value)
            return tuple(different.values())
        case IntUniform(low, high):
            num_values = high - low + 1
        case Quantized(Uniform(low, high), step):
            num_values = math.ceil((high - low) / step)
        case _:
            raise ValueError(f"a grid cannot list the values of {distribution.kind}.")
    if num_values > MOST_GRID_VALUES:
        raise ValueError(f"{num_values:,} values are too many for a grid. Choose fewer, or `method: random`.")
    if isinstance(distribution, IntUniform):
        return tuple(range(distribution.low, distribution.high + 1))
    if isinstance(step, int) and low == int(low):
        return tuple(range(int(low), math.ceil(high), step))
    listed: list[float] = np.arange(low, high, step).tolist()
    return tuple(listed)
