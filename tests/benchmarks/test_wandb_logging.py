from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from benchmarks.wandb_logging import ROWS_PER_EPOCH, log_trials
from tests.tracking.wandb_helpers import read_run, run_files
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.tracking.wandb_callback import SearchWandbCallback


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SearchWandbCallback]:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield SearchWandbCallback(
        project="benchmark",
        group="benchmark",
        folder=tmp_path,
        mode="offline",
        log=SearchLog("val_loss"),
        metric="val_loss",
        goal="minimize",
    )
    wandb.teardown()


def test_forty_trials_of_five_epochs_hold_the_driver_for_almost_no_time(
    callback: SearchWandbCallback, tmp_path: Path
) -> None:
    figures = log_trials(callback, tmp_path, num_trials=40, num_epochs=5)
    assert figures["runs_on_disk"] == 40
    assert len(figures["call_seconds"]) == 40
    assert sum(figures["call_seconds"]) / 40 < 0.15
    assert figures["driver_cpu_seconds_per_trial"] < 0.15
    last = read_run(run_files(tmp_path)[-1])
    assert last.num_rows == 5 * ROWS_PER_EPOCH
    assert last.summary["best_val_loss"] == 0.2
