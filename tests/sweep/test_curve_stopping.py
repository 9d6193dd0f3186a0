from __future__ import annotations

import math
from typing import Any

import pytest

from tune_cifar.sweep.curve_stopping import CurveRule, Lag
from tune_cifar.sweep.schema import CurveStopping, Goal


def rule(goal: Goal = "minimize", **fields: Any) -> CurveRule:
    return CurveRule(CurveStopping(**fields), goal)


LEADER = [2.0, 1.5, 1.0]


def test_before_a_trial_has_finished_none_stops() -> None:
    assert rule().decide([9.0], []) is None


def test_after_the_first_finished_trial_whoever_is_behind_it_stops() -> None:
    assert rule().decide([2.0], [LEADER]) is None
    assert rule().decide([1.9], [LEADER]) is None
    lag = Lag(epoch=1, value=2.1, leader_value=2.0, lag=pytest.approx(0.1), catch_up=0.0)
    assert rule().decide([2.1], [LEADER]) == lag


def test_a_lag_that_trials_were_seen_to_make_up_stops_nobody() -> None:
    others = [LEADER, [2.4, 1.6, 1.1]]  # lagged by 0.4 after its first epoch and by 0.1 in the end
    assert rule().decide([2.3], others) is None
    lag = rule().decide([2.31], others)
    assert lag is not None
    assert lag.catch_up == pytest.approx(0.3)
    assert rule(margin=2.0).decide([2.59], others) is None
    assert rule(margin=2.0).decide([2.61], others) is not None
    assert rule(margin=0.0).decide([2.01], others) is not None


def test_the_nearest_six_say_how_much_lags_change() -> None:
    near = [[2.1 + index / 100, 1.9, 1.1 + index / 100] for index in range(6)]  # lags that stay as they are
    far = [[9.0, 2.0, 1.1]] * 20  # hopeless starts that caught up
    lag = rule().decide([2.2], [LEADER, *near, *far])
    assert lag is not None
    assert lag.catch_up == pytest.approx(0.0, abs=1e-12)
    assert rule().decide([8.0], [LEADER, *near, *far]) is None


def test_the_best_so_far_counts_not_the_last_value() -> None:
    assert rule().decide([1.9, 3.0], [LEADER]) is not None  # 1.9 against 1.5
    assert rule().decide([1.4, 3.0], [LEADER]) is None


def test_more_is_better_where_the_metric_is_maximized() -> None:
    lag = rule("maximize").decide([0.3], [[0.5, 0.8], [0.2, 0.6]])
    assert lag is not None
    assert (lag.value, lag.leader_value) == (0.3, 0.5)
    assert (lag.lag, lag.catch_up) == (pytest.approx(0.2), pytest.approx(0.1))
    assert rule("maximize").decide([0.6], [[0.5, 0.8]]) is None


@pytest.mark.parametrize(
    ("num_epochs", "fields", "first_epoch"), [(5, {}, 1), (19, {}, 1), (50, {}, 5), (50, {"min_iter": 2}, 2)]
)
def test_nothing_is_decided_before_a_tenth_of_a_trial(
    num_epochs: int, fields: dict[str, int], first_epoch: int
) -> None:
    finished = [[1.0] * num_epochs]
    assert rule(**fields).decide([9.0] * (first_epoch - 1), finished) is None
    assert rule(**fields).decide([9.0] * first_epoch, finished) is not None


def test_a_trial_longer_than_the_leader_is_compared_with_its_end() -> None:
    lag = rule().decide([3.0, 2.0, 1.5, 1.4], [LEADER])
    assert lag is not None
    assert lag.leader_value == 1.0


def test_values_that_are_not_finite_decide_nothing() -> None:
    assert rule().decide([math.nan], [LEADER]) is None
    assert rule().decide([1.0], [[math.nan, math.inf]]) is None
    assert rule().decide([3.0, math.nan], [LEADER, [math.inf, 1.6, 1.4]]) is not None
