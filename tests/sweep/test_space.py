from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tune_cifar.sweep.distributions import Constant
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.space import SearchSpace

Space = Callable[..., SearchSpace]

WIDE = """
  uniform: {min: 0.0, max: 1.0}
  int: {min: -1, max: 5}
  wide_int: {min: 1, max: 9007199254740992}
  log: {distribution: log_uniform_values, min: 1e-5, max: 0.1}
  inv_log: {distribution: inv_log_uniform, min: 2, max: 9}
  normal: {distribution: normal, mu: 3}
  log_normal: {distribution: log_normal}
  beta: {distribution: beta, a: 0.5}
  q_uniform: {distribution: q_uniform, min: 1, max: 10, q: 4}
  tiny_steps: {distribution: q_uniform, min: 0, max: 1, q: 1e-9}
  q_log: {distribution: q_log_uniform_values, min: 1, max: 1000, q: 5}
  q_normal: {distribution: q_normal, q: 0.3}
  q_beta: {distribution: q_beta, q: 0.25}
  word: {values: [a, b, c]}
  number: {values: [32, 64, 128]}
  any: {values: [[1], {a: 2}, null, true]}
  weighted: {values: [1, 2, 3], probabilities: [0.5, 0, 0.5]}
  one: {values: [7]}
"""


@pytest.fixture
def make_space(read_sweep: Callable[..., SweepConfig]) -> Space:
    def make(method: str, parameters: str) -> SearchSpace:
        return SearchSpace(read_sweep(f"method: {method}\nmetric: {{name: val_loss}}\nparameters:{parameters}\n"))

    return make


def test_bayes_searches_each_parameter_on_its_own_scale(make_space: Space) -> None:
    searched = make_space("bayes", WIDE).distributions
    assert searched == {
        "uniform": FloatDistribution(0.0, 1.0),
        "int": IntDistribution(-1, 5),
        "wide_int": FloatDistribution(1.0, 2.0**53),
        "log": FloatDistribution(1e-5, 0.1, log=True),
        "inv_log": FloatDistribution(math.exp(-9), math.exp(-2), log=True),
        "normal": FloatDistribution(0.001, 0.999),
        "log_normal": FloatDistribution(0.001, 0.999),
        "beta": FloatDistribution(0.001, 0.999),
        "q_uniform": IntDistribution(0, 2),
        "tiny_steps": FloatDistribution(0.0, 1.0),
        "q_log": FloatDistribution(1.0, 1000.0, log=True),
        "q_normal": IntDistribution(-10, 10),
        "q_beta": IntDistribution(0, 4),
        "word": CategoricalDistribution([0, 1, 2]),
        "number": IntDistribution(0, 2),
        "any": CategoricalDistribution([0, 1, 2, 3]),
        "weighted": CategoricalDistribution([0, 1]),
        "one": CategoricalDistribution([0]),
    }


def test_random_searches_the_quantile_of_every_parameter(make_space: Space) -> None:
    space = make_space("random", WIDE)
    assert set(space.distributions.values()) == {FloatDistribution(0.0, 1.0)}
    assert space.from_quantiles([0.25] * 18) == dict.fromkeys(space.distributions, 0.25)


@pytest.mark.parametrize("method", ["bayes", "random"])
def test_every_encoded_point_decodes_to_values_of_the_file(make_space: Space, method: str) -> None:
    space = make_space(method, WIDE)
    random = Random(3)
    lows = space.from_quantiles([0.0] * 18)
    highs = space.from_quantiles([1.0] * 18)
    points = [lows, highs, *(space.from_quantiles([random.random() for _ in range(18)]) for _ in range(200))]
    for point in points:
        for key, distribution in space.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(point[key]))
        decoded = space.decode(point)
        for parameter in space.parameters:
            assert parameter.distribution.contains(decoded[parameter.name])
        assert decoded == json.loads(json.dumps(decoded))


def test_bayes_reaches_both_ends(make_space: Space) -> None:
    space = make_space("bayes", WIDE)
    low, high = (space.decode(space.from_quantiles([quantile] * 18)) for quantile in (0.0, 1.0))
    names = ["uniform", "int", "wide_int", "log", "q_uniform", "q_log", "q_normal", "number", "weighted"]
    assert [low[name] for name in names] == [0.0, -1, 1, 1e-5, 0, 0, -3.0, 32, 1]
    assert [high[name] for name in names] == [1.0, 5, 2**53, 0.1, 8, 1000, 3.0, 128, 3]
    assert low["normal"] == pytest.approx(3 - 3.0902, abs=1e-4)


def test_whole_numbers_stay_ints(make_space: Space) -> None:
    parameters = (
        "\n  a: {min: 1, max: 9}\n  b: {distribution: q_uniform, min: 0, max: 9, q: 3}\n  c: {min: 1, max: 999999}"
    )
    for method in ("bayes", "random"):
        decoded = make_space(method, parameters).decode(make_space(method, parameters).from_quantiles([0.6] * 3))
        assert {name: type(value) for name, value in decoded.items()} == {"a": int, "b": int, "c": int}


