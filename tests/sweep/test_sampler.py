from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from tune_cifar.sweep.sampler import PRIOR, ModelSampler, SweepSampler, _shallow, clipped, is_much_to_know
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.space import SearchSpace

SMALL = "metric: {name: x}\nparameters: {a: {values: [1, 2, 3]}, b: {values: [x, y]}, c: {min: 1, max: 4}}\n"
ROUNDED = """metric: {name: x}
parameters:
  steps: {distribution: q_log_uniform_values, min: 10, max: 100, q: 10}
  word: {values: [a, b], probabilities: [0.95, 0.05]}
"""
LINE = "metric: {name: x}\nparameters: {lr: {min: 0.0, max: 1.0}}\n"

Space = Callable[[str], SearchSpace]


@pytest.fixture
def space(read_sweep: Callable[..., SweepConfig]) -> Space:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return lambda text: SearchSpace(read_sweep(text))


def ask(study: optuna.Study, space: SearchSpace) -> optuna.Trial:
    return study.ask(fixed_distributions=space.distributions)


@pytest.mark.parametrize(
    ("direction", "values", "expected"),
    [
        ("MINIMIZE", [1.0, 2.0, 3.0, 90.0, 1e30], [1.0, 2.0, 3.0, 5.0, 5.0]),
        ("MAXIMIZE", [0.1, 0.7, 0.8, 0.9, -1e30], [0.5, 0.7, 0.8, 0.9, 0.5]),
        ("MINIMIZE", [2.0], [2.0]),
        ("MINIMIZE", [2.0, 5.0], [2.0, 5.0]),
        ("MINIMIZE", [], []),
    ],
)
def test_bad_values_are_clipped_as_far_from_the_median_as_the_best(
    direction: str, values: list[float], expected: list[float]
) -> None:
    assert clipped(values, StudyDirection[direction]) == pytest.approx(expected)


def test_the_largest_seed_of_a_trial_is_one_of_the_model_too(space: Space) -> None:
    line = space(f"method: bayes\n{LINE}")
    study = optuna.create_study(sampler=ModelSampler(line, 2**63 - 1))
    for value in (0.5, 0.4):
        study.tell(ask(study, line), value)
    assert 0 <= ask(study, line).params["lr"] <= 1


def test_a_diverged_trial_does_not_hide_the_valley_from_the_model(space: Space) -> None:
    """Around the best point losses differ by hundredths; told 1e6 of another one, a plain model sees them as equal."""
    line = space(f"method: bayes\n{LINE}")
    found = {}
    for sampler in (ModelSampler(line, 0), optuna.samplers.GPSampler(seed=0, n_startup_trials=1)):
        study = optuna.create_study(sampler=sampler)
        for lr, loss in [(0.0, 0.1), (0.1, 0.05), (0.4, 0.08), (0.6, 0.11), (1.0, 1e6)]:
            point = {"lr": lr}
            study.add_trial(create_trial(params=point, distributions=line.distributions, value=loss))
        found[type(sampler)] = ask(study, line).params["lr"]
    assert 0.1 < found[ModelSampler] < 0.4
    assert not 0.1 < found[optuna.samplers.GPSampler] < 0.4


