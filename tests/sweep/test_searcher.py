# ruff: noqa: E501 - the tables have a row a line

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from tune_cifar.errors import UserError
from tune_cifar.sweep.sampler import ModelSampler, SweepSampler
from tune_cifar.sweep.schema import Metric, SweepConfig
from tune_cifar.sweep.searcher import SearchPlan, imputed_value, plan_search
from tune_cifar.sweep.space import SearchSpace

TUTORIAL = """method: bayes
metric: {name: val_loss, goal: minimize}
parameters:
  batch_size: {values: [32, 128]}
  epochs: {value: 5}
  lr: {min: 1e-4, max: 1e-2}
  model: {values: [ResNet18, ResNet34]}
run_cap: 10
"""
MIXED = """method: bayes
metric: {name: val_loss}
parameters:
  int: {min: 1, max: 9}
  normal: {distribution: normal}
  steps: {distribution: q_log_uniform_values, min: 1, max: 100, q: 3}
  one: {values: [7]}
  one_step: {distribution: q_uniform, min: 1, max: 2, q: 10}
  number: {values: [16, 32, 64]}
  word: {values: [a, b, c], probabilities: [0.9, 0, 0.1]}
"""

Plan = Callable[..., tuple[SweepConfig, SearchSpace, SearchPlan]]


@pytest.fixture
def plan(read_sweep: Callable[..., SweepConfig]) -> Plan:
    def plan(
        text: str, num_trials: int | None = None, seed: int = 1, trials_at_once: int = 1
    ) -> tuple[SweepConfig, SearchSpace, SearchPlan]:
        config = read_sweep(text)
        space = SearchSpace(config)
        search = plan_search(config, space, num_trials=num_trials, seed=seed, trials_at_once=trials_at_once)
        return config, space, search

    return plan


