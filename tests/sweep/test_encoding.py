"""Encodings and their inverse; what they search is the subject of test_space.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sweep.conftest import accept_all
from tests.sweep.test_properties import discrete_specs, specs
from tests.sweep.test_space import WIDE
from tune_cifar.sweep.encoding import Encoding
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.sweep.values import agree


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "sweep.json"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), method=st.sampled_from(["bayes", "bayes", "random", "grid"]), quantile=st.floats(0, 1))
def test_encoding_undoes_decoding(path: Path, data: st.DataObject, method: str, quantile: float) -> None:
    spec = data.draw(discrete_specs if method == "grid" else specs)
    path.write_text(json.dumps({"method": method, "metric": {"name": "val_loss"}, "parameters": {"a": spec}}))
    for encoding in SearchSpace(load_sweep(path, accept_all)).encodings.values():  # none for a constant
        value = encoding.decode(encoding.from_quantile(quantile))
        encoded = encoding.encode(value)
        assert encoding.searched._contains(encoding.searched.to_internal_repr(encoded))
        again = encoding.decode(encoded)
        assert agree(again, value) or again == pytest.approx(value, rel=1e-9, abs=1e-9 * _span(encoding))
        assert type(again) is type(value)


def _span(encoding: Encoding) -> float:
    low, high = (encoding.decode(encoding.from_quantile(quantile)) for quantile in (0.0, 1.0))
    return float(high - low)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uniform", 1.001),
        ("uniform", -0.001),
        ("uniform", "0.5"),
        ("uniform", True),
        ("uniform", float("nan")),
        ("int", 6),
        ("int", 2.5),
        ("int", None),
        ("wide_int", 0),
        ("wide_int", 7.5),
        ("log", 0.11),
        ("log", 0),
        ("log", -1e-3),
        ("inv_log", 1.0),
        ("normal", 1e300),
        ("normal", "x"),
        ("log_normal", -1.0),
        ("beta", 1.5),
        ("q_uniform", 3),
        ("q_uniform", 12),
        ("tiny_steps", 1.1),
        ("q_log", 7),
        ("q_log", 1005),
        ("q_normal", 0.4),
        ("q_beta", 0.3),
        ("q_beta", [0.25]),
        ("word", "d"),
        ("number", 48),
        ("number", "32"),
        ("any", 1),
        ("any", [2]),
        ("weighted", 2),
        ("one", 8),
    ],
)
def test_a_value_outside_has_no_encoding(read_sweep: Callable[..., SweepConfig], name: str, value: Any) -> None:
    space = SearchSpace(read_sweep(f"method: bayes\nmetric: {{name: val_loss}}\nparameters:{WIDE}\n"))
    assert space.encodings[name].encode(value) is None


@pytest.mark.parametrize(
    ("name", "value", "decoded"),
    [
        ("uniform", 1, 1.0),
        ("uniform", 1.0000000001, 1.0),
        ("int", 3.0, 3),
        ("log", 0.1000000000001, 0.1),
        ("q_uniform", 8.0, 8),
        ("q_normal", 0.9, 0.3 * 3),
        ("q_log", 1000.0, 1000),
        ("number", 64.0, 64),
        ("any", [1], [1]),
        ("any", {"a": 2.0}, {"a": 2}),
        ("any", True, True),
        ("any", None, None),
        ("weighted", 3, 3),
    ],
)
def test_a_value_of_another_type_or_rounding_is_understood(
    read_sweep: Callable[..., SweepConfig], name: str, value: Any, decoded: Any
) -> None:
    encoding = SearchSpace(read_sweep(f"method: bayes\nmetric: {{name: val_loss}}\nparameters:{WIDE}\n")).encodings[
        name
    ]
    result = encoding.decode(encoding.encode(value))
    assert (result, type(result)) == (decoded, type(decoded))