def test_the_model_computes_on_one_thread(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_on: list[int] = []
    sampler = ModelSampler(space(f"method: bayes\n{LINE}"), 0)
    sample = sampler.model.sample_relative

    def sample_and_note(*arguments: Any) -> dict[str, Any]:
        asked_on.append(torch.get_num_threads())
        return sample(*arguments)

    monkeypatch.setattr(sampler.model, "sample_relative", sample_and_note)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        ask(optuna.create_study(sampler=sampler), sampler.space)
        assert (asked_on, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_with_hundreds_of_running_trials_the_quick_model_proposes_where_none_of_them_is(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses say that 0.3 is best; the proposals cluster there and are all different."""
    line = space(f"method: bayes\n{LINE}")
    sampler = ModelSampler(line, 0)
    monkeypatch.setattr(sampler, "model", None)  # the Gaussian process is not asked
    study = optuna.create_study(sampler=sampler)
    for number in range(200):
        lr = (number + 0.5) / 200
        study.add_trial(create_trial(params={"lr": lr}, distributions=line.distributions, value=abs(lr - 0.3)))
    rates = [ask(study, line).params["lr"] for _ in range(101)]  # none of them is told
    assert len(set(rates)) == len(rates)
    monkeypatch.undo()
    near = [abs(ask(study, line).params["lr"] - 0.3) for _ in range(20)]
    assert statistics.median(near) < 0.1  # by chance it would be 0.25


@pytest.mark.parametrize(
    ("num_completed", "num_running", "quick"),
    [(0, 0, False), (600, 0, False), (601, 0, True), (200, 64, False), (200, 101, True), (0, 150, False)],
)
def test_what_a_gaussian_process_would_take_a_second_for(num_completed: int, num_running: int, quick: bool) -> None:
    assert is_much_to_know(num_completed, num_running) is quick


def test_told_trials_are_not_copied_deeply(space: Space) -> None:
    """Optuna's storage copies what it is given; these trials are made for one question and nobody changes them."""
    line = space(f"method: bayes\n{LINE}")
    trial = _shallow(create_trial(params={"lr": 0.5}, distributions=line.distributions, value=1.0))
    study = optuna.create_study()
    study.add_trial(trial)
    (kept,) = study.get_trials(deepcopy=False)
    assert (kept.params, kept.value, kept.state) == ({"lr": 0.5}, 1.0, TrialState.COMPLETE)
    assert kept.params is trial.params


@pytest.mark.parametrize("method", ["bayes", "random"])
@pytest.mark.parametrize(("text", "num_settings"), [(SMALL, 24), (ROUNDED, 20)])
def test_every_setting_comes_once_before_one_comes_again(
    space: Space, method: str, text: str, num_settings: int
) -> None:
    small = space(f"method: {method}\n{text}")
    study = optuna.create_study(sampler=(ModelSampler if method == "bayes" else SweepSampler)(small, 3))
    trials = []
    for number in range(num_settings + 2):
        trials.append(ask(study, small))
        if number % 5 == 4:  # pending, finished and failed trials all count
            study.tell(trials[number - 1], state=TrialState.FAIL)
            study.tell(trials[number - 2], float(number))
    configs = [str(small.decode(trial.params)) for trial in trials]
    assert len(set(configs[:num_settings])) == num_settings == len(set(configs))


def test_instead_of_a_point_at_the_border_its_neighbour_is_tried(space: Space) -> None:
    """The loss falls up to the border, which the model proposes again and again."""
    line = space(f"method: bayes\n{LINE}")
    study = optuna.create_study(sampler=ModelSampler(line, 0))
    for _ in range(12):
        trial = ask(study, line)
        study.tell(trial, -trial.params["lr"])
    tried = [trial.params["lr"] for trial in study.trials]
    assert max(Counter(tried).values()) == 1
    assert sum(lr > 0.9 for lr in tried) >= 6


def test_a_point_of_an_earlier_search_may_be_tried(space: Space) -> None:
    one = space("method: bayes\nmetric: {name: x}\nparameters: {a: {values: [1, 2]}}\n")
    points: list[dict[str, Any]] = [{"a": 0}, {"a": 1}]
    study = optuna.create_study(sampler=ModelSampler(one, 0))
    for point, loss in zip(points, (1.0, 2.0), strict=True):
        prior = create_trial(params=point, distributions=one.distributions, value=loss, user_attrs={PRIOR: True})
        study.add_trial(prior)
    assert [ask(study, one).params["a"] for _ in range(2)] in ([0, 1], [1, 0])


def test_a_planned_point_is_taken_as_it_is(space: Space) -> None:
    line = space(f"method: random\n{LINE}")
    study = optuna.create_study(sampler=SweepSampler(line, 0))
    study.enqueue_trial({"lr": 0.25})
    study.enqueue_trial({"lr": 0.25})
    assert [ask(study, line).params["lr"] for _ in range(2)] == [0.25, 0.25]


def test_random_draws_are_the_same_for_a_seed(space: Space) -> None:
    line = space(f"method: random\n{LINE}")
    draws = [
        [ask(study, line).params["lr"] for _ in range(4)]
        for study in (optuna.create_study(sampler=SweepSampler(line, seed)) for seed in (1, 1, 2))
    ]
    assert draws[0] == draws[1] != draws[2]
