from __future__ import annotations

from typing import Any

import pytest

from tune_cifar.sweep.distributions import Categorical, Constant, Distribution, IntUniform, Quantized, Uniform
from tune_cifar.sweep.grid import grid_values


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (Categorical((3, 1, 2)), [3, 1, 2]),
        (Categorical((1, True, 1.0, "1", True, [1], [1.0])), [1, True, "1", [1]]),
        (IntUniform(-1, 2), [-1, 0, 1, 2]),
        (Quantized(Uniform(1.0, 10.0), 4, "q_uniform"), [1, 5, 9]),
        (Quantized(Uniform(1.0, 9.0), 4, "q_uniform"), [1, 5]),
        (Quantized(Uniform(0.5, 3.0), 1, "q_uniform"), [0.5, 1.5, 2.5]),
        (Quantized(Uniform(0.0, 1.0), 0.5, "q_uniform"), [0.0, 0.5]),
        (IntUniform(1, 10_000), list(range(1, 10_001))),
    ],
)
def test_lists_the_values(distribution: Distribution, values: list[Any]) -> None:
    listed = list(grid_values(distribution))
    assert listed == values
    assert [type(value) for value in listed] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("distribution", "problem"),
    [
        (IntUniform(1, 10_001), "10,001 values are too many for a grid. Choose fewer, or `method: random`."),
        (Quantized(Uniform(0.0, 1.0), 1e-5, "q_uniform"), "100,000 values are too many for a grid."),
        (Uniform(0.0, 1.0), "a grid cannot list the values of uniform."),
        (Categorical((1, 2), (0.5, 0.5), "categorical_w_probabilities"), "a grid cannot list"),
        (Constant(1), "a grid cannot list the values of constant."),
    ],
)
def test_refuses_what_has_no_list(distribution: Distribution, problem: str) -> None:
    with pytest.raises(ValueError, match="grid") as raised:
        grid_values(distribution)
    assert str(raised.value).startswith(problem)
