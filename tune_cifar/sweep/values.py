"""Small questions about values of a sweep file, which Python answers otherwise: to it, true is 1."""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable
from typing import Any

# A number that was written as text and read again can differ in its last digits.
ROUNDING = 1e-9


def is_number(value: Any) -> bool:
    """Whether `value` is a number that a double can hold; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def comparable(value: Any) -> Hashable:
    """A key that is equal for equal JSON values: 1 and 1.0 are the same, 1 and true are not."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, dict):
        return ("mapping", frozenset((key, comparable(inner)) for key, inner in value.items()))
    if isinstance(value, list):
        return ("list", *(comparable(inner) for inner in value))
    scalar: Hashable = value
    return scalar


def agree(value: Any, other: Any) -> bool:
    """Whether the two are the same value, but for the last digits of a number."""
    if is_number(value) and is_number(other):
        return math.isclose(value, other, rel_tol=ROUNDING)
    return comparable(value) == comparable(other)


def clip(value: float, low: float, high: float) -> float:
    """The number from `low` to `high` that is nearest to `value`."""
    return min(max(value, low), high)
