"""Tune's state is written after every epoch where that is cheap, and before the next one of the same trial at least."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager

from tune_cifar.runner.snapshots import PacedSnapshots, pace_snapshots


class Search:
    """Tune's own manager of snapshots, with a clock for both, whose snapshots take `cost_seconds`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.cost_seconds = 0.1
        self.events: list[str] = []
        monkeypatch.setattr("ray.tune.execution.experiment_state.time.monotonic", lambda: self.now)
        syncer = SimpleNamespace(wait=lambda: self.events.append("waited"), sync_up=lambda *_: True)
        storage: Any = SimpleNamespace(syncer=syncer, experiment_driver_staging_path="", experiment_fs_path="")
        self.manager = _ExperimentCheckpointManager(
            storage=storage, checkpoint_period="auto", sync_every_n_trial_checkpoints=1
        )
        self.manager.sync_up_experiment_state = PacedSnapshots(self.manager, syncer, lambda: self.now)

    def step(self, **options: bool) -> int:
        """One round of Tune's loop; how many snapshots there were in it."""
        before = self.events.count("saved")
        self.manager.sync_up_experiment_state(self._save, **options)
        return self.events.count("saved") - before

    def report(self, trial: Any) -> None:
        self.manager.on_trial_checkpoint(trial)

    def seconds_to_snapshot(self) -> float:
        """How long Tune's loop goes on without a snapshot."""
        begin = self.now
        while not self.step():
            self.now += 0.01
        return self.now - begin - self.cost_seconds

    def _save(self) -> None:
        self.now += self.cost_seconds
        self.events.append("saved")


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    search = Search(monkeypatch)
    assert search.step() == 1
    return search


def _trial(epoch_seconds: float, *, ended: bool = False) -> Any:
    return Stub(last_result={"epoch_runtime (seconds)": epoch_seconds}, is_finished=lambda: ended)


class Stub(SimpleNamespace):
    def __hash__(self) -> int:
        return id(self)


def test_checkpoints_of_many_trials_are_in_one_snapshot(search: Search) -> None:
    for _ in range(10):
        search.report(_trial(60.0))
        assert search.step() == 0
    assert search.seconds_to_snapshot() == pytest.approx(19 * search.cost_seconds, abs=0.02)
    assert search.step() == 0


def test_a_trial_is_in_a_snapshot_before_its_next_epoch_is_over(search: Search) -> None:
    search.report(_trial(60.0))
    assert search.step() == 0
    search.report(_trial(1.0))
    assert search.seconds_to_snapshot() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("epoch_seconds", [0.1, 60.0])
def test_a_trial_that_has_ended_waits_less(search: Search, epoch_seconds: float) -> None:
    search.report(_trial(epoch_seconds, ended=True))
    assert search.seconds_to_snapshot() == pytest.approx(4 * search.cost_seconds, abs=0.02)


def test_no_trial_has_two_epochs_that_no_snapshot_has(search: Search) -> None:
    quick = _trial(60.0)  # until now
    search.report(quick)
    assert search.step() == 0
    search.report(quick)
    assert search.step() == 1


def test_a_cheap_snapshot_is_written_after_each_epoch(search: Search) -> None:
    search.cost_seconds = 0.0
    search.now += 10
    for _ in range(3):
        search.report(_trial(60.0))
        assert search.step() == 1


def test_what_is_asked_for_is_done(search: Search) -> None:
    search.report(_trial(60.0))
    assert search.step(force=True, wait=True) == 1


def test_a_snapshot_waits_for_the_one_before(search: Search) -> None:
    search.events.clear()
    search.step(force=True)
    assert search.events[:2] == ["waited", "saved"]


def test_a_manager_is_paced_once() -> None:
    manager: Any = SimpleNamespace(sync_up_experiment_state=None)
    for _ in range(2):  # Tune adds many trials
        pace_snapshots(manager, SimpleNamespace())  # type: ignore[arg-type]
    paced: Callable[..., None] = manager.sync_up_experiment_state
    assert isinstance(paced, PacedSnapshots)
    assert paced._sync_up is None
