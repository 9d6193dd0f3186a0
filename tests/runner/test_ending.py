from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tune_cifar.limits import RunLimits
from tune_cifar.results import TrialRecord
from tune_cifar.runner.ending import MOST_END_SECONDS, SearchEnding
from tune_cifar.runner.search_log import SearchLog


@dataclass(eq=False)
class FakeTuneTrial:
    trial_id: str
    config: dict[str, Any] = field(default_factory=dict)
    status: str = "RUNNING"
    is_saving: bool = False


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Search:
    """A search with one running trial for each number of seconds that its epochs took, and its ending."""

    def __init__(self, *epoch_seconds: float | None, **limits: float) -> None:
        self.clock = Clock()
        self.log = SearchLog("val_loss")
        self.lines: list[str] = []
        self.trials = [FakeTuneTrial(str(number)) for number in range(len(epoch_seconds))]
        start_seconds = self.clock.seconds
        self.ending = SearchEnding(
            self.log, RunLimits(**limits, start_seconds=start_seconds), self.lines.append, self.clock
        )
        for trial, seconds in zip(self.trials, epoch_seconds, strict=True):
            rows = [] if seconds is None else [{"epoch": 1, "epoch_runtime (seconds)": seconds}]
            self.log.trials[trial.trial_id] = TrialRecord(1, trial.trial_id, {}, "running", rows)
            self.ending.on_trial_start(0, [], trial)

    def step(self) -> bool:
        """One step of Tune's loop; returns whether it was the last one."""
        before = _interrupts.count
        self.ending.on_step_end(0, self.trials)
        return _interrupts.count > before

    def report(self, trial: FakeTuneTrial) -> bool:
        """A trial reports an epoch; returns whether it is held."""
        is_held = self.ending.holds(trial)
        self.ending.on_trial_result(0, self.trials, trial, {})
        return is_held


class _Interrupts:
    count = 0

    def __call__(self, _signal: int, _frame: Any) -> None:
        self.count += 1


_interrupts = _Interrupts()


@pytest.fixture(autouse=True)
def _tunes_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, _interrupts)
    yield
    signal.signal(signal.SIGINT, before)


def _terminate(search: Search) -> None:
    with search.ending.at_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)


def test_without_a_cause_nothing_ends() -> None:
    search = Search(10.0, None)
    search.clock.seconds += 1e6
    assert search.ending.admits_trials()
    assert not search.report(search.trials[0])
    assert not search.step()
    assert search.lines == []


def test_at_sigterm_trials_whose_epoch_ends_in_time_go_on_to_its_end() -> None:
    search = Search(10.0, 100.0, grace_seconds=30.0)
    _terminate(search)
    assert not search.ending.admits_trials()
    assert not search.step()
    assert search.lines == [
        "SIGTERM  the search ends within 30s; 1 of 2 running trials go on to the end of their epoch"
    ]
    search.clock.seconds += 9
    assert not search.step()
    assert search.report(search.trials[0])
    search.trials[0].is_saving = True
    assert not search.step()
    search.trials[0].is_saving = False
    assert search.step()
    assert search.ending.early_end.cause == "SIGTERM"
    assert search.ending.early_end.deadline_seconds == 1030


def test_at_sigterm_trials_stop_at_once_where_no_epoch_would_end_in_time() -> None:
    search = Search(16.0, None, grace_seconds=30.0)
    _terminate(search)
    assert search.step()
    assert search.lines == ["SIGTERM  the search ends within 30s; its trials stop at once"]


def test_an_epoch_that_takes_longer_than_expected_is_waited_for_until_the_end_needs_the_time() -> None:
    search = Search(5.0, grace_seconds=30.0)
    _terminate(search)
    search.clock.seconds += 30 - MOST_END_SECONDS - 1
    assert not search.step()
    search.clock.seconds += 2
    assert search.step()


def test_a_trial_without_an_epoch_is_judged_by_the_slowest_of_the_others() -> None:
    search = Search(5.0, None, grace_seconds=30.0)
    _terminate(search)
    search.report(search.trials[0])
    assert not search.step()
    search.report(search.trials[1])
    assert search.step()


def test_a_second_sigterm_ends_the_search_at_once() -> None:
    search = Search(5.0, grace_seconds=30.0)
    before = _interrupts.count
    with search.ending.at_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        assert _interrupts.count == before
        os.kill(os.getpid(), signal.SIGTERM)
        assert _interrupts.count == before + 1


def test_sigterm_is_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Search().ending.at_sigterm():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_time_budget_lets_every_running_epoch_end() -> None:
    search = Search(50.0, 500.0, time_budget_seconds=120.0)
    search.clock.seconds += 119
    assert not search.report(search.trials[0])
    assert not search.step()
    search.clock.seconds += 1
    assert not search.step()
    assert search.lines == [
        "budget   no new trial starts after 2m; 2 of 2 running trials go on to the end of their epoch"
    ]
    search.clock.seconds += 300
    assert search.report(search.trials[0])
    assert not search.step()
    search.trials[1].status = "TERMINATED"
    assert search.step()
    assert search.ending.early_end.cause == "time budget"
    assert search.ending.early_end.deadline_seconds == math.inf


def test_no_trial_starts_where_the_median_epoch_does_not_fit() -> None:
    search = Search(10.0, 50.0, 70.0, time_budget_seconds=120.0)
    search.clock.seconds += 69
    assert search.ending.admits_trials()
    search.clock.seconds += 2
    assert not search.ending.admits_trials()
    assert not search.step()
    for trial in search.trials:
        trial.status = "TERMINATED"
    assert search.step()
    assert search.ending.cause == "time budget"


def test_a_broken_disk_ends_the_search_at_once_with_its_first_message() -> None:
    search = Search(5.0, time_budget_seconds=1e6)
    search.ending.disk_broke("full")
    search.ending.disk_broke("full still")
    assert not search.ending.admits_trials()
    assert search.ending.is_held("0")
    assert search.step()
    assert search.ending.early_end.cause == "disk"
    assert search.ending.early_end.disk_message == "full"


def test_ctrl_c_is_told_apart() -> None:
    assert Search().ending.early_end.cause == "interrupt"
