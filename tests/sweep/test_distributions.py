from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from tune_cifar.sweep.distributions import (
    Beta,
    Categorical,
    Constant,
    Distribution,
    IntUniform,
    LogNormal,
    LogUniform,
    Normal,
    Quantized,
    Uniform,
    practical_range,
)

ALL: list[Distribution] = [
    Constant({"a": [1]}),
    Categorical(("a", 1, None, [2])),
    Categorical(("a", "b", "c"), (0.5, 0.0, 0.5)),
    IntUniform(-3, 4),
    Uniform(-1e-3, 7.0),
    LogUniform(1e-5, 0.1),
    Normal(2, 3),
    LogNormal(-7, 2),
    Beta(0.5, 3),
    Quantized(Uniform(1.0, 10.0), 4, "q_uniform"),
    Quantized(LogUniform(1e-4, 1.0), 1e-4, "q_log_uniform_values"),
    Quantized(Normal(0, 1), 0.3, "q_normal"),
    Quantized(LogNormal(0, 1), 0.5, "q_log_normal"),
    Quantized(Beta(2, 2), 0.1, "q_beta"),
]


@pytest.mark.parametrize("distribution", ALL, ids=lambda distribution: distribution.kind)
def test_contains_its_own_values_and_grows_with_the_quantile(distribution: Distribution) -> None:
    values = [distribution.from_quantile(step / 500) for step in range(501)]
    assert all(distribution.contains(value) for value in values)
    if not isinstance(distribution, Constant | Categorical):
        assert values == sorted(values)
        assert all(math.isfinite(value) for value in values)


@pytest.mark.parametrize(
    ("distribution", "quantiles_and_values"),
    [
        (IntUniform(1, 4), {0: 1, 0.24: 1, 0.26: 2, 0.5: 3, 1: 4}),
        (Uniform(-1.0, 3.0), {0: -1.0, 0.25: 0.0, 1: 3.0}),
        (LogUniform(1e-4, 1.0), {0: 1e-4, 0.5: 1e-2, 1: 1.0}),
        (Normal(10, 2), {0.5: 10.0, 0.8413447460685429: 12.0}),
        (LogNormal(1, 2), {0.5: math.e, 0.15865525393145707: math.exp(-1)}),
        (Beta(1, 1), {0: 0.0, 0.3: 0.3, 1: 1.0}),
        (Beta(2, 1), {0.25: 0.5}),
        (Beta(2, 2), {5e-324: 0.0}),
        (Beta(5, 0.1), {1e-300: 0.0}),
        (Categorical(("a", "b", "c")), {0: "a", 0.34: "b", 0.67: "c", 1: "c"}),
        (Categorical(("a", "b", "c"), (0.2, 0.8, 0.0)), {0: "a", 0.19: "a", 0.2: "b", 1: "b"}),
        (Categorical(("a", "b"), (0.0, 1.0)), {0: "b", 1: "b"}),
        (Quantized(Uniform(1.0, 10.0), 4, "q_uniform"), {0: 0, 0.5: 4, 1: 8}),
        (Quantized(Uniform(0.0, 5.0), 1.0, "q_uniform"), {0.1: 0.0, 0.3: 2.0, 0.5: 2.0, 0.7: 4.0}),
    ],
)
def test_inverts_the_distribution_function(distribution: Distribution, quantiles_and_values: dict[float, Any]) -> None:
    for quantile, value in quantiles_and_values.items():
        drawn = distribution.from_quantile(quantile)
        assert drawn == (pytest.approx(value, rel=1e-12, abs=1e-12) if isinstance(value, float) else value)
        assert type(drawn) is type(value)


def test_probabilities_that_end_just_below_one_keep_every_quantile() -> None:
    tenths = Categorical(tuple(range(10)), (0.1,) * 10)
    assert sum((0.1,) * 10) < 1
    assert [tenths.from_quantile(step / 10 + 0.05) for step in range(10)] == list(range(10))
    assert tenths.from_quantile(1.0) == 9


def test_unbounded_distributions_stay_finite_at_both_ends() -> None:
    for distribution in (Normal(0, 1), LogNormal(0, 1), Quantized(Normal(0, 1), 0.1, "q_normal")):
        low, high = distribution.from_quantile(0.0), distribution.from_quantile(1.0)
        assert math.isfinite(low)
        assert math.isfinite(high)
    assert Normal(0, 1).from_quantile(1.0) == pytest.approx(statistics.NormalDist().inv_cdf(1 - 2**-53))


def test_practical_range_cuts_only_distributions_that_fade_out() -> None:
    assert practical_range(Uniform(2.0, 3.0)) == (2.0, 3.0)
    assert practical_range(Quantized(Uniform(1.0, 10.0), 4, "q_uniform")) == (0, 8)
    assert practical_range(Beta(1, 1)) == pytest.approx((0.001, 0.999))
    assert practical_range(Normal(0, 1)) == pytest.approx((-3.0902, 3.0902), abs=1e-4)
    assert practical_range(Quantized(Normal(0, 1), 1, "q_normal")) == (-3, 3)


@pytest.mark.parametrize(
    ("distribution", "others"),
    [
        (Constant(1), [2, True, "1", None]),
        (Categorical((1, "a", [1])), [True, "1", [True], 2, None]),
        (Categorical(("a", "b"), (1.0, 0.0)), ["b"]),
        (IntUniform(1, 4), [0, 5, 2.5, True, "2", math.nan]),
        (Uniform(0.0, 1.0), [-1e-9, 1.1, True, None, math.inf, math.nan]),
        (LogUniform(0.1, 1.0), [0, 0.0999, 1.01, "1"]),
        (Normal(0, 1), [math.inf, math.nan, "0", False]),
        (LogNormal(0, 1), [0.0, -1.0, math.inf]),
        (Beta(1, 1), [-0.1, 1.1, True]),
        (Quantized(Uniform(1.0, 10.0), 4, "q_uniform"), [1, 12, -4, 4.1, "4"]),
        (Quantized(Normal(0, 1), 0.5, "q_normal"), [0.4, math.inf]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_does_not_contain_what_it_never_gives(distribution: Distribution, others: list[Any]) -> None:
    assert [other for other in others if distribution.contains(other)] == []


def test_values_are_copies() -> None:
    for distribution in (Constant([1]), Categorical(([1],))):
        distribution.from_quantile(0.5).append(2)
        assert distribution.from_quantile(0.5) == [1]


def test_describes_itself() -> None:
    words = [Quantized(LogUniform(1e-4, 1.0), 0.1, "q_log_uniform_values").describe(), Normal(0, 2).describe()]
    assert [(w.distribution, w.bounds, w.scale) for w in words] == [
        ("q_log_uniform_values", "0.0001 to 1, in steps of 0.1", "log"),
        ("normal", "mean 0, sigma 2", "linear"),
    ]
    assert Categorical(("a", 2), (0.25, 0.75)).describe().bounds == "a (0.25), 2 (0.75)"
