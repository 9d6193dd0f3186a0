# ruff: noqa: E501 - a sweep file a line

"""The sweep room against W&B's own engine: the same verdicts, values, grids and early stops, or a stated reason."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from tune_cifar.errors import UserError
from tune_cifar.sweep.early_stopping import HyperbandRule
from tune_cifar.sweep.kinds import KINDS
from tune_cifar.sweep.schema import EARLY_TERMINATE_KEYS, KEYS, METRIC_KEYS, Hyperband, SweepConfig
from tune_cifar.sweep.space import SearchSpace

HERE = Path(__file__).parent
VERDICTS: list[dict[str, Any]] = yaml.safe_load((HERE / "cases" / "verdicts.yaml").read_text(encoding="utf-8"))
NUM_DRAWS = 10_000

DRAWS: dict[str, dict[str, Any]] = {
    "categorical": {"values": [10, 20, 30]},
    "categorical_w_probabilities": {"values": [1, 2, 3, 4], "probabilities": [0.1, 0.0, 0.6, 0.3]},
    "int_uniform": {"min": -3, "max": 6},
    "uniform": {"min": -1.0, "max": 3},
    "log_uniform": {"distribution": "log_uniform", "min": -9, "max": 2.5},
    "log_uniform_values": {"distribution": "log_uniform_values", "min": 1e-4, "max": 30},
    "inv_log_uniform": {"distribution": "inv_log_uniform", "min": 1, "max": 9},
    "inv_log_uniform_values": {"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 30},
    "normal": {"distribution": "normal", "mu": 3, "sigma": 0.5},
    "log_normal": {"distribution": "log_normal", "mu": -2, "sigma": 0.7},
    "beta": {"distribution": "beta", "a": 0.5, "b": 2},
    "q_uniform": {"distribution": "q_uniform", "min": 1, "max": 10, "q": 4},
    "q_uniform with its default q": {"distribution": "q_uniform", "min": -2.5, "max": 2.5},
    "q_log_uniform": {"distribution": "q_log_uniform", "min": -1, "max": 3, "q": 0.5},
    "q_log_uniform_values": {"distribution": "q_log_uniform_values", "min": 1, "max": 100, "q": 7},
    "q_normal": {"distribution": "q_normal", "q": 0.3},
    "q_log_normal": {"distribution": "q_log_normal", "mu": 1, "q": 2},
    "q_beta": {"distribution": "q_beta", "a": 2, "b": 3, "q": 0.1},
}
GRIDS = [
    "{method: grid, parameters: {b: {values: [x, y, z]}, a: {min: 1, max: 3}, B: {value: 5}}}",
    "{method: grid, parameters: {c: {distribution: q_uniform, min: 1, max: 10, q: 4}, a: {values: [1, 2.5, 1, 1.0]}}}",
    "{method: grid, parameters: {c: {distribution: q_uniform, min: 0.1, max: 0.4, q: 0.1}, a: {values: [true, 1, null]}}}",
    "{method: grid, parameters: {z: {values: [1, 2]}, m: {parameters: {y: {values: [3, 4]}, b: {parameters: {c: {min: 5, max: 6}}}}}, a: {values: [7, 8]}}}",
    "{method: grid, parameters: {a-b: {values: [1, 2]}, a: {parameters: {x: {values: [3, 4]}}}, a.c: {values: [5, 6]}}}",
    "{method: grid, parameters: {a: {value: 1}}}",
]  # fmt: skip


def random_early_stops(num_cases: int) -> list[dict[str, Any]]:
    """Searches of random size and progress, with some values that do not count."""
    chance = random.Random(5)
    cases = []
    for _ in range(num_cases):
        form = chance.choice([
            {"min_iter": chance.randint(1, 4)},
            {"min_iter": chance.randint(1, 4), "max_iter": 20, "s": 2},
            {"max_iter": chance.randint(6, 30), "s": chance.randint(1, 4)},
        ])  # fmt: skip
        form |= {"eta": chance.choice([1.2, 1.5, 2, 2.5, 3, 4])} if chance.random() < 0.8 else {}
        form |= {"strict": chance.random() < 0.5} if chance.random() < 0.8 else {}
        histories = [
            [round(chance.gauss(2, 1), 1) if chance.random() < 0.95 else None for _ in range(chance.randint(0, 30))]
            for _ in range(chance.randint(1, 12))
        ]
        goal = chance.choice(["minimize", "maximize"])
        cases.append({"goal": goal, "early_terminate": form, "histories": histories})
    return cases


STOPPED = random_early_stops(300)


def ask_engine(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run wandb_engine.py in an environment with W&B's engine, from uv's cache or from PyPI."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        pytest.skip("needs uv, to install W&B's engine in an environment of its own")
    python = "3.12" if sys.version_info >= (3, 13) else f"3.{sys.version_info.minor}"  # the engine needs numpy<2
    packages = ["--with", "sweeps==0.3.0", "--with", "numpy<2"]
    command = ["--no-project", "--python", python, *packages, "python", str(HERE / "wandb_engine.py")]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PYTHON", "VIRTUAL"))
    }
    for offline in (["--offline"], []):
        done = subprocess.run(
            [uv, "run", *offline, *command], input=json.dumps(request), env={**environment, "UV_NO_CONFIG": "1"},
            cwd=folder, text=True, capture_output=True, timeout=240, check=False,
        )  # fmt: skip
        if "engine started" in done.stderr:
            assert done.returncode == 0, done.stderr
            answer: dict[str, Any] = json.loads(done.stdout)
            return answer
    pytest.skip(f"W&B's engine cannot be installed: {done.stderr.strip().splitlines()[-1:]}")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The engine's answers to all questions of this file, asked at once because it takes seconds to start."""
    request = {
        "draws": DRAWS,
        "num_draws": NUM_DRAWS,
        "verdicts": [case["file"] for case in VERDICTS],
        "grids": GRIDS,
        "stopped": STOPPED,
    }
    return ask_engine(request, tmp_path_factory.mktemp("engine"))


