"""Answers questions with W&B's own sweep engine (`sweeps` on PyPI); runs in an environment of its own, with numpy<2.

Reads one JSON request from standard input and writes one JSON answer to standard output; test_against_wandb.py
makes the request and compares the answers with ours.
"""

from __future__ import annotations

import json
import random
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import yaml  # noqa: E402
from sweeps import RunState, SweepRun, next_runs, stop_runs  # noqa: E402
from sweeps.config import SweepConfig  # noqa: E402
from sweeps.config.schema import sweep_config_jsonschema  # noqa: E402
from sweeps.params import HyperParameter  # noqa: E402


def draws(specs: dict[str, Any], num_draws: int) -> dict[str, Any]:
    """For each specification: uniform numbers and the engine's values for them."""
    answers = {}
    for name, spec in specs.items():
        parameter = HyperParameter("x", spec)
        quantiles = np.random.default_rng(len(answers)).uniform(size=num_draws)
        if parameter.type == HyperParameter.CATEGORICAL_PROB:  # its form for arrays differs from sample()
            values = [parameter.ppf(quantile) for quantile in quantiles]
        else:
            values = parameter.ppf(quantiles)
        answers[name] = {"quantiles": quantiles.tolist(), "values": np.asarray(values).tolist()}
    return answers


def verdict(text: str) -> str | None:
    """What the engine says against a sweep file: when it reads it, and when it starts the first run."""
    try:
        config = yaml.safe_load(text)
        SweepConfig(config)  # checks, and gives a copy that lacks the groups, so the runs come from the file itself
        next_runs(config, [])
        if "early_terminate" in config:
            stop_runs(config, [])
    except Exception as error:  # the engine refuses with exceptions of every kind
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def plain(config: dict[str, Any]) -> dict[str, Any]:
    return {name: entry["value"] for name, entry in config.items()}


def grid(text: str) -> list[dict[str, Any]]:
    """Every run of a grid, in the engine's order."""
    runs = next_runs(yaml.safe_load(text), [], n=10_000)
    return [plain(run.config) for run in runs if run is not None]


def stopped(case: dict[str, Any]) -> list[int]:
    """The numbers of the running runs that the engine stops; every run of a case is running."""
    runs = []
    for number, history in enumerate(case["histories"]):
        run = SweepRun(name=str(number), state=RunState.running)
        run.history = [{"loss": value} for value in history]
        runs.append(run)
    config = {
        "method": "random",
        "metric": {"name": "loss", "goal": case["goal"]},
        "early_terminate": {"type": "hyperband", **case["early_terminate"]},
        "parameters": {"x": {"value": 1}},
    }
    return [int(run.name) for run in stop_runs(config, runs)]


def main() -> None:
    print("engine started", file=sys.stderr, flush=True)
    random.seed(0)
    request = json.load(sys.stdin)
    answer = {
        "schema": sweep_config_jsonschema,
        "draws": draws(request["draws"], request["num_draws"]),
        "verdicts": [verdict(text) for text in request["verdicts"]],
        "grids": [grid(text) for text in request["grids"]],
        "stopped": [stopped(case) for case in request["stopped"]],
    }
    json.dump(answer, sys.stdout)


main()
