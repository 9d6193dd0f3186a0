from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.searcher import PriorTrial, plan_search
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

SWEEP = """
method: {method}
metric: {{name: {metric}, goal: {goal}}}
parameters:
  lr: {{min: 0.001, max: 0.1}}
  optimizer: {{parameters: {{momentum: {{values: [0.0, 0.9]}}}}}}
  epochs: {{value: 3}}
"""


@pytest.fixture
def make_search(tmp_path: Path) -> Any:
    def make(
        text: str | None = None,
        method: str = "bayes",
        metric: str = "val_loss",
        goal: str = "minimize",
        seed: int = 1,
        prior_trials: tuple[PriorTrial, ...] = (),
    ) -> SweepSearch:
        path = tmp_path / "sweep.yaml"
        path.write_text(text or SWEEP.format(method=method, metric=metric, goal=goal))
        config = load_sweep(path, check_parameter, EPOCH_METRICS)
        space = SearchSpace(config)
        plan = plan_search(config, space, num_trials=8, seed=seed, trials_at_once=2, prior_trials=prior_trials)
        return SweepSearch(space, plan, config.metric)

    return make


def _study_trials(search: SweepSearch) -> list[FrozenTrial]:
    """The trials asked for so far; start points that nobody has asked for yet are waiting in the study."""
    return [trial for trial in search._ot_study.trials if trial.state != TrialState.WAITING]


def _report(search: SweepSearch, trial_id: str, values: list[float], metric: str = "val_loss") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for epoch, value in enumerate(values, start=1):
        result = {"epoch": epoch, "training_iteration": epoch, metric: value, "status": "running"}
        search.on_trial_result(trial_id, result)
    return {**result, "status": "finished"}


def test_suggestions_are_the_files_values_nested_as_in_the_file(make_search: Any) -> None:
    search = make_search()
    for number in range(6):
        config = search.suggest(f"t{number}")
        assert set(config) == {"lr", "optimizer", "epochs"}
        assert config["epochs"] == 3
        assert 0.001 <= config["lr"] <= 0.1
        assert config["optimizer"]["momentum"] in (0.0, 0.9)
        search.on_trial_complete(f"t{number}", _report(search, f"t{number}", [1.0 + number]))


def test_asking_again_for_a_trial_gives_the_same_config(make_search: Any) -> None:
    search = make_search()
    assert search.suggest("t") == search.suggest("t")


@pytest.mark.parametrize(
    ("goal", "metric", "expected"), [("minimize", "val_loss", 0.3), ("maximize", "val_accuracy", 0.8)]
)
def test_the_best_of_the_history_counts_and_not_the_last(
    make_search: Any, goal: str, metric: str, expected: float
) -> None:
    search = make_search(metric=metric, goal=goal)
    search.suggest("t")
    search.on_trial_complete("t", _report(search, "t", [0.5, 0.3, 0.8, 0.6], metric))
    assert _study_trials(search)[0].value == expected


def test_an_epoch_that_is_run_again_replaces_its_first_value(make_search: Any) -> None:
    search = make_search()
    search.suggest("t")
    _report(search, "t", [0.5, 0.1])
    search.on_trial_complete("t", _report(search, "t", [0.5, 0.4]))
    assert _study_trials(search)[0].value == 0.4


def _values_of_the_model(search: SweepSearch) -> list[float | None]:
    return [trial.value for trial in _study_trials(search) if trial.state == TrialState.COMPLETE]


@pytest.mark.parametrize("end", ["error", "nan", "nothing"])
def test_a_trial_that_ends_without_a_value_is_not_left_pending(make_search: Any, end: str) -> None:
    search = make_search()
    search.suggest("t")
    if end == "error":
        search.on_trial_complete("t", error=True)
    else:
        result = {"epoch": 1, "val_loss": math.nan, "status": "finished"} if end == "nan" else None
        search.on_trial_complete("t", result)
    assert [trial.state for trial in _study_trials(search)] == [TrialState.FAIL]


DIVERGED = {"epoch": 1, "val_loss": math.nan, "status": "diverged"}


@pytest.mark.parametrize(("goal", "worst"), [("minimize", 0.9), ("maximize", 0.2)])
@pytest.mark.parametrize("failed", [True, False])
def test_a_failed_or_diverged_trial_counts_as_the_worst_value_seen(
    make_search: Any, goal: str, worst: float, failed: bool
) -> None:
    search = make_search(goal=goal)
    for trial_id, values in {"a": [0.9, 0.5], "b": [0.2, 0.4]}.items():
        search.suggest(trial_id)
        search.on_trial_complete(trial_id, _report(search, trial_id, values))
    config = search.suggest("c")
    if failed:
        search.on_trial_complete("c", error=True)
    else:
        search.on_trial_complete("c", DIVERGED)
    last = _study_trials(search)[-1]
    assert (last.state, last.value) == (TrialState.COMPLETE, worst)
    assert last.params["lr"] == config["lr"]