@pytest.mark.parametrize("name", DRAWS)
def test_draws_the_same_values(engine: dict[str, Any], read_sweep: Callable[..., SweepConfig], name: str) -> None:
    space = SearchSpace(read_sweep(json.dumps({"method": "random", "parameters": {"x": DRAWS[name]}})))
    theirs = engine["draws"][name]
    same_quantiles = [space.decode({"x": quantile})["x"] for quantile in theirs["quantiles"]]
    assert same_quantiles == pytest.approx(theirs["values"], rel=1e-9, abs=1e-12)
    assert {type(value) for value in same_quantiles} == {type(value) for value in theirs["values"]}
    quantiles = np.random.default_rng(99).uniform(size=NUM_DRAWS).tolist()
    ours = [space.decode({"x": quantile})["x"] for quantile in quantiles]
    assert probability_of_same_source(ours, theirs["values"]) > 0.001


def probability_of_same_source(ours: list[float], theirs: list[float]) -> float:
    """The p value of a chi-square test for few different values, of a Kolmogorov-Smirnov test for many."""
    if len(set(ours)) > 100:
        return float(stats.ks_2samp(ours, theirs).pvalue)
    counts = [Counter(round(value, 9) for value in values) for values in (ours, theirs)]
    common = [value for value in counts[0] if counts[0][value] + counts[1][value] >= 20]
    return float(stats.chi2_contingency([[count[value] for value in common] for count in counts]).pvalue)


def test_every_distribution_is_compared() -> None:
    named = {spec.get("distribution", name) for name, spec in DRAWS.items()}
    assert named == set(KINDS) - {"constant"}


@pytest.mark.parametrize("number", range(len(VERDICTS)), ids=lambda number: VERDICTS[number]["file"][:90])
def test_accepts_and_refuses_the_same_files(
    engine: dict[str, Any], read_sweep: Callable[..., SweepConfig], number: int
) -> None:
    case = VERDICTS[number]
    try:
        SearchSpace(read_sweep(case["file"]))
        ours = None
    except UserError as error:
        ours = str(error)
    theirs = engine["verdicts"][number]
    assert [ours is None, theirs is None] == case["accepted"], f"ours: {ours}\ntheirs: {theirs}"
    assert ("why" in case) == (case["accepted"][0] != case["accepted"][1])


def test_lists_grids_in_the_same_order(engine: dict[str, Any], read_sweep: Callable[..., SweepConfig]) -> None:
    for text, theirs in zip(GRIDS, engine["grids"], strict=True):
        space = SearchSpace(read_sweep(text))
        assert [space.decode(point) for point in space.grid_points()] == theirs


def test_stops_the_same_trials_early(engine: dict[str, Any]) -> None:
    for case, theirs in zip(STOPPED, engine["stopped"], strict=True):
        rule = HyperbandRule(hyperband_of(case["early_terminate"]), case["goal"])
        histories = [[float("nan") if value is None else value for value in history] for history in case["histories"]]
        ours = [
            number
            for number, history in enumerate(histories)
            if rule.decide(history, histories[:number] + histories[number + 1 :])
        ]
        assert ours == theirs, case
    num_stops = sum(len(stops) for stops in engine["stopped"])
    num_trials = sum(len(case["histories"]) for case in STOPPED)
    assert 0.2 < num_stops / num_trials < 0.8  # so that both answers were tested


def hyperband_of(section: dict[str, Any]) -> Hyperband:
    both = {"max_iter", "min_iter"} <= section.keys()  # max_iter and s count then, as `load_sweep` warns
    return Hyperband(**{key: value for key, value in section.items() if not (both and key == "min_iter")})


def test_knows_every_key_and_distribution_of_the_schema(engine: dict[str, Any]) -> None:
    schema = engine["schema"]
    assert set(KEYS) == set(schema["properties"])
    assert set(METRIC_KEYS) == set(schema["definitions"]["metric"]["properties"])
    assert set(EARLY_TERMINATE_KEYS) - {"margin"} == set(schema["definitions"]["hyperband_stopping"]["properties"])
    forms = [form for definition in schema["definitions"].values() for form in definition.get("anyOf", [definition])]
    named = [form.get("properties", {}).get("distribution", {}) for form in forms if isinstance(form, dict)]
    assert set(KINDS) == {name for distribution in named for name in distribution.get("enum", [])}
