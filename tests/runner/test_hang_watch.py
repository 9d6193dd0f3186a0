from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from tune_cifar.results import TrialRecord
from tune_cifar.runner.hang_watch import EPOCHS_OF_SILENCE, LEAST_SECONDS, SECONDS_BEFORE_ANY_EPOCH, HangWatch
from tune_cifar.runner.search_log import SearchLog


@dataclass(eq=False)
class FakeTuneTrial:
    trial_id: str
    config: dict[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"
    temporary_state: Any = field(default_factory=lambda: SimpleNamespace(ray_actor=object()))


class Search:
    """A search with a running trial for each list of epoch seconds, whose processes are not really there."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *epochs: list[float], hang_seconds: float | None = None
    ) -> None:
        self.killed: list[Any] = []
        self.lines: list[str] = []
        self.seconds = 0.0
        self.held: set[str] = set()
        monkeypatch.setattr(ray, "kill", self.killed.append)
        log = SearchLog("val_loss")
        self.watch = HangWatch(log, hang_seconds, self.held.__contains__, self.lines.append, lambda: self.seconds)
        self.trials = [FakeTuneTrial(str(number)) for number in range(len(epochs))]
        for number, (trial, seconds) in enumerate(zip(self.trials, epochs, strict=True), start=1):
            rows = [{"epoch": epoch, "epoch_runtime (seconds)": one} for epoch, one in enumerate(seconds, start=1)]
            log.trials[trial.trial_id] = TrialRecord(number, trial.trial_id, {}, "running", rows)
            self.watch.on_trial_start(0, self.trials, trial)

    def wait(self, seconds: float, step_seconds: float = 1.0) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds += step_seconds
            self.watch.on_step_end(0, self.trials)


def test_a_trial_is_killed_once_after_the_silence_of_its_own_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch, [20.0, 30.0], [90.0])
    limit = EPOCHS_OF_SILENCE * 30.0
    search.wait(limit - 5)
    assert search.killed == []
    search.wait(10)
    assert search.killed == [search.trials[0].temporary_state.ray_actor]
    assert search.lines == ["hung     trial 1: no word since epoch 2 for 5m1s; its process is killed"]
    search.wait(100)
    assert len(search.killed) == 1


def test_a_report_starts_the_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch, [1.0])
    search.wait(LEAST_SECONDS - 5)
    search.watch.on_trial_result(0, search.trials, search.trials[0], {})
    search.wait(LEAST_SECONDS - 5)
    assert search.killed == []
    search.wait(10)
    assert len(search.killed) == 1


def test_before_its_first_epoch_a_trial_is_judged_by_the_slowest_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch, [], [15.0], [40.0])
    assert search.watch.limit_seconds(search.trials[0]) == EPOCHS_OF_SILENCE * 40.0
    assert search.watch.limit_seconds(search.trials[1]) == EPOCHS_OF_SILENCE * 15.0


def test_before_any_epoch_there_is_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch, [])
    assert search.watch.limit_seconds(search.trials[0]) == SECONDS_BEFORE_ANY_EPOCH


def test_the_time_can_be_set_or_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch, [1000.0], hang_seconds=7.0)
    search.wait(10)
    assert len(search.killed) == 1
    search = Search(monkeypatch, [1.0], hang_seconds=0.0)
    search.wait(1e4)
    assert search.killed == []


def test_time_in_which_the_search_stood_still_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(monkeypatch, [1.0])
    search.wait(1)
    search.wait(10 * LEAST_SECONDS, step_seconds=10 * LEAST_SECONDS)
    search.wait(LEAST_SECONDS - 20)
    assert search.killed == []


@pytest.mark.parametrize("why", ["held", "pending", "without a process"])
def test_a_trial_that_is_silent_by_order_is_left(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    search = Search(monkeypatch, [1.0])
    if why == "held":
        search.held.add("0")
    elif why == "pending":
        search.trials[0].status = "PENDING"
    else:
        search.trials[0].temporary_state.ray_actor = None
    search.wait(10 * LEAST_SECONDS)
    assert search.killed == []
