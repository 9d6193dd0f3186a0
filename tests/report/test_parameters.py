from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_cifar.report.parameter_figures import MAX_LINES, parallel_coordinates
from tune_cifar.report.parameters import SearchedParameter, searched_parameters
from tune_cifar.report.words import log_ticks, show_seconds
from tune_cifar.results import TrialRecord
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

SWEEP = """
method: random
metric: {name: val_accuracy, goal: maximize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.001, max: 0.1}
  momentum: {min: 0.5, max: 0.9}
  batch_size: {values: [16, 64, 128]}
  more: {parameters: {augment: {values: [flip_crop, none]}, nesterov: {values: [true, false]}}}
  epochs: {value: 1}
"""


def _load(folder: Path, text: str = SWEEP) -> SweepConfig:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return load_sweep(path, check_parameter, EPOCH_METRICS)


def _trial(number: int, accuracy: float, **config: Any) -> TrialRecord:
    rows = [{"epoch": 1, "val_accuracy": accuracy, "logged": [accuracy]}]
    more = {"augment": "none", "nesterov": True}
    values = {"lr": 0.01, "momentum": 0.7, "batch_size": 64, "more": more, "epochs": 1, **config}
    return TrialRecord(number, f"t{number}", values, "finished", rows)


def _by_name(config: SweepConfig, trials: list[TrialRecord]) -> dict[str, SearchedParameter]:
    return {parameter.name: parameter for parameter in searched_parameters(config, trials)}


def test_numbers_stay_numbers_and_categories_keep_the_files_order(tmp_path: Path) -> None:
    found = _by_name(_load(tmp_path), [_trial(1, 0.5), _trial(2, 0.6, batch_size=128, lr=0.1)])
    assert list(found) == ["lr", "momentum", "batch_size", "more.augment", "more.nesterov"]
    assert found["batch_size"].numbers == [64, 128]
    assert found["batch_size"].listed == (16, 64, 128)
    assert found["lr"].listed == ()
    assert found["more.augment"].categories == ("flip_crop", "none")
    assert found["more.augment"].numbers == [1, 1]
    assert found["more.nesterov"].categories == (True, False)
    assert [name for name, one in found.items() if one.log] == ["lr", "batch_size"]
    assert [name for name, one in found.items() if one.varies] == ["lr", "batch_size"]
    assert found["more.augment"].indicators() == {"augment = flip_crop": [0, 0], "augment = none": [1, 1]}


def test_the_best_trial_is_drawn_last_and_strongest(tmp_path: Path) -> None:
    trials = [_trial(1, 0.9, lr=0.1), _trial(2, 0.2, lr=0.001), _trial(3, 0.5, lr=0.0099)]
    made = parallel_coordinates(_load(tmp_path), trials)
    assert made is not None
    (trace,) = made.data
    assert list(trace.customdata) == [2, 3, 1]
    assert list(trace.line.color) == [0, 1, 2]
    lr, momentum, batch_size, augment, _, accuracy = trace.dimensions
    assert list(lr["values"]) == pytest.approx([-3, -2, -1], abs=0.01)
    assert list(lr.ticktext) == ["", *["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"], ""]
    assert momentum.ticktext is None
    assert list(batch_size.ticktext) == ["", "16", "64", "128", ""]
    assert list(augment.ticktext) == ["", "flip_crop", "none", ""]
    assert list(accuracy["values"]) == [0.2, 0.5, 0.9]


def test_of_thousands_of_trials_the_best_lines_are_drawn(tmp_path: Path) -> None:
    trials = [_trial(number, 1 / number) for number in range(1, MAX_LINES + 11)]
    made = parallel_coordinates(_load(tmp_path), trials)
    assert made is not None
    assert list(made.data[0].customdata) == list(range(MAX_LINES, 0, -1))


def test_nothing_is_drawn_of_a_single_trial(tmp_path: Path) -> None:
    assert parallel_coordinates(_load(tmp_path), [_trial(1, 0.9)]) is None


def test_ticks_of_a_logarithmic_axis() -> None:
    assert log_ticks(0.0003, 0.03) == pytest.approx([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02])
    assert log_ticks(1e-5, 1.0) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (59.4, "59 s"), (59.9, "1 min 0 s"), (3599.8, "1 h 0 min"), (450_000, "125 h 0 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert show_seconds(seconds) == words
