"""Searches that hang, are told to end, or lose their disk, on a Ray of their own."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from tests.runner.stub_trials import run_stub_search
from tune_cifar.limits import RunLimits
from tune_cifar.runner import hang_watch
from tune_cifar.runner.resources import TrialSlots

ONE_AT_A_TIME = TrialSlots(1.0, 0.0, 1, "")


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
        ray.init(address="local", num_cpus=2, object_store_memory=100 << 20, **options)
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def _close_rays_files() -> Iterator[None]:
    """Ray leaves the logs of a trial open that a search has not ended."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class MuchPatienceAfterOneFailure(tune.Callback):  # type: ignore[misc]
    """On a machine with much else to do, a process may take longer to start than a test should wait for a hung one."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_recover(self, **info: Any) -> None:
        hang_watch.LEAST_SECONDS = 600.0


def test_a_trial_that_hangs_is_tried_again_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def befall(seed: int, attempt: int, epoch: int) -> None:
        import os
        import signal

        if (seed, attempt, epoch) == (1, 1, 2):
            os.kill(os.getpid(), signal.SIGSTOP)

    monkeypatch.setattr(hang_watch, "LEAST_SECONDS", 5.0)
    search = run_stub_search(
        tmp_path,
        befall,
        monkeypatch,
        slots=ONE_AT_A_TIME,
        num_trials=2,
        callbacks=lambda log: [MuchPatienceAfterOneFailure()],
    )
    (said,) = [line for line in search.lines if line.startswith("hung")]
    assert said.startswith("hung     trial 1: no word since epoch 1 for ")
    trial = search.trial(1)
    assert (trial.status, trial.failures) == ("finished", 1)
    assert [row["epoch"] for row in trial.epochs] == [1, 2, 3]
    assert [attempt["last_epoch"] for attempt in search.attempts[1]] == [0, 1]
    assert search.trial(2).status == "finished"
    assert search.outcome.early_end is None


class TerminateAfterFirstEpoch(tune.Callback):  # type: ignore[misc]
    """The scheduler that takes the machine away."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, **info: Any) -> None:
        if info["result"]["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_at_sigterm_the_running_epoch_is_finished_and_no_trial_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = run_stub_search(
        tmp_path,
        lambda seed, attempt, epoch: None,
        monkeypatch,
        slots=ONE_AT_A_TIME,
        num_trials=2,
        epoch_seconds=1.0,
        callbacks=lambda log: [TerminateAfterFirstEpoch()],
        limits=RunLimits(grace_seconds=120.0),
    )
    assert "SIGTERM  the search ends within 2m; 1 of 1 running trials go on to the end of their epoch" in search.lines
    (trial,) = search.outcome.trials
    assert trial.status == "waiting"
    assert [row["epoch"] for row in trial.epochs] == [1, 2]
    assert len(list(tmp_path.glob("ray/trial-*/checkpoint_000001"))) == 1
    assert search.attempts[2] == []
    assert search.outcome.early_end is not None
    assert search.outcome.early_end.cause == "SIGTERM"


def test_a_trial_stopped_on_its_page_makes_room_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[str] = []

    def stop_the_first(trial_id: str, result: dict[str, Any]) -> bool:
        first.append(trial_id)
        return trial_id == first[0]

    search = run_stub_search(
        tmp_path,
        lambda seed, attempt, epoch: None,
        monkeypatch,
        slots=ONE_AT_A_TIME,
        num_trials=2,
        stop_requested=stop_the_first,
    )
    ends = [(trial.status, trial.message, len(trial.epochs)) for trial in search.outcome.trials]
    assert ends == [("stopped", "stopped on its W&B page", 1), ("finished", "", 3)]


def test_no_trial_starts_once_the_time_budget_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = RunLimits(time_budget_seconds=60.0, start_seconds=-1e6)
    search = run_stub_search(
        tmp_path, lambda seed, attempt, epoch: None, monkeypatch, slots=ONE_AT_A_TIME, num_trials=2, limits=limits
    )
    assert "budget   no new trial starts after 1m; none is running" in search.lines
    assert search.outcome.best is None
    assert search.attempts == {1: [], 2: []}
    assert search.outcome.early_end is not None
    assert search.outcome.early_end.cause == "time budget"


def test_a_disk_that_takes_no_checkpoint_ends_the_search_and_costs_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune_folder = str(tmp_path.resolve() / "ray")

    def befall(seed: int, attempt: int, epoch: int) -> None:
        import errno
        import os
        import time

        from tune_cifar.runner.storage_watch import tell_of_disk

        if epoch == 2:
            tell_of_disk(tune_folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/model.pth"))
            time.sleep(600)

    search = run_stub_search(tmp_path, befall, monkeypatch, slots=ONE_AT_A_TIME, num_trials=2)
    (trial,) = search.outcome.trials
    assert (trial.status, trial.failures, len(trial.epochs)) == ("waiting", 0, 1)
    assert search.attempts[2] == []
    assert search.outcome.early_end is not None
    assert search.outcome.early_end.cause == "disk"
    assert search.outcome.early_end.disk_message.startswith("No space left on device (/disk/model.pth); ")
