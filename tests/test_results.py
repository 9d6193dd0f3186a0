from __future__ import annotations

import math
from typing import Any

import pytest

from tune_cifar.results import Status, TrialRecord, best_trial, count_by_status, flatten, leaf
from tune_cifar.sweep.schema import Metric

LOSS = Metric("val_loss", "minimize")
ACCURACY = Metric("val_accuracy", "maximize")


def _row(epoch: int, val_loss: float, val_accuracy: float = 0.5) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "epoch_runtime (seconds)": 2.0,
        "logged": [val_loss],
    }


def _trial(number: int, losses: list[float], status: Status = "finished") -> TrialRecord:
    rows = [_row(epoch, loss, 1 - loss) for epoch, loss in enumerate(losses, start=1)]
    return TrialRecord(number, f"t{number}", {"lr": 0.1}, status, rows)


def test_the_best_epoch_is_the_first_with_the_best_finite_value() -> None:
    trial = _trial(1, [0.5, math.nan, 0.2, 0.2, 0.4])
    best = trial.best_epoch(LOSS)
    assert best is not None
    assert best["epoch"] == 3
    assert trial.best_value(ACCURACY) == 0.8
    assert _trial(1, [math.nan]).best_epoch(LOSS) is None


def test_an_epoch_run_again_replaces_its_first_form_and_what_came_after() -> None:
    trial = _trial(1, [0.5, 0.4, 0.3])
    trial.add_epoch(_row(2, 0.45))
    assert [(row["epoch"], row["val_loss"]) for row in trial.epochs] == [(1, 0.5), (2, 0.45)]
    assert trial.training_seconds == 4.0
    assert trial.logged_values == [0.5, 0.45]


def test_a_target_is_reached_at_equality() -> None:
    assert [Metric("a", "minimize", 0.5).reached(value) for value in (0.6, 0.5, 0.4)] == [False, True, True]
    assert [Metric("a", "maximize", 0.5).reached(value) for value in (0.6, 0.5, 0.4)] == [True, True, False]
    assert not LOSS.reached(0.0)


@pytest.mark.parametrize(("metric", "winner"), [(LOSS, 2), (ACCURACY, 2)])
def test_the_best_trial_has_finished(metric: Metric, winner: int) -> None:
    trials = [
        _trial(1, [0.3]),
        _trial(2, [0.2, 0.9]),
        _trial(3, [0.1], "failed"),
        _trial(4, [0.1], "diverged"),
        _trial(5, [0.1], "running"),
        _trial(6, [0.2]),
        _trial(7, [0.25], "stopped"),
    ]
    best = best_trial(trials, metric)
    assert best is not None
    assert best.number == winner
    assert best_trial(trials[2:5], metric) is None
    stopped = best_trial(trials[2:5] + trials[6:], metric)
    assert stopped is not None
    assert stopped.number == 7


def test_counts_leave_out_what_there_is_not() -> None:
    assert count_by_status([_trial(1, [], "waiting"), _trial(2, []), _trial(3, [])]) == {"finished": 2, "waiting": 1}


def test_nested_configs() -> None:
    config = {"a": {"b": {"lr": 1}, "c": 2}, "seed": 3}
    assert flatten(config) == {"a.b.lr": 1, "a.c": 2, "seed": 3}
    assert leaf(config, "lr", None) == 1
    assert leaf(config, "epochs", 10) == 10
