from __future__ import annotations

import math
from typing import Any

import pytest

from tune_cifar.sweep.early_stopping import HyperbandRule, Stop
from tune_cifar.sweep.schema import Hyperband


def rule(goal: Any = "minimize", **fields: Any) -> HyperbandRule:
    return HyperbandRule(Hyperband(**fields), goal)


@pytest.mark.parametrize(
    ("fields", "num_values", "bands"),
    [
        ({"min_iter": 3}, 2, []),
        ({"min_iter": 3}, 30, [3, 9, 27]),
        ({"min_iter": 1, "eta": 2.0}, 9, [1, 2, 4, 8]),
        ({"min_iter": 2, "eta": 1.5}, 11, [2, 3, 4, 6, 10]),
        ({"min_iter": 1, "eta": 1e300}, 10**6, [1]),
        ({"max_iter": 27, "s": 2}, 100, [9, 3]),
        ({"max_iter": 27, "s": 9}, 100, [9, 3, 1]),
        ({"max_iter": 27, "s": 2}, 8, [3]),
        ({"max_iter": 10, "s": 2, "eta": 2.0}, 4, [2]),
    ],
)
def test_bands_that_a_trial_has_reached(fields: dict[str, Any], num_values: int, bands: list[int]) -> None:
    assert list(rule(**fields).bands(num_values)) == bands


def test_lists_no_more_bands_than_wandb() -> None:
    assert len(list(rule(min_iter=1, eta=1.001).bands(10**6))) == 100


def test_stops_what_is_not_among_the_best_third() -> None:
    three = rule(min_iter=2)
    others = [[9.0, float(loss)] for loss in (1, 2, 3, 4, 5)]
    assert three.decide([9.0, 2.5], others) is None  # 6 trials: the best 3 (index 2 and ties) go on
    assert three.decide([9.0, 3.5], others) == Stop(band=2, value=3.5, threshold=3.0, num_trials=6)


def test_the_first_trial_at_a_band_goes_on() -> None:
    assert rule(min_iter=2).decide([5.0, 9.0], []) is None
    assert rule(min_iter=2).decide([5.0, 9.0], [[1.0]]) is None


def test_nothing_is_decided_before_the_first_band() -> None:
    assert rule(min_iter=3).decide([9.0, 9.0], [[0.0, 0.0, 0.0]] * 5) is None


def test_equal_values_go_on() -> None:
    assert rule(min_iter=1).decide([1.0], [[1.0]] * 5) is None


def test_to_maximize_less_is_worse_and_values_keep_their_sign() -> None:
    others = [[accuracy] for accuracy in (0.9, 0.8, 0.7)]
    assert rule("maximize", min_iter=1).decide([0.5], others) == Stop(1, 0.5, 0.8, 4)
    assert rule("maximize", min_iter=1).decide([0.85], others) is None


def test_strict_judges_the_value_at_the_band_and_lenient_the_best_so_far() -> None:
    others = [[1.0, 1.0, 1.0]] * 3
    history = [0.5, 2.0, 0.4]
    assert rule(min_iter=2, strict=True).decide(history, others) == Stop(2, 2.0, 1.0, 4)
    assert rule(min_iter=2, strict=False).decide(history, others) is None


def test_is_judged_again_at_the_last_band_when_others_catch_up() -> None:
    third = rule(min_iter=1)
    assert third.decide([3.0, 3.0], [[4.0]]) is None
    assert third.decide([3.0, 3.0], [[4.0], [1.0], [2.0]]) == Stop(1, 3.0, 2.0, 4)


def test_values_that_are_not_finite_do_not_count() -> None:
    others = [[math.nan, 1.0, math.inf, 1.0]] * 3
    assert rule(min_iter=2).decide([math.nan, 5.0], others) is None
    assert rule(min_iter=2).decide([5.0, math.nan, 5.0], others) == Stop(2, 5.0, 1.0, 4)


def test_a_history_is_enough_of_any_kind_and_others_are_read_once() -> None:
    assert rule(min_iter=1).decide((2.0,), iter([(1.0,), (1.0,), (1.0,)])) == Stop(1, 2.0, 1.0, 4)
