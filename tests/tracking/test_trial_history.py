import math
from typing import Literal

import pytest

from tests.tracking.wandb_helpers import epoch_result
from tune_cifar.tracking.trial_history import TrialHistory


def test_epoch_metrics_join_the_row_of_the_last_step() -> None:
    rows = TrialHistory().add_result(epoch_result(1))
    assert rows == [
        (1, {"train_loss": 1.0, "epoch": 0.5}),
        (
            2,
            {
                "train_loss": 0.5,
                "epoch": 1.0,
                "val_loss": 1.5,
                "val_accuracy": 0.1,
                "epoch_runtime (seconds)": 2.0,
            },
        ),
    ]


def test_an_epoch_reported_again_adds_nothing() -> None:
    history = TrialHistory()
    first, second = history.add_result(epoch_result(1)), history.add_result(epoch_result(2))
    assert history.add_result(epoch_result(1)) == history.add_result(epoch_result(2)) == []
    assert history.rows == first + second
    assert [step for step, _ in history.add_result(epoch_result(3))] == [5, 6]


def test_rows_of_an_unfinished_epoch_are_kept_without_epoch_metrics_known_before() -> None:
    history = TrialHistory()
    history.add_result(epoch_result(1))
    rows = history.add_result(
        {"epoch": 1, "step": 3, "train_log": [[3, 1.5, math.nan]], "val_loss": 9.0, "status": "diverged"}
    )
    assert [(step, set(row)) for step, row in rows] == [(3, {"train_loss", "epoch"})]
    assert history.status == "diverged"


def test_epochs_without_training_rows_get_steps_of_their_own() -> None:
    history = TrialHistory()
    for epoch in (1, 2, 3):
        history.add_result(epoch_result(epoch, rows_per_epoch=0))
    assert [step for step, _ in history.rows] == [0, 1, 2]
    assert [row["val_loss"] for _, row in history.rows] == [1.5, 0.5, 1.5]


@pytest.mark.parametrize(("goal", "best"), [("minimize", 0.5), ("maximize", 1.5)])
def test_best_follows_the_goal_and_passes_over_nan(goal: Literal["minimize", "maximize"], best: float) -> None:
    history = TrialHistory()
    assert history.best("val_loss", goal) is None
    for epoch in (1, 2):
        history.add_result(epoch_result(epoch))
    history.add_result(epoch_result(3, val_loss=math.nan))
    assert history.best("val_loss", goal) == best
