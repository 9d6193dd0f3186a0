from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tune_cifar.finalists import Finalist
from tune_cifar.report.lessons import edges_in_words, importance_in_words, lead_in_words, lessons
from tune_cifar.results import TrialRecord
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.parameters import Parameter
from tune_cifar.sweep.schema import Metric, SweepConfig

METRIC = Metric("val_loss")


def trial(number: int, value: float, lr: float = 0.1, repeat_of: int | None = None, **config: Any) -> TrialRecord:
    row = {"epoch": 1, "val_loss": value, "logged": [value]}
    return TrialRecord(number, f"t{number}", {"lr": lr, **config}, "finished", [row], repeat_of=repeat_of)


def parameters_of(folder: Path, text: str) -> tuple[Parameter, ...]:
    path = folder / "sweep.yaml"
    path.write_text(f"method: random\n{text}")
    return load_sweep(path, lambda name, value: None).parameters


def finalist(number: int, values: Sequence[float]) -> Finalist:
    runs = [trial(number * 10 + index, value) for index, value in enumerate(values)]
    return Finalist((trial(number, values[0]), *runs[1:]), tuple(values))


def test_one_trial_is_ahead_of_nothing() -> None:
    assert lead_in_words([trial(1, 0.5)], [], METRIC) == ""


def test_without_repeats_luck_is_not_known() -> None:
    trials = [trial(1, 0.9, 0.1), trial(2, 0.8393, 0.2), trial(3, 0.8528, 0.3)]
    assert lead_in_words(trials, [], METRIC) == (
        "trial 2 is 0.0135 ahead of the next best, trial 3; what of it is luck of the seed is not known "
        "(--repeat-best 3 tells)"
    )


def test_the_same_configuration_again_is_not_the_next_best() -> None:
    trials = [trial(1, 0.5, 0.1), trial(2, 0.51, 0.1), trial(3, 0.7, 0.2)]
    assert "0.2000 ahead of the next best, trial 3" in lead_in_words(trials, [], METRIC)


@pytest.mark.parametrize(
    ("second", "verdict"),
    [((0.9, 0.8, 1.0), "more than luck of the seeds"), ((0.5, 0.6, 0.7), "no more than luck of the seeds may be")],
)
def test_a_lead_over_seeds_is_weighed_against_its_standard_error(second: tuple[float, ...], verdict: str) -> None:
    words = lead_in_words([], [finalist(1, (0.4, 0.5, 0.6)), finalist(2, second)], METRIC)
    lead = sum(second) / 3 - 0.5
    assert words == (
        f"trial 1's mean is {lead:.4f} ahead of the next best, trial 2's; {verdict} (its standard error is 0.0816)"
    )


def test_a_single_finalist_gives_the_noise_for_the_lead() -> None:
    trials = [trial(1, 0.5, 0.1), trial(2, 0.6, 0.2)]
    assert lead_in_words(trials, [finalist(1, (0.4, 0.5, 0.6))], METRIC) == (
        "trial 1 is 0.1000 ahead of the next best, trial 2; runs that differ in the seed alone differ by about 0.1000"
    )


@pytest.mark.parametrize(
    ("value", "end"),
    [(0.0098, "upper"), (0.0001, "lower"), (0.005, None), (0.00105, None)],  # below 0.00105 are 10% of the range
)
def test_a_best_value_at_an_end_of_its_range_is_pointed_out(tmp_path: Path, value: float, end: str | None) -> None:
    lines = edges_in_words(trial(1, 0.5, value), parameters_of(tmp_path, "parameters: {lr: {min: 1e-4, max: 1e-2}}\n"))
    assert lines == (
        [
            f"the best lr, {value}, is at the {end} end of its range (0.0001 to 0.01): a better one may lie beyond it; "
            f"widen lr.{'max' if end == 'upper' else 'min'}"
        ]
        if end
        else []
    )


def test_ranges_are_seen_on_the_scale_of_the_file(tmp_path: Path) -> None:
    parameters = parameters_of(
        tmp_path,
        "parameters:\n"
        "  optimizer:\n"
        "    parameters:\n"
        "      lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-1}\n"
        "  batch_size: {distribution: q_uniform, min: 32, max: 128, q: 32}\n"
        "  epochs: {min: 1, max: 3}\n"
        "  model: {values: [ResNet18, ResNet34]}\n"
        "  momentum: {distribution: normal, mu: 0.5, sigma: 0.01}\n",
    )
    best = trial(1, 0.5)
    best.config = {"optimizer": {"lr": 0.001}, "batch_size": 128, "epochs": 3, "model": "ResNet18", "momentum": 0.9}
    assert [line.partition(",")[0] for line in edges_in_words(best, parameters)] == [
        "the best batch_size",
        "the best epochs",
    ]
    best.config["optimizer"]["lr"] = 0.00011  # 1.4% of the way up on the logarithmic scale
    assert "widen optimizer.lr.min" in edges_in_words(best, parameters)[0]


def searched(folder: Path, num_trials: int, value_of: Any) -> tuple[SweepConfig, list[TrialRecord]]:
    text = "method: random\nparameters: {lr: {min: 0.0, max: 1.0}, model: {values: [a, b]}}\n"
    path = folder / "sweep.yaml"
    path.write_text(text)
    config = load_sweep(path, lambda name, value: None)
    settings = [((7 * number % 20) / 20, "ab"[number % 2]) for number in range(num_trials)]
    return config, [trial(n, value_of(lr, model), lr, model=model) for n, (lr, model) in enumerate(settings, start=1)]


def test_the_parameter_that_mattered_is_named(tmp_path: Path) -> None:
    config, trials = searched(tmp_path, 20, lambda lr, model: abs(lr - 0.3) + 0.001 * (model == "b"))
    words = importance_in_words(config, trials)
    assert words.startswith("lr (9")
    assert "mattered most for val_loss in a random forest's eyes, then model (" in words


def test_trials_without_a_pattern_name_none(tmp_path: Path) -> None:
    noise = Random(0)
    config, trials = searched(tmp_path, 12, lambda lr, model: noise.random())
    assert importance_in_words(config, trials) == "12 trials do not tell which parameter mattered most"
    assert importance_in_words(*searched(tmp_path, 3, lambda lr, model: lr)) == ""


def test_lessons_are_lead_importance_and_edges(tmp_path: Path) -> None:
    config, trials = searched(tmp_path, 20, lambda lr, model: 1 - lr)
    best = max(trials, key=lambda trial: trial.config["lr"])
    lines = lessons(config, trials, [], best)
    assert [line.split()[0] for line in lines] == ["trial", "lr", "the"]
    assert lessons(config, trials, [], None) == []
