"""What the searcher is told of the trials of a process whose state is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tune_cifar.results import Status, TrialRecord
from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.searcher import plan_search
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

SWEEP = """
method: {method}
metric: {{name: val_loss}}
parameters:
  lr: {lr}
  optimizer: {{parameters: {{momentum: {{values: [0.0, 0.5, 0.9]}}}}}}
  epochs: {{value: 3}}
"""
RANGES = {"grid": "{values: [0.1, 0.01]}", "random": "{min: 0.001, max: 0.1}", "bayes": "{min: 0.001, max: 0.1}"}

MakeSearch = Callable[[str], SweepSearch]


@pytest.fixture
def make_search(tmp_path: Path) -> MakeSearch:
    def make(method: str) -> SweepSearch:
        path = tmp_path / "sweep.yaml"
        path.write_text(SWEEP.format(method=method, lr=RANGES[method]))
        config = load_sweep(path, check_parameter, EPOCH_METRICS)
        space = SearchSpace(config)
        return SweepSearch(space, plan_search(config, space, num_trials=6, seed=1, trials_at_once=2), config.metric)

    return make


def _record(number: int, config: Any, status: Status, *values: float) -> TrialRecord:
    rows = [{"epoch": epoch, "val_loss": value, "logged": [value]} for epoch, value in enumerate(values, start=1)]
    # Tune adds the constants of the flags to what the searcher suggests.
    return TrialRecord(number, f"t{number}", {**config, "seed": 0}, status, rows)


@pytest.mark.parametrize("method", ["grid", "random"])
@pytest.mark.parametrize("num_known", [0, 1, 4, 6])
def test_a_searcher_that_lost_its_state_goes_on_with_the_same_configurations(
    make_search: MakeSearch, method: str, num_known: int
) -> None:
    undisturbed, recalling = make_search(method), make_search(method)
    configs = [undisturbed.suggest(f"t{number}") for number in range(1, 7)]
    known = [_record(number, configs[number - 1], "finished", 1.0) for number in range(1, num_known + 1)]
    assert recalling.recall(known) == []
    assert [recalling.suggest(f"t{number}") for number in range(num_known + 1, 7)] == configs[num_known:]


def test_the_model_knows_values_failures_and_what_is_running(make_search: MakeSearch) -> None:
    first, second = make_search("bayes"), make_search("bayes")
    configs = [first.suggest(f"t{number}") for number in range(1, 4)]
    planned = [dict(trial.params) for trial in first._ot_study.trials[:3]]
    trials = [
        _record(1, configs[0], "finished", 0.5, 0.25, 0.75),
        _record(2, configs[1], "diverged", 0.5),
        _record(3, configs[2], "waiting", 0.4),
    ]
    second.recall(trials)
    told = second._ot_study.trials
    assert [(trial.state, trial.value) for trial in told if trial.state not in (TrialState.WAITING,)] == [
        (TrialState.COMPLETE, 0.25),
        (TrialState.FAIL, None),
        (TrialState.RUNNING, None),
        (TrialState.COMPLETE, 0.75),  # the diverged one again, with the worst value there is
    ]
    assert [trial.params for trial in told[:3]] == planned
    second.on_trial_result("t3", {"epoch": 2, "val_loss": 0.1})
    second.on_trial_complete("t3", {"epoch": 3, "val_loss": 0.3, "status": "finished"})
    assert second._ot_study.trials[2].value == 0.1
    assert second.suggest("t4") not in configs


def test_a_start_point_out_of_order_is_not_handed_out_again(make_search: MakeSearch) -> None:
    first, second = make_search("grid"), make_search("grid")
    configs = [first.suggest(f"t{number}") for number in range(1, 7)]
    second.recall([_record(1, configs[2], "finished", 1.0)])
    assert [second.suggest(f"s{number}") for number in range(5)] == configs[:2] + configs[3:]


def test_a_trial_of_another_sweep_is_told_and_left_out(make_search: MakeSearch) -> None:
    search = make_search("grid")
    (line,) = search.recall([_record(1, {"lr": 7.0, "optimizer": {"momentum": 0.5}, "epochs": 3}, "finished", 1.0)])
    assert line.startswith("trial 1 is no trial of the sweep file")
    assert search.suggest("t2") is not None