def test_impute_best_gives_a_diverged_trial_its_own_best_value(make_search: Any) -> None:
    search = make_search(SWEEP.format(method="bayes", metric="val_loss, impute: best", goal="minimize"))
    search.suggest("a")
    search.on_trial_complete("a", _report(search, "a", [0.1]))
    search.suggest("b")
    _report(search, "b", [0.6, 0.7])
    search.on_trial_complete("b", {**DIVERGED, "epoch": 3})
    assert _values_of_the_model(search) == [0.1, 0.6]


def test_diverged_trials_wait_for_the_first_value_to_be_ranked_against(make_search: Any) -> None:
    search = make_search()
    search.suggest("a")
    search.on_trial_complete("a", DIVERGED)
    assert _values_of_the_model(search) == []
    search.suggest("b")
    search.on_trial_complete("b", _report(search, "b", [2.0, 1.5]))
    assert sorted(_values_of_the_model(search)) == [1.5, 2.0]


def test_a_trial_stopped_early_counts_with_its_best_value(make_search: Any) -> None:
    search = make_search()
    search.suggest("t")
    search.on_trial_complete("t", {**_report(search, "t", [0.7, 0.4, 0.5]), "status": "running"})
    assert _values_of_the_model(search) == [0.4]


@pytest.mark.parametrize(("value", "over"), [(0.3, True), (0.30001, False)])
def test_nothing_is_suggested_once_the_target_is_reached(make_search: Any, value: float, over: bool) -> None:
    search = make_search(SWEEP.format(method="bayes", metric="val_loss, target: 0.3", goal="minimize"))
    search.suggest("t")
    search.on_trial_result("t", {"epoch": 1, "val_loss": value, "status": "running"})
    assert (search.suggest("u") == Searcher.FINISHED) is over


def test_a_space_of_constants_can_be_searched(make_search: Any) -> None:
    search = make_search("method: bayes\nmetric: {name: val_loss}\nparameters: {lr: {value: 0.1}}\n")
    assert search.suggest("t") == {"lr": 0.1}
    search.on_trial_complete("t", _report(search, "t", [1.0]))
    assert _study_trials(search)[0].state == TrialState.COMPLETE


def test_a_saved_search_goes_on_with_what_it_knew(make_search: Any, tmp_path: Path) -> None:
    search, restored = make_search(), make_search()
    for number in range(5):
        search.suggest(f"t{number}")
        search.on_trial_complete(f"t{number}", _report(search, f"t{number}", [float(number)]))
    search.suggest("open")
    _report(search, "open", [0.7])
    search.save(str(tmp_path / "state"))
    restored.restore(str(tmp_path / "state"))
    assert restored.suggest("open") == search.suggest("open")
    restored.on_trial_complete("open", {"epoch": 2, "val_loss": 0.9, "status": "finished"})
    assert [trial.value for trial in _study_trials(restored)] == [0, 1, 2, 3, 4, 0.7]
    search.on_trial_complete("open", {"epoch": 2, "val_loss": 0.9, "status": "finished"})
    assert restored.suggest("next") == search.suggest("next")


def test_the_model_finds_a_better_region_than_its_start_points(make_search: Any) -> None:
    """A smooth bowl in lr: after the start points the suggestions gather at its bottom."""
    search = make_search()
    distances = []
    for number in range(8):
        config = search.suggest(f"t{number}")
        distance = abs(config["lr"] - 0.07)
        distances.append(distance)
        search.on_trial_complete(f"t{number}", _report(search, f"t{number}", [distance**2 * 1000]))
    assert min(distances[4:]) < min(distances[:4])
    assert min(distances) < 0.005


def test_prior_trials_are_known_from_the_start_and_once(make_search: Any, tmp_path: Path) -> None:
    points = [{"lr": 0.01, "optimizer/momentum": 0}, {"lr": 0.05, "optimizer/momentum": 1}]
    prior = tuple(PriorTrial(point, value) for point, value in zip(points, (0.0, 5.0), strict=True))
    text = SWEEP.format(method="bayes", metric="val_loss, target: 0.1", goal="minimize")
    search = make_search(text, prior_trials=prior)
    assert [(trial.params, trial.value) for trial in _study_trials(search)] == [(points[0], 0.0), (points[1], 5.0)]
    assert search.suggest("t") != Searcher.FINISHED  # it is not this search that reached the target
    search.on_trial_complete("t", _report(search, "t", [0.5]))
    search.save(str(tmp_path / "state"))
    resumed = make_search(text, prior_trials=prior)
    resumed.restore(str(tmp_path / "state"))
    assert sorted(_values_of_the_model(resumed)) == [0.0, 0.5, 5.0]


def test_a_prior_draws_the_model_to_where_it_was_good(make_search: Any) -> None:
    """A bowl around 0.07, known from eight trials: the first suggestion is near its bottom."""
    rates = (0.005, 0.02, 0.035, 0.05, 0.06, 0.075, 0.085, 0.095)
    prior = tuple(PriorTrial({"lr": lr, "optimizer/momentum": 0}, (lr - 0.07) ** 2 * 1000) for lr in rates)
    assert abs(make_search(prior_trials=prior).suggest("t")["lr"] - 0.07) < 0.01


def test_tune_cannot_set_another_space(make_search: Any) -> None:
    assert make_search().set_search_properties("x", "max", {"lr": 1}) is False