def run_search(
    space: SearchSpace, search: SearchPlan, trials_at_once: int, loss: Callable[[dict[str, Any]], float]
) -> list[optuna.trial.FrozenTrial]:
    """The search as a runner does it: `trials_at_once` are asked for before the oldest one is told."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=search.sampler, direction="minimize")
    for point in search.start_points:
        study.enqueue_trial(point)
    running: list[optuna.Trial] = []
    for number in range(search.num_trials + trials_at_once):
        if number < search.num_trials:
            running.append(study.ask(fixed_distributions=space.distributions))
        if number + 1 >= trials_at_once and running:
            trial = running.pop(0)
            study.tell(trial, loss(space.decode(trial.params)))
    return study.trials


@pytest.mark.parametrize(("text", "trials_at_once"), [(TUTORIAL, 1), (TUTORIAL, 4), (MIXED, 3)])
def test_bayes_starts_spread_and_goes_on_by_gaussian_process(
    plan: Plan, text: str, trials_at_once: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, space, search = plan(text, trials_at_once=trials_at_once)
    sampler = search.sampler
    assert isinstance(sampler, ModelSampler)
    propose, proposed = sampler.propose, []
    monkeypatch.setattr(
        sampler, "propose", lambda study, trial: (proposed.append(trial.number), propose(study, trial))[1]
    )
    with caplog.at_level(logging.INFO):
        trials = run_search(space, search, trials_at_once, lambda values: abs(values.get("lr", 0.0) - 0.004) * 100)
    assert [record.message for record in caplog.records if record.name.startswith("optuna._gp")] == []
    num_start = len(search.start_points)
    assert proposed == list(range(num_start, 10))
    for trial in trials:
        decoded = space.decode(trial.params)
        assert all(p.distribution.contains(decoded[p.name]) for p in config.parameters)


def test_bayes_finds_a_narrow_valley_that_chance_misses(plan: Plan) -> None:
    def loss(values: dict[str, Any]) -> float:
        return math.log10(values["lr"] / 0.02) ** 2 + (values["batch_size"] == 128) * 0.5

    space_of = (
        "parameters: {lr: {distribution: log_uniform_values, min: 1e-5, max: 1}, batch_size: {values: [32, 128]}}\n"
    )
    best = {"bayes": [], "random": []}
    for method, losses in best.items():
        for seed in range(3):
            _, space, search = plan(f"method: {method}\nmetric: {{name: x}}\n{space_of}", 10, seed)
            losses.append(min(trial.value for trial in run_search(space, search, 1, loss)))
    assert sorted(best["bayes"])[1] < 0.01 < sorted(best["random"])[1]


def test_start_points_are_different_spread_and_the_same_for_a_seed(plan: Plan) -> None:
    _, space, search = plan(TUTORIAL)
    again, other = (plan(TUTORIAL, seed=seed)[2].start_points for seed in (1, 2))
    assert search.start_points == again != other
    assert len(search.start_points) == 5
    decoded = [space.decode(point) for point in search.start_points[:4]]
    assert sorted(int((values["lr"] - 1e-4) / (1e-2 - 1e-4) * 4) for values in decoded) == [0, 1, 2, 3]
    assert Counter(values["batch_size"] for values in decoded) == {32: 2, 128: 2}


@pytest.mark.parametrize(
    ("num_trials", "trials_at_once", "num_start"),
    [(10, 1, 5), (10, 8, 8), (10, 64, 10), (6, 1, 3), (4, 1, 2), (3, 1, 2), (2, 1, 2), (1, 1, 1), (100, 1, 7), (100, 16, 16)],
)  # fmt: skip
def test_start_points_leave_trials_to_the_model(
    plan: Plan, num_trials: int, trials_at_once: int, num_start: int
) -> None:
    assert len(plan(TUTORIAL, num_trials, trials_at_once=trials_at_once)[2].start_points) == num_start


def test_start_points_of_a_small_space_are_all_of_it_at_most(plan: Plan) -> None:
    _, _, search = plan(
        "method: bayes\nmetric: {name: x}\nparameters: {a: {values: [1, 2]}, b: {values: [3]}}\n", 50, trials_at_once=8
    )
    assert sorted(point["a"] for point in search.start_points) == [0, 1]
    assert search.reason == (
        "50 trials: 2 spread evenly, then by Gaussian process (--count); "
        "the file allows only 2 different trials, so some repeat"
    )


def test_random_draws_from_the_stated_distributions(plan: Plan) -> None:
    _, space, search = plan(MIXED.replace("bayes", "random"), 400)
    assert type(search.sampler) is SweepSampler
    assert search.start_points == []
    decoded = [space.decode(trial.params) for trial in run_search(space, search, 2, lambda values: 0.0)]
    words = Counter(values["word"] for values in decoded)
    assert set(words) == {"a", "c"}
    assert 340 <= words["a"] <= 380  # 360 expected, sigma 6
    assert abs(sum(values["normal"] for values in decoded)) < 60  # sigma 20
    assert {values["int"] for values in decoded} == set(range(1, 10))


@pytest.mark.parametrize(
    ("text", "num_trials", "planned", "reason"),
    [
        (TUTORIAL, None, 10, "10 trials: 5 spread evenly, then by Gaussian process (the file's run_cap)"),
        (TUTORIAL, 12, 12, "12 trials: 6 spread evenly, then by Gaussian process (--count instead of the file's run_cap 10)"),
        (TUTORIAL, 700, 700, "700 trials: 7 spread evenly, then by Gaussian process, by Parzen estimators (TPE) once that would be "
         "slow (--count instead of the file's run_cap 10)"),
        ("method: random\nparameters: {a: {min: 0.0, max: 1}}", None, 10, "10 trials, at random (the default; the file has no run_cap)"),
        ("method: random\nparameters: {a: {min: 0.0, max: 1}}", 1, 1, "1 trial, at random (--count)"),
        ("method: random\nparameters: {a: {value: 1}}", None, 1, "1 trial, at random (the file has no free parameter)"),
        ("method: bayes\nmetric: {name: x}\nparameters: {a: {value: 1}}", 3, 3,
         "3 trials, at random (--count); the file allows only 1 different trial, so some repeat"),
        ("method: grid\nparameters: {a: {min: 1, max: 5}}", None, 5, "5 trials, by grid (the whole grid)"),
        ("method: grid\nparameters: {a: {min: 1, max: 5}}\nrun_cap: 3", None, 3, "3 trials, by grid (the file's run_cap, of a grid of 5)"),
        ("method: grid\nparameters: {a: {min: 1, max: 5}}\nrun_cap: 3", 4, 4,
         "4 trials, by grid (--count instead of the file's run_cap 3, of a grid of 5)"),
        ("method: grid\nparameters: {a: {min: 1, max: 5}}", 9, 5, "5 trials, by grid (the whole grid; --count allows 9)"),
        ("method: grid\nparameters: {a: {value: 5}}", None, 1, "1 trial, by grid (the whole grid)"),
    ],
)  # fmt: skip
def test_counts_the_trials_and_says_why(
    plan: Plan, text: str, num_trials: int | None, planned: int, reason: str
) -> None:
    config, space, search = plan(text, num_trials)
    assert (search.num_trials, search.reason) == (planned, reason)
    if config.method != "bayes":  # the other tests run those
        assert len(run_search(space, search, 1, lambda values: 1.0)) == planned


def test_a_grid_is_planned_as_a_whole(plan: Plan) -> None:
    _, space, search = plan("method: grid\nparameters: {b: {values: [x, y]}, a: {min: 1, max: 2}}\nrun_cap: 3")
    decoded = [space.decode(trial.params) for trial in run_search(space, search, 2, lambda values: 1.0)]
    assert decoded == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}]


def test_refuses_a_grid_that_nobody_can_run(plan: Plan) -> None:
    text = "method: grid\nparameters: {a: {min: 1, max: 1000}, b: {min: 1, max: 1000}}"
    with pytest.raises(
        UserError, match=r"the grid has 1,000,000 points, too many to train\. Give `run_cap` or --count"
    ):
        plan(text)
    assert plan(text, 5)[2].num_trials == 5


@pytest.mark.parametrize("num_trials", [0, -3])
def test_refuses_a_count_below_one(plan: Plan, num_trials: int) -> None:
    for text in (TUTORIAL, "method: grid\nparameters: {a: {value: 1}}"):
        with pytest.raises(UserError, match=f"--count must be 1 or more, got {num_trials}"):
            plan(text, num_trials)


@pytest.mark.parametrize(
    ("impute", "goal", "history", "others", "value"),
    [
        ("worst", "minimize", [3.0, 1.0], [[2.0, 5.0], [4.0]], 5.0),
        ("worst", "maximize", [3.0, 1.0], [[2.0, 5.0], [4.0]], 1.0),
        ("worst", "minimize", [9.0], [], 9.0),
        ("best", "minimize", [3.0, 1.0, 2.0], [[0.5]], 1.0),
        ("best", "maximize", [3.0, 1.0, 2.0], [[9.0]], 3.0),
        ("latest", "minimize", [3.0, 1.0, 2.0], [[9.0]], 2.0),
        ("latest", "minimize", [3.0, math.nan], [], 3.0),
        ("worst", "minimize", [math.inf], [[math.nan, 2.0]], 2.0),
        ("best", "minimize", [], [[2.0, 5.0]], 5.0),
        ("latest", "maximize", [math.nan], [[2.0, 5.0]], 2.0),
        ("worst", "minimize", [], [], None),
        ("best", "minimize", [], [[math.nan]], None),
    ],
)
def test_a_failed_trial_counts_as_the_file_says(
    impute: Any, goal: Any, history: list[float], others: list[list[float]], value: float | None
) -> None:
    assert imputed_value(Metric(goal=goal, impute=impute), history, others) == value
