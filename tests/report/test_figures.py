from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.report.searches import METRIC, make_predictions, make_trials
from tune_cifar.report.confusion import confusion_matrix
from tune_cifar.report.figures import (
    MAX_CURVE_POINTS,
    best_moments,
    best_over_time,
    best_over_trials,
    learning_curves,
    value_axis,
)
from tune_cifar.report.mistakes import find_mistakes
from tune_cifar.results import Status, TrialRecord
from tune_cifar.sweep.schema import Metric


def _trial(number: int, status: Status, *rows: tuple[float, float, float]) -> TrialRecord:
    """A trial whose epochs are (reported at, seconds, loss)."""
    epochs = [
        {"epoch": epoch, "reported_at": at, "epoch_runtime (seconds)": seconds, "val_loss": loss, "logged": [loss]}
        for epoch, (at, seconds, loss) in enumerate(rows, start=1)
    ]
    return TrialRecord(number, f"t{number}", {"lr": 0.1 * number}, status, epochs)


def _moments(*trials: TrialRecord) -> tuple[list[tuple[float, float, int]], float]:
    moments, seconds = best_moments(trials, METRIC)
    return [(moment.seconds, moment.value, moment.trial.number) for moment in moments], seconds


def test_trials_side_by_side_share_the_time() -> None:
    one = _trial(1, "finished", (10, 10, 0.9), (20, 10, 0.5))
    two = _trial(2, "stopped", (15, 15, 0.7), (30, 15, 0.6))
    assert _moments(one, two) == ([(10, 0.9, 1), (15, 0.7, 2), (20, 0.5, 1)], 30)


def test_the_time_between_an_interruption_and_its_resume_does_not_count() -> None:
    one = _trial(1, "finished", (1010, 10, 0.9), (9010, 10, 0.5))
    two = _trial(2, "finished", (9013, 8, 0.4))
    assert _moments(one, two) == ([(10, 0.9, 1), (20, 0.5, 1), (23, 0.4, 2)], 23)


def test_what_cannot_win_is_no_best_but_takes_its_time() -> None:
    failed, diverged = _trial(1, "failed", (5, 5, 0.1)), _trial(2, "diverged", (10, 5, 0.2), (15, 5, math.nan))
    running = _trial(3, "running", (20, 5, 0.8))
    assert _moments(failed, diverged, running) == ([(20, 0.8, 3)], 20)
    assert _moments() == ([], 0)


def test_the_best_so_far_follows_the_goal_and_leaves_out_what_cannot_win() -> None:
    trials = [_trial(1, "diverged", (1, 1, 0.1)), _trial(2, "finished", (2, 1, 0.6)), _trial(3, "stopped", (3, 1, 0.7))]
    assert list(best_over_trials(trials, METRIC, ["lr"]).data[0].y) == [None, 0.6, 0.6]
    assert list(best_over_trials(trials, Metric("val_loss", "maximize"), ["lr"]).data[0].y) == [None, 0.6, 0.7]


def test_the_best_so_far_goes_on_to_the_last_trial_that_ended() -> None:
    trials = [_trial(1, "finished", (1, 1, 0.6)), _trial(2, "diverged", (2, 1, math.nan)), _trial(3, "running")]
    line = best_over_trials(trials, METRIC, ["lr"]).data[0]
    assert (list(line.x), list(line.y)) == ([1, 2], [0.6, 0.6])


def test_best_over_time_ends_where_the_search_does() -> None:
    made = best_over_time([_trial(1, "finished", (600, 600, 0.5), (1200, 600, 0.6))], METRIC)
    assert (list(made.data[0].x), list(made.data[0].y)) == ([10, 20], [0.5, 0.5])
    assert made.layout.xaxis.title.text == "minutes of training"


def test_each_curve_ends_in_the_mark_of_its_status() -> None:
    trials = make_trials()
    made, shown = learning_curves(trials, "val_loss", trials[0], ["optimizer.lr"])
    assert shown == len(trials)
    ends = {trace.name: trace for trace in made.data if trace.mode == "markers"}
    assert set(ends) == {"finished", "stopped", "diverged", "failed", "best: trial 1"}
    assert len({trace.marker.symbol for trace in ends.values()}) == 4
    # The last epoch of the diverged one has no value, so its mark is on the one before.
    (diverged,) = (trial for trial in trials if trial.status == "diverged")
    assert list(ends["diverged"].x) == [len(diverged.epochs) - 1]
    assert sum(len(trace.x) for trace in ends.values()) == len(trials)
    (told,) = ends["failed"].customdata
    assert told.startswith("6 (failed)<br>lr 0.")


def test_of_thousands_of_trials_as_many_curves_are_drawn_as_fit() -> None:
    trials = make_trials(2000)
    best = trials[-1]
    made, shown = learning_curves(trials, "val_loss", best, ["optimizer.lr"])
    assert 500 < shown < 2000
    assert sum(len(trace.x) for trace in made.data if trace.mode == "lines") <= MAX_CURVE_POINTS
    assert made.data[-1].name == "best: trial 2000"
    assert len(made.to_json()) < 400_000


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.1, 3.0], "log"),
        ([0.5, 3.0], "linear"),
        ([0.0, 300.0], "linear"),
        ([math.nan, 1.0], "linear"),
        ([], "linear"),
    ],
)
def test_only_values_that_are_far_apart_get_a_logarithmic_axis(values: list[float], kind: str) -> None:
    assert value_axis(values)["type"] == kind


def test_mistakes_have_a_scale_of_their_own() -> None:
    mistakes = find_mistakes(make_predictions())
    right, wrong = json.loads(confusion_matrix(mistakes).to_json())["data"]
    cells: list[tuple[Any, Any]] = [
        (right["z"][row][column], wrong["z"][row][column]) for row in range(10) for column in range(10)
    ]
    assert [place for place, (one, _) in enumerate(cells) if one is not None] == list(range(0, 100, 11))
    assert all((one is None) != (other is None) for one, other in cells)
    assert wrong["zmax"] < right["zmax"]
    for row, total in zip(range(10), map(sum, mistakes.confusion), strict=True):
        assert sum(filter(None, right["z"][row] + wrong["z"][row])) == pytest.approx(1, abs=0.01)
        cells_of_row = list(zip(right["text"][row], wrong["text"][row], strict=True))
        assert not any(one and other for one, other in cells_of_row)  # else they lie upon one another
        assert sum(int(one or other or 0) for one, other in cells_of_row) == total


def test_long_names_of_classes_leave_the_matrix_room_unless_two_would_be_the_same() -> None:
    names = ("n02102040 English springer spaniel", "cat", "<b>")
    made = confusion_matrix(find_mistakes(make_predictions(names)))
    assert list(made.data[0].x) == ["n02102040 English s…", "cat", "&lt;b&gt;"]
    alike = ("n02102040 English springer", "n02102040 English setter")
    assert list(confusion_matrix(find_mistakes(make_predictions(alike))).data[0].x) == list(alike)