def test_decodes_groups_as_the_file_has_them(make_space: Space) -> None:
    space = make_space(
        "bayes", " {a: {parameters: {b: {value: [1]}, c: {min: 0, max: 3}}}, d: {value: x}, e: {values: [1]}}"
    )
    decoded = space.decode({"a/c": 2, "e": 0})
    assert decoded == {"a": {"b": [1], "c": 2}, "d": "x", "e": 1}
    decoded["a"]["b"].append(2)
    assert space.decode({"a/c": 2, "e": 0})["a"]["b"] == [1]


def test_a_grid_counts_names_in_order_with_the_last_fastest(make_space: Space) -> None:
    parameters = (
        " {b: {values: [x, y]}, a: {parameters: {z: {min: 1, max: 2}}}, B: {value: 0},"
        " c: {distribution: q_uniform, min: 1, max: 10, q: 4}}"
    )
    space = make_space("grid", parameters)
    points = [space.decode(point) for point in space.grid_points()]
    assert [(p["a"]["z"], p["b"], p["c"]) for p in points] == [
        (z, word, step) for z in (1, 2) for word in ("x", "y") for step in (1, 5, 9)
    ]
    assert {p["B"] for p in points} == {0}
    assert space.num_grid_points() == space.num_settings() == 12


def test_a_grid_tries_values_given_twice_once(make_space: Space) -> None:
    space = make_space("grid", " {a: {values: [1, 1.0, true, '1', 1]}}")
    assert [space.decode(point)["a"] for point in space.grid_points()] == [1, True, "1"]


def test_a_grid_without_free_parameters_has_one_point(make_space: Space) -> None:
    space = make_space("grid", " {a: {value: 1}}")
    assert [space.decode(point) for point in space.grid_points()] == [{"a": 1}]
    assert space.num_grid_points() == 1
    assert space.distributions == {}


def test_a_grid_of_many_points_is_listed_lazily(make_space: Space) -> None:
    parameters = " {" + ", ".join(f"x{i}: {{min: 1, max: 10000}}" for i in range(9)) + "}"
    space = make_space("grid", parameters)
    assert space.num_grid_points() == 10**36
    assert [point["x8"] for point in islice(space.grid_points(), 3)] == [0, 1, 2]


def test_rows_of_a_grid_show_values_of_the_grid(make_space: Space) -> None:
    (row,) = make_space("grid", " {a: {distribution: q_uniform, min: 1, max: 10, q: 4}}").rows()
    assert set(row.samples) <= {"1", "5", "9"}


def test_only_a_grid_has_grid_points(make_space: Space) -> None:
    with pytest.raises(TypeError, match="only the space of a grid has grid points"):
        make_space("random", " {x: {values: [1]}}").num_grid_points()


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        (" {a: {values: [1, 2]}, b: {min: 1, max: 5}}", 10),
        (" {a: {values: [1, 2, 3], probabilities: [0.5, 0, 0.5]}}", 2),
        (" {a: {distribution: q_uniform, min: 1, max: 10, q: 4}}", 3),
        (" {a: {value: 1}}", 1),
        (" {a: {distribution: q_normal}}", None),
        (" {a: {values: [1, 2]}, b: {min: 1.0, max: 5}}", None),
    ],
)
def test_counts_the_different_trials(make_space: Space, parameters: str, count: int | None) -> None:
    assert make_space("random", parameters).num_settings() == count


def test_rows_describe_the_space_with_the_same_samples_each_time(make_space: Space) -> None:
    space = make_space(
        "bayes", " {a: {parameters: {lr: {distribution: log_uniform_values, min: 1e-4, max: 1}}}, b: {value: 3}}"
    )
    first, second = space.rows()
    assert (first.name, first.distribution, first.bounds, first.scale) == (
        "a.lr", "log_uniform_values", "0.0001 to 1", "log",
    )  # fmt: skip
    assert len(first.samples) == 3
    assert all(1e-4 <= float(sample) <= 1 for sample in first.samples)
    assert (second.name, second.distribution, second.bounds, second.samples) == ("b", "constant", "3", ())
    assert space.rows() == space.rows() != space.rows(seed=1)


def test_a_space_can_be_pickled(make_space: Space) -> None:
    for method in ("bayes", "random"):
        space = make_space(method, WIDE)
        copy: Any = pickle.loads(pickle.dumps(space))  # noqa: S301 - made in the line itself
        assert copy.distributions == space.distributions
        point = space.from_quantiles([0.4] * 18)
        assert copy.decode(point) == space.decode(point)


def test_wide_space_of_these_tests_has_no_constant(make_space: Space) -> None:
    space = make_space("bayes", WIDE)
    assert not any(isinstance(parameter.distribution, Constant) for parameter in space.parameters)
    assert len(space.distributions) == 18
