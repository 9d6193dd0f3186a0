from __future__ import annotations

import math
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tune_cifar.results import TrialRecord
from tune_cifar.runner.early_stopping import HyperbandStopping, LagStopping, SearchScheduler, SearchStopper
from tune_cifar.runner.search_log import SearchLog, logged_values
from tune_cifar.sweep.curve_stopping import CurveRule
from tune_cifar.sweep.early_stopping import HyperbandRule
from tune_cifar.sweep.schema import CurveStopping, Goal, Hyperband, Metric


class FakeTuneTrial:
    """What scheduler and log read of a Tune trial; a real one needs a storage and a placement."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.config = {"lr": 0.1}


def _result(epoch: int, value: float, status: str = "running") -> dict[str, Any]:
    rows = ((2 * epoch - 1, epoch - 0.5, value + 1), (2 * epoch, float(epoch), value + 2))
    return {"epoch": epoch, "val_loss": value, "train_log": rows, "status": status, "epoch_runtime (seconds)": 1.0}


def _log_with(metric: str, histories: dict[str, list[float]]) -> SearchLog:
    log = SearchLog(metric)
    for number, (trial_id, values) in enumerate(histories.items(), start=1):
        record = TrialRecord(number, trial_id, {"lr": 0.1}, "running")
        for epoch, value in enumerate(values, start=1):
            row = _result(epoch, value)
            record.add_epoch({**row, "logged": logged_values(row, metric)})
        log.trials[trial_id] = record
    return log


def _scheduler(log: SearchLog, goal: Goal = "minimize", **rule: Any) -> SearchScheduler:
    metric = Metric(log.metric, goal)
    early_stopping = HyperbandStopping(HyperbandRule(Hyperband(**rule), goal), metric, log)
    return SearchScheduler(SearchStopper(metric, log, lambda trial_id, result: False), early_stopping, log)


@pytest.mark.parametrize(
    ("value", "goal", "stops"), [(5.0, "minimize", True), (0.5, "minimize", False), (0.5, "maximize", True)]
)
def test_the_worse_trial_stops_at_a_band_with_the_reason(value: float, goal: Goal, stops: bool) -> None:
    log = _log_with("val_loss", {"a": [1, 1, 1], "b": [2, 2, 2], "c": [3, 3, 3], "d": [value]})
    scheduler = _scheduler(log, goal, min_iter=2, eta=2)
    decision = scheduler.on_trial_result(None, FakeTuneTrial("d"), _result(2, value))
    assert decision == (TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)
    if stops and goal == "minimize":
        assert log.stop_reasons["d"] == "stopped at band 2: val_loss 5.0000 is above the threshold 3.0000 of 4 trials"
    assert ("d" in log.stop_reasons) is stops


def test_nothing_stops_before_the_first_band_or_with_its_last_epoch() -> None:
    log = _log_with("val_loss", {"a": [1, 1, 1], "b": [2, 2, 2], "c": []})
    scheduler = _scheduler(log, min_iter=2)
    assert scheduler.on_trial_result(None, FakeTuneTrial("c"), _result(1, 9.0)) == TrialScheduler.CONTINUE
    log.trials["c"].add_epoch({**_result(1, 9.0), "logged": [9.0]})
    assert scheduler.on_trial_result(None, FakeTuneTrial("c"), _result(2, 9.0, "finished")) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, FakeTuneTrial("c"), _result(2, 9.0)) == TrialScheduler.STOP


def test_bands_count_every_logged_value_of_the_metric() -> None:
    """train_loss has two values an epoch here, so the band at 4 values is reached after two epochs."""
    log = _log_with("train_loss", {"a": [1, 1], "b": [9]})
    scheduler = _scheduler(log, min_iter=4)
    assert scheduler.on_trial_result(None, FakeTuneTrial("b"), _result(1, 9.0)) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, FakeTuneTrial("b"), _result(2, 9.0)) == TrialScheduler.STOP


def test_an_epoch_that_comes_again_after_a_crash_counts_once() -> None:
    log = _log_with("val_loss", {"a": [1, 1, 1], "b": [9, 9]})
    scheduler = _scheduler(log, min_iter=3)
    assert scheduler.on_trial_result(None, FakeTuneTrial("b"), _result(2, 9.0)) == TrialScheduler.CONTINUE


def _curve_scheduler(log: SearchLog, **rule: Any) -> SearchScheduler:
    metric = Metric(log.metric)
    early_stopping = LagStopping(CurveRule(CurveStopping(**rule), "minimize"), metric, log)
    return SearchScheduler(SearchStopper(metric, log, lambda trial_id, result: False), early_stopping, log)


def test_a_trial_that_lags_behind_stops_with_the_reason() -> None:
    log = _log_with("val_loss", {"a": [2.0, 1.0], "b": [2.1, 1.2], "c": [2.05, 1.9], "d": []})
    log.trials["a"].status = log.trials["b"].status = "finished"  # c still runs and says nothing
    scheduler = _curve_scheduler(log)
    assert scheduler.on_trial_result(None, FakeTuneTrial("d"), _result(1, 2.05)) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, FakeTuneTrial("d"), _result(1, 2.2)) == TrialScheduler.STOP
    assert log.stop_reasons["d"] == (
        "stopped after epoch 1: val_loss 2.2000 lags 0.2000 behind the best finished trial (2.0000 by then); "
        "trials caught up or fell back by 0.1000 from there"
    )
    assert scheduler.on_trial_result(None, FakeTuneTrial("c"), _result(2, 1.9)) == TrialScheduler.STOP


def test_the_curve_rule_leaves_last_epochs_and_repeats_alone() -> None:
    log = _log_with("val_loss", {"a": [1.0, 1.0], "b": []})
    log.trials["a"].status = "finished"
    scheduler = _curve_scheduler(log)
    assert scheduler.on_trial_result(None, FakeTuneTrial("b"), _result(2, 9.0, "finished")) == TrialScheduler.CONTINUE
    log.trials["b"].repeat_of = 1
    assert scheduler.on_trial_result(None, FakeTuneTrial("b"), _result(1, 9.0)) == TrialScheduler.CONTINUE
    log.trials["b"].repeat_of = None
    assert scheduler.on_trial_result(None, FakeTuneTrial("b"), _result(1, 9.0)) == TrialScheduler.STOP


def test_values_that_are_not_finite_are_not_logged() -> None:
    assert logged_values({**_result(1, math.nan)}, "val_loss") == []
    assert logged_values(_result(1, 1.0), "train_loss") == [2.0, 3.0]


def test_the_stop_button_ends_one_trial() -> None:
    log = _log_with("val_loss", {"a": [1.0], "b": [1.0]})
    stopper = SearchStopper(Metric("val_loss"), log, lambda trial_id, result: trial_id == "a")
    assert stopper("a", _result(2, 1.0))
    assert not stopper("b", _result(2, 1.0))
    assert log.stop_reasons == {"a": "stopped on its W&B page"}


def test_at_the_target_every_trial_ends_after_its_epoch() -> None:
    log = _log_with("val_loss", {"a": [1.0], "b": [1.0]})
    stopper = SearchStopper(Metric("val_loss", target=0.2), log, lambda trial_id, result: False)
    assert not stopper("a", _result(2, 0.3))
    assert stopper("a", _result(3, 0.2))
    log.trials["a"].add_epoch({**_result(3, 0.2), "logged": [0.2]})
    assert stopper("b", _result(2, 0.9))
    assert log.stop_reasons == {"a": "reached the target 0.2", "b": "the search is over: trial 1 reached the target"}
    assert not stopper("c", _result(2, 0.1, "finished"))


def _with_repeat(log: SearchLog) -> SearchLog:
    """The last trial of the log is a repeat of the first."""
    *_, last = log.trials.values()
    last.repeat_of = 1
    return log


def test_a_repeat_is_not_stopped_early_and_not_at_the_target() -> None:
    log = _with_repeat(_log_with("val_loss", {"a": [1, 1, 1], "b": [0.1, 2, 2], "c": [9.0]}))
    scheduler = _scheduler(log, min_iter=2)
    stopper = SearchStopper(Metric("val_loss", target=0.2), log, lambda trial_id, result: False)
    assert (
        SearchScheduler(stopper, scheduler.early_stopping, log).on_trial_result(
            None, FakeTuneTrial("c"), _result(2, 9.0)
        )
        == "CONTINUE"
    )
    assert not stopper("c", _result(2, 0.05))
    assert log.stop_reasons == {}
    log.trials["c"].repeat_of = None
    assert scheduler.on_trial_result(None, FakeTuneTrial("c"), _result(2, 9.0)) == TrialScheduler.STOP
    assert stopper("c", _result(2, 9.0))


def test_the_stop_button_ends_a_repeat_too() -> None:
    log = _with_repeat(_log_with("val_loss", {"a": [1.0], "b": [1.0]}))
    stopper = SearchStopper(Metric("val_loss", target=0.2), log, lambda trial_id, result: trial_id == "b")
    assert stopper("b", _result(2, 1.0))
    assert log.stop_reasons == {"b": "stopped on its W&B page"}


@pytest.mark.parametrize(("pressed", "bands"), [(True, False), (True, True), (False, True), (False, False)])
def test_a_trial_is_stopped_by_either(pressed: bool, bands: bool) -> None:
    log = _log_with("val_loss", {"a": [1, 1], "b": [9.0]})
    stopper = SearchStopper(Metric("val_loss"), log, lambda trial_id, result: pressed)
    scheduler = SearchScheduler(stopper, _scheduler(log, min_iter=2).early_stopping if bands else None, log)
    decision = scheduler.on_trial_result(None, FakeTuneTrial("b"), _result(2, 9.0))
    assert decision == (TrialScheduler.STOP if pressed or bands else TrialScheduler.CONTINUE)
    reason = log.stop_reasons.get("b", "")
    assert reason.startswith("stopped on its W&B page" if pressed else "stopped at band 2" if bands else "")
