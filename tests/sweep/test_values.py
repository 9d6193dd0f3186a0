from __future__ import annotations

import math
from typing import Any

import pytest

from tune_cifar.sweep.values import comparable, is_number


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (True, True, True),
        ({"a": [1, {"b": None}], "c": 2}, {"c": 2, "a": [1.0, {"b": None}]}, True),
        (1, True, False),
        (0, False, False),
        ("1", 1, False),
        ([0], [False], False),
        ({"a": 1}, {"a": True}, False),
        ([1], [1, 1], False),
        ({"a": 1}, {"b": 1}, False),
        ([], {}, False),
        (["list", 1], [["list", 1]], False),
    ],
)
def test_comparable_tells_truth_values_from_numbers(one: Any, other: Any, same: bool) -> None:
    assert (comparable(one) == comparable(other)) is same


def test_is_number_takes_what_a_double_holds() -> None:
    assert [is_number(value) for value in (1, -2.5, 0, 1e308)] == [True] * 4
    others = (True, "1", None, [1], math.nan, math.inf, -math.inf, 10**400)
    assert [is_number(value) for value in others] == [False] * len(others)
