from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.tensorboard_helpers import read_parameters, read_scalars
from tests.tracking.wandb_helpers import epoch_result
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric
from tune_cifar.tracking.tensorboard import SearchTensorBoard


class FakeTrial:
    """What the log and the logger read of a Tune trial."""

    def __init__(self, trial_id: str = "abc") -> None:
        self.trial_id = trial_id
        self.config = {"model": "ResNet18", "optimizer": {"lr": 0.0042}}
        self.evaluated_params = {"model": "ResNet18", "optimizer/lr": 0.0042}
        self.last_result: dict[str, Any] = {}


def _logger(folder: Path) -> tuple[SearchLog, SearchTensorBoard]:
    log = SearchLog("val_loss")
    return log, SearchTensorBoard(folder, log, Metric("val_loss"), ["model", "lr"])


def _log_epoch(log: SearchLog, logger: SearchTensorBoard, trial: FakeTrial, epoch: int, **changes: Any) -> None:
    result = epoch_result(epoch, **{"lr": 0.0042 / epoch, "started_at": 1.7e9, **changes})
    log.on_trial_result(epoch, [], trial, result)
    logger.log_trial_result(epoch, trial, result)


def test_a_run_has_the_epochs_metrics_and_nothing_else(tmp_path: Path) -> None:
    log, logger = _logger(tmp_path)
    trial = FakeTrial()
    logger.log_trial_start(trial)
    for epoch in (1, 2, 3):
        _log_epoch(log, logger, trial, epoch)
    logger.log_trial_end(trial)
    (run,) = (tmp_path / "tensorboard").iterdir()
    assert run.name == "1-ResNet18-lr0.0042"
    assert read_scalars(run) == {
        "train_loss": {1: 1 / 2, 2: 1 / 4, 3: pytest.approx(1 / 6)},
        "val_loss": {1: 1.5, 2: 0.5, 3: 1.5},
        "val_accuracy": {epoch: pytest.approx(0.1 * epoch) for epoch in (1, 2, 3)},
        "lr": {epoch: pytest.approx(0.0042 / epoch) for epoch in (1, 2, 3)},
        "epoch_runtime_seconds": {1: 2.0, 2: 2.0, 3: 2.0},
        "best_val_loss": {1: 1.5, 2: 0.5, 3: 0.5},
    }


def test_the_parameters_stand_beside_the_metrics(tmp_path: Path) -> None:
    log, logger = _logger(tmp_path)
    trial = FakeTrial()
    _log_epoch(log, logger, trial, 1)
    logger.log_trial_end(trial)
    (run,) = (tmp_path / "tensorboard").iterdir()
    metrics = ["best_val_loss", "epoch_runtime_seconds", "train_loss", "val_accuracy", "val_loss"]
    assert read_parameters(run) == {"model": "ResNet18", "optimizer/lr": 0.0042, "metrics": metrics}


def test_an_epoch_that_runs_again_is_there_once(tmp_path: Path) -> None:
    trial = FakeTrial()
    killed_log, killed = _logger(tmp_path)
    for epoch in (1, 2):
        _log_epoch(killed_log, killed, trial, epoch)
    snapshot = pickle.dumps(killed.get_state())
    _log_epoch(killed_log, killed, trial, 3)
    # Nobody closes the file of a process that is killed, so some of its points may not be in it.
    log, logger = _logger(tmp_path)
    logger.set_state(pickle.loads(snapshot))  # noqa: S301 made here
    logger.log_trial_start(trial)
    for epoch in (3, 4):
        _log_epoch(log, logger, trial, epoch, val_loss=7.0)
    logger.log_trial_end(trial)
    (run,) = (tmp_path / "tensorboard").iterdir()
    assert len(list(run.iterdir())) == 2
    assert read_scalars(run)["val_loss"] == {1: 1.5, 2: 0.5, 3: 7.0, 4: 7.0}
    assert logger.get_state() == {"points": {}}
    killed.on_experiment_end([])


def test_a_trial_that_is_tried_again_starts_anew(tmp_path: Path) -> None:
    trial = FakeTrial()
    log, logger = _logger(tmp_path)
    _log_epoch(log, logger, trial, 1)
    _log_epoch(log, logger, trial, 2)
    logger.log_trial_start(trial)
    _log_epoch(log, logger, trial, 1, val_loss=9.0)
    logger.on_experiment_end([])
    (run,) = (tmp_path / "tensorboard").iterdir()
    assert read_scalars(run)["val_loss"] == {1: 9.0}


def test_a_diverged_epoch_has_no_point_that_is_not_a_number(tmp_path: Path) -> None:
    trial = FakeTrial()
    log, logger = _logger(tmp_path)
    _log_epoch(log, logger, trial, 1)
    _log_epoch(log, logger, trial, 2, val_loss=math.nan, train_loss=math.inf)
    logger.log_trial_end(trial)
    (run,) = (tmp_path / "tensorboard").iterdir()
    scalars = read_scalars(run)
    assert (list(scalars["val_loss"]), list(scalars["train_loss"])) == ([1], [1])


def test_a_trial_goes_on_whose_points_were_lost_with_the_state_of_the_search(tmp_path: Path) -> None:
    trial = FakeTrial()
    killed_log, killed = _logger(tmp_path)
    for epoch in (1, 2):
        _log_epoch(killed_log, killed, trial, epoch)
    record = killed_log.trials[trial.trial_id]
    log, logger = _logger(tmp_path)
    log.trials = {trial.trial_id: record}
    logger.recall(record, [epoch_result(epoch, lr=0.0042 / epoch) for epoch in (1, 2)])
    _log_epoch(log, logger, trial, 3)
    logger.log_trial_end(trial)
    (run,) = (tmp_path / "tensorboard").iterdir()
    scalars = read_scalars(run)
    assert scalars["val_loss"] == {1: 1.5, 2: 0.5, 3: 1.5}
    assert scalars["best_val_loss"] == {1: 1.5, 2: 0.5, 3: 0.5}
