from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune_cifar.report.importance import MIN_TRIALS_CORRELATION, MIN_TRIALS_FOREST, importances, scored_trials
from tune_cifar.results import Status, TrialRecord
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

SWEEP = """
method: random
metric: {name: val_loss, goal: minimize}
parameters:
  optimizer: {parameters: {lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}}}
  momentum: {min: 0.5, max: 0.99}
  lr_schedule: {values: [constant, cosine, onecycle]}
  epochs: {value: 1}
"""


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return load_sweep(path, check_parameter, EPOCH_METRICS)


def _trial(number: int, loss: float, lr: float, status: Status = "finished", **config: Any) -> TrialRecord:
    values = {"optimizer": {"lr": lr}, "momentum": 0.9, "lr_schedule": "constant", "epochs": 1, **config}
    return TrialRecord(number, f"t{number}", values, status, [{"epoch": 1, "val_loss": loss, "logged": [loss]}])


def _trials(count: int, *, by: str) -> list[TrialRecord]:
    random = np.random.RandomState(0)
    trials = []
    for number in range(1, count + 1):
        lr, momentum = float(10 ** random.uniform(-4, -1)), float(random.uniform(0.5, 0.99))
        schedule = str(random.choice(["constant", "cosine", "onecycle"]))
        loss = {"lr": -math.log10(lr), "lr_schedule": float(schedule == "cosine"), "nothing": random.random()}[by]
        noisy = loss + 0.01 * float(random.random())
        trials.append(_trial(number, noisy, lr, momentum=momentum, lr_schedule=schedule))
    return trials


def test_the_parameter_that_decides_has_nearly_all_the_importance(config: SweepConfig) -> None:
    found = importances(config, _trials(40, by="lr"))
    assert next(iter(found.shares)) == "optimizer.lr"
    assert found.shares["optimizer.lr"] > 0.9
    assert found.unseen_r2 > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.num_trials == 40


def test_the_columns_of_a_category_are_one_parameter(config: SweepConfig) -> None:
    found = importances(config, _trials(40, by="lr_schedule"))
    assert set(found.shares) == {"optimizer.lr", "momentum", "lr_schedule"}
    assert next(iter(found.shares)) == "lr_schedule"
    first = found.correlations[0]
    assert first.name == "lr_schedule = cosine"
    assert first.rho > 0.7
    assert first.p_value < 1e-6


def test_a_forest_that_learned_noise_is_known_by_trials_it_has_not_seen(config: SweepConfig) -> None:
    assert importances(config, _trials(40, by="nothing")).unseen_r2 < 0.1


def test_a_loss_that_ran_away_changes_nothing_but_its_rank(config: SweepConfig) -> None:
    trials = _trials(20, by="lr")
    worst = max(trials, key=lambda trial: trial.epochs[0]["val_loss"])
    before = importances(config, trials)
    worst.epochs[0]["val_loss"] = 1e12
    assert importances(config, trials) == before


def test_the_correlation_is_that_of_ranks(config: SweepConfig) -> None:
    trials = [_trial(number, float(number) ** 9, lr=0.1 / number) for number in range(1, 8)]
    (lr,) = importances(config, trials).correlations
    assert (lr.name, lr.rho) == ("lr", pytest.approx(-1))


@pytest.mark.parametrize(("count", "bars", "correlations"), [(MIN_TRIALS_FOREST, True, True), (7, False, True)])
def test_few_trials_get_no_importance(config: SweepConfig, count: int, bars: bool, correlations: bool) -> None:
    found = importances(config, _trials(count, by="lr"))
    assert (bool(found.shares), bool(found.correlations), found.num_trials) == (bars, correlations, count)


def test_fewer_still_get_no_correlation(config: SweepConfig) -> None:
    assert not importances(config, _trials(MIN_TRIALS_CORRELATION - 1, by="lr")).correlations


def test_equal_results_and_equal_parameters_say_nothing(config: SweepConfig) -> None:
    equal_results = [_trial(number, 0.5, lr=0.01 * number) for number in range(1, 11)]
    equal_parameters = [_trial(number, 0.1 * number, lr=0.01) for number in range(1, 11)]
    for trials in (equal_results, equal_parameters, []):
        found = importances(config, trials)
        assert (found.shares, found.correlations) == ({}, ())


def test_only_trials_that_could_win_count(config: SweepConfig) -> None:
    trials = [_trial(1, 0.5, 0.1), _trial(2, 0.4, 0.1, "stopped"), _trial(3, 0.3, 0.1, "failed")]
    trials += [_trial(4, 0.2, 0.1, "diverged"), _trial(5, math.nan, 0.1), _trial(6, 0.1, 0.1, "running")]
    assert [trial.number for trial in scored_trials(trials, config.metric)] == [1, 2]
