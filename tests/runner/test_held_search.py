from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from tune_cifar.runner.held_search import HeldSearch
from tune_cifar.runner.hopeless import FirstTrials
from tune_cifar.runner.placement import TrialPlacement
from tune_cifar.runner.resources import TrialSlots
from tune_cifar.runner.retrying import RetryingScheduler
from tune_cifar.runner.search_log import SearchLog


class Inner(Searcher):  # type: ignore[misc]
    """A searcher that writes down what it is told."""

    def __init__(self) -> None:
        super().__init__(metric="val_loss", mode="min")
        self.told: list[Any] = []

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"lr": 0.1}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.told.append((trial_id, result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.told.append((trial_id, result, error))


def test_no_trial_is_suggested_while_held_and_all_news_are_passed_on() -> None:
    held = True
    inner = Inner()
    search = HeldSearch(inner, lambda: held)
    assert search.suggest("a") is None
    held = False
    assert search.suggest("a") == {"lr": 0.1}
    search.on_trial_result("a", {"epoch": 1})
    search.on_trial_complete("a", {"epoch": 2}, error=True)
    assert inner.told == [("a", {"epoch": 1}), ("a", {"epoch": 2}, True)]
    assert (search.metric, search.mode) == ("val_loss", "min")


@pytest.mark.parametrize(
    ("status", "special", "held"),
    [
        (Trial.PENDING, "", False),
        (Trial.PENDING, "alone", True),
        (Trial.RUNNING, "alone", False),
        (Trial.PENDING, "avoids a node", True),
        (Trial.PENDING, "a node is left alone", True),
        (Trial.RUNNING, "a node is left alone", False),
    ],
)
def test_new_trials_wait_for_one_that_needs_a_place_of_its_own(
    tmp_path: Any, status: str, special: str, held: bool
) -> None:
    log, placement = SearchLog("val_loss"), TrialPlacement(TrialSlots(1.0, 0.5, 2, ""))
    stopper: Any = None
    scheduler = RetryingScheduler(
        stopper,
        None,
        log,
        placement=placement,
        first_trials=FirstTrials(5, 2),
        max_failures=2,
        tune_folder=str(tmp_path),
        say=print,
    )
    waiting: Any = SimpleNamespace(trial_id="a", status=status)
    log.on_step_begin(0, [waiting])
    if special == "alone":
        log.alone_trials.add("a")
    elif special == "avoids a node":
        placement.avoided["a"] = "n"
    elif special:
        placement.left_alone["n"] = "box (10.0.0.5)"
    assert scheduler.waits_for_room() is held
