# ruff: noqa: E501 - the tables have a row a line

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tune_cifar.sweep.schema import SweepConfig

HEAD = "method: random\nmetric: {name: val_loss}\nparameters:\n"


def check(name: str, value: Any) -> str | None:
    """A trial with a positive number, a whole number and a word."""
    if name == "lr":
        return None if isinstance(value, float | int) and value > 0 else f"must be above 0, got {value!r}"
    if name == "epochs":
        whole = isinstance(value, float | int) and value == int(value) and value >= 1
        return None if whole else f"must be a whole number from 1 up, got {value!r}"
    if name == "model":
        return None if value in ("a", "b") else f"must be a or b, got {value!r}"
    return f"{name!r} is not a parameter of the trial"


@pytest.mark.parametrize(
    ("parameter", "problems"),
    [
        ("lr: {value: 0}", ["lr.value: must be above 0, got 0"]),
        ("lr: {values: [0.1, 0, -1]}", ["lr.values[1]: must be above 0, got 0", "lr.values[2]: must be above 0, got -1"]),
        ("lr: {values: [0.1, 0.2], probabilities: [0.5, 0.5]}", []),
        ("lr: {min: 0.0, max: 1.0}", ["lr.min: must be above 0, got 0.0 (uniform draws from 0 to 1)."]),
        ("lr: {min: -2.0, max: -1.0}", ["lr.min: must be above 0, got -2.0 (uniform draws from -2 to -1).",
                                        "lr.max: must be above 0, got -1.0 (uniform draws from -2 to -1)."]),
        ("lr: {min: -9, max: -2, distribution: log_uniform}", []),
        ("lr: {distribution: q_uniform, min: 0.001, max: 0.1}",
         ["lr: must be above 0, got 0.0"]),
        ("lr: {distribution: beta}", []),
        ("lr: {distribution: normal, mu: 0.1, sigma: 0.1}",
         ["lr: must be above 0, got -0.0644854 (normal draws from -0.209023 to 0.409023)."]),
        ("lr: {distribution: log_normal, mu: -5}", []),
        ("lr: {min: -9, max: -2.5, distribution: inv_log_uniform}", []),
        ("epochs: {min: 2.5, max: 9, distribution: inv_log_uniform}",
         ["epochs: must be a whole number from 1 up, got 0.00012340980408667956 (inv_log_uniform draws from 0.00012341 to 0.082085)."]),
        ("epochs: {min: 1, max: 9}", []),
        ("epochs: {min: 1.0, max: 9.0}", ["epochs: must be a whole number from 1 up, got 5.94427 (uniform draws from 1 to 9)."]),
        ("epochs: {distribution: q_uniform, min: 1, max: 9, q: 2}",
         ["epochs.min: must be a whole number from 1 up, got 0 (q_uniform draws from 0 to 8)."]),
        ("epochs: {distribution: q_uniform, min: 2, max: 9, q: 2}", []),
        ("model: {values: [a, c]}", ["model.values[1]: must be a or b, got 'c'"]),
        ("optimizer: {values: [1, 2]}", ["optimizer: 'optimizer' is not a parameter of the trial"]),
        ("optimizer: {value: 1}", ["optimizer.value: 'optimizer' is not a parameter of the trial"]),
        ("optimizer: {min: 1, max: 2}", ["optimizer: 'optimizer' is not a parameter of the trial"]),
        ("optimizer: {value: {lr: 0.1, inner: {epochs: 3}}}", []),
        ("optimizer: {values: [{lr: 0.1}, {lr: -1}]}", ["optimizer.values[1]: must be above 0, got -1"]),
        ("optimizer: {parameters: {lr: {value: -1}}}", ["optimizer.parameters.lr.value: must be above 0, got -1"]),
        ("optimizer: {parameters: {lr: {value: 1}}}\n  lr: {value: 2}",
         ["lr: is also given as optimizer.lr on line 4; groups only order a file. Remove one."]),
    ],
)  # fmt: skip
def test_asks_the_trial_about_every_value(
    problems_of: Callable[..., list[str]], parameter: str, problems: list[str]
) -> None:
    found = [
        line.split(": parameters.")[1] for line in problems_of(f"{HEAD}  {parameter}\n", check=check) if ": " in line
    ]
    assert found == problems


def test_warns_of_rare_values_that_the_trial_does_not_take(read_sweep: Callable[..., SweepConfig]) -> None:
    config = read_sweep(f"{HEAD}  lr: {{distribution: normal, mu: 0.3, sigma: 0.1}}\n", check=check)
    assert config.warnings == (
        f"{config.path}:4: parameters.lr: a trial that draws such a value fails: must be above 0, "
        "got -0.00902323. A range avoids it.",
    )
