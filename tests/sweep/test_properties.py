"""Properties of every sweep file: a valid one makes a space of valid samples, a damaged one an error for the user."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune_cifar.errors import UserError
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.searcher import plan_search
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.sweep.trial_rules import ParameterCheck
from tune_cifar.trial.config import check_parameter

scalars = st.none() | st.booleans() | st.integers(-100, 100) | st.floats(-1e6, 1e6) | st.text("ab1.-", max_size=4)
anything = st.recursive(
    scalars | st.floats() | st.integers(-(10**30), 10**30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abvalueminmax", max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)
small_steps = st.sampled_from([0.1, 0.5, 1, 3, 1e-3])


@st.composite
def bounds(draw: st.DrawFn, low: float, high: float, whole: bool = False) -> dict[str, Any]:
    number = st.integers(int(low), int(high)) if whole else st.floats(low, high)
    first, second = sorted((draw(number), draw(number)))
    return {"min": first, "max": second if second > first else first + 1}


def spec_of(kind: str, *parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda dicts: {"distribution": kind} | {k: v for d in dicts for k, v in d.items()})


step = st.fixed_dictionaries({}, optional={"q": small_steps})
normal = st.fixed_dictionaries({}, optional={"mu": st.floats(-20, 20), "sigma": st.floats(0.01, 5)})
beta = st.fixed_dictionaries({}, optional={"a": st.floats(0.1, 20), "b": st.floats(0.1, 20)})
exponents = bounds(-30, -1)
positive = bounds(1e-6, 1e3)

discrete_specs = st.one_of(
    st.fixed_dictionaries({"value": scalars | st.lists(scalars, max_size=2)}),
    st.fixed_dictionaries({"values": st.lists(scalars | st.lists(scalars, max_size=2), min_size=1, max_size=4)}),
    bounds(-20, 20, whole=True),
    spec_of("q_uniform", bounds(-5, 5), st.fixed_dictionaries({"q": st.sampled_from([0.5, 1, 3])})),
)
specs = st.one_of(
    discrete_specs,
    st.fixed_dictionaries(
        {"values": st.lists(scalars, min_size=3, max_size=3), "probabilities": st.just([0.2, 0.8, 0])}
    ),
    spec_of("uniform", bounds(-1e9, 1e9)),
    spec_of("log_uniform", exponents),
    spec_of("inv_log_uniform", exponents),
    spec_of("log_uniform_values", positive),
    spec_of("inv_log_uniform_values", positive),
    spec_of("normal", normal),
    spec_of("log_normal", normal),
    spec_of("beta", beta),
    spec_of("q_uniform", bounds(-100, 100), step),
    spec_of("q_log_uniform", exponents, step),
    spec_of("q_log_uniform_values", positive, step),
    spec_of("q_normal", normal, step),
    spec_of("q_log_normal", normal, step),
    spec_of("q_beta", beta, step),
)


def files_of(method: str, leaves: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Sweep files of one method, with up to two levels of groups; no name is in two of them."""
    deep = st.dictionaries(st.sampled_from(["e", "f"]), leaves, min_size=1).map(lambda names: {"parameters": names})
    group = st.dictionaries(st.sampled_from(["c", "d"]), leaves, min_size=1).map(lambda names: {"parameters": names})
    names = st.fixed_dictionaries({"a": leaves}, optional={"b": leaves, "group": group, "deep": deep})
    head = {"method": st.just(method), "metric": st.just({"name": "val_loss"}), "parameters": names}
    return st.fixed_dictionaries(head, optional={"run_cap": st.integers(1, 5)})


valid_files = st.sampled_from(["bayes", "random", "grid"]).flatmap(
    lambda method: files_of(method, discrete_specs if method == "grid" else specs)
)


def accept_all(name: str, value: Any) -> str | None:
    return None


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "sweep.json"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(file=valid_files, quantiles=st.lists(st.floats(0, 1), min_size=12, max_size=12), seed=st.integers(0, 99))
def test_a_valid_file_makes_a_space_of_valid_samples(
    path: Path, file: dict[str, Any], quantiles: list[float], seed: int
) -> None:
    path.write_text(json.dumps(file))
    config = load_sweep(path, accept_all)
    space = SearchSpace(config)
    plan = plan_search(config, space, num_trials=5, seed=seed, trials_at_once=2)
    points = [*plan.start_points, space.from_quantiles(quantiles[: len(space.distributions)])]
    for point in points:
        assert list(point) == list(space.distributions) or config.method == "grid"
        for key, distribution in space.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(point[key]))
        decoded = space.decode(point)
        assert json.loads(json.dumps(decoded)) == decoded
        for parameter in config.parameters:
            value = decoded
            for name in parameter.path:
                value = value[name]
            # A grid starts q_uniform at min, unrounded.
            assert config.method == "grid" or parameter.distribution.contains(value)
    assert len(space.rows()) == len(config.parameters)


def problem_of(path: Path, check: ParameterCheck) -> str | None:
    """What a user is told of the file; any other error is a bug and fails the test."""
    try:
        config = load_sweep(path, check)
        plan_search(config, SearchSpace(config), num_trials=3, seed=0, trials_at_once=1)
    except UserError as error:
        return str(error)
    return None


def places(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a nested value, the value itself excepted."""
    if isinstance(value, dict):
        return [place for key in value for place in [(*prefix, key), *places(value[key], (*prefix, key))]]
    if isinstance(value, list):
        return [place for i, item in enumerate(value) for place in [(*prefix, i), *places(item, (*prefix, i))]]
    return []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), file=valid_files, replacement=anything)
def test_a_damaged_file_makes_a_config_or_an_error_for_the_user(
    path: Path, data: st.DataObject, file: dict[str, Any], replacement: Any
) -> None:
    file["early_terminate"] = {"type": "hyperband", "min_iter": 3, "eta": 2}
    damaged = copy.deepcopy(file)
    place = data.draw(st.sampled_from(places(damaged)))
    group = damaged
    for part in place[:-1]:
        group = group[part]
    match data.draw(st.sampled_from(["replace", "remove", "add", "rename"])):
        case "remove":
            del group[place[-1]]
        case "add" if isinstance(group, dict):
            group[data.draw(st.sampled_from(["min", "max", "q", "values", "distribution", "parameters", "é", ""]))] = (
                replacement
            )
        case "rename" if isinstance(group, dict):
            group[data.draw(st.text("minax_qluevs", max_size=6))] = group.pop(place[-1])
        case _:
            group[place[-1]] = replacement
    path.write_text(json.dumps(damaged))
    for check in (accept_all, check_parameter):
        problem = problem_of(path, check)
        assert problem is None or str(path) in problem


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_text_makes_a_config_or_an_error_for_the_user(path: Path, data: st.DataObject) -> None:
    text = (
        "method: random\nmetric: {name: val_loss}\nparameters:\n  lr: &lr {min: 1e-4, max: 1e-2}\n"
        "  model:\n    values: [a, 'b', \"c\"]\n  group:\n    parameters: {x: {<<: *lr, distribution: uniform}}\n"
    )
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 6, len(text))))
        text = text[:start] + data.draw(st.text("\t\n :-[]{}&*!%@`'\"|>?,#0x1e.<~\\ué", max_size=4)) + text[end:]
    yaml_path = path.with_suffix(".yaml")
    yaml_path.write_text(text, encoding="utf-8")
    problem = problem_of(yaml_path, accept_all)
    assert problem is None or str(yaml_path) in problem
