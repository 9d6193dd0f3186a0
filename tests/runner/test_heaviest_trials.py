from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import pytest

from tune_cifar.runner.heaviest_trials import heaviest_trials
from tune_cifar.sweep.load import load_sweep
from tune_cifar.trial.config import EPOCH_METRICS, TrialConfig, check_parameter


@pytest.fixture
def heaviest(tmp_path: Path) -> Any:
    """The first trials of a sweep of some parameters."""

    def find(
        parameters: str, *, batch: Literal["largest", "smallest"] = "largest", number: int = 4, **constants: Any
    ) -> list[TrialConfig]:
        path = tmp_path / "sweep.yaml"
        path.write_text(f"method: random\nparameters: {parameters}\n")
        config = load_sweep(path, check_parameter, EPOCH_METRICS)
        return list(itertools.islice(heaviest_trials(config, constants, batch=batch), number))

    return find


TUTORIAL = "{model: {values: [ResNet18, ResNet34]}, batch_size: {values: [32, 128]}, lr: {min: 0.1, max: 1.0e+30}}"


def test_the_largest_network_comes_first_with_the_batch_asked_for(heaviest: Any) -> None:
    kinds = [(trial.model, trial.batch_size) for trial in heaviest(TUTORIAL)]
    assert kinds == [("ResNet34", 128), ("ResNet34", 32), ("ResNet18", 128), ("ResNet18", 32)]
    (trial,) = heaviest(TUTORIAL, batch="smallest", number=1)
    assert (trial.model, trial.batch_size) == ("ResNet34", 32)


def test_no_trial_diverges_and_each_has_two_epochs(heaviest: Any) -> None:
    for trial in heaviest(TUTORIAL):
        assert trial.lr < 1e-3
        assert trial.epochs == 2


def test_networks_are_compared_by_their_weights(heaviest: Any) -> None:
    trials = heaviest("{model: {values: [resnext50_32x4d, ResNet18, resnet152, ResNet34]}}")
    assert [trial.model for trial in trials] == ["resnet152", "resnext50_32x4d", "ResNet34", "ResNet18"]


def test_what_costs_most_of_the_other_parameters_comes_first(heaviest: Any) -> None:
    trials = heaviest("{stem: {values: [imagenet, cifar]}, augment: {value: none}, weight_decay: {values: [0, 0.1]}}")
    kinds = [(trial.stem, trial.augment, trial.weight_decay) for trial in trials]
    assert kinds == [("cifar", "none", 0), ("cifar", "none", 0.1), ("imagenet", "none", 0), ("imagenet", "none", 0.1)]


def test_trials_that_differ_in_no_step_are_one(heaviest: Any) -> None:
    assert len(heaviest("{seed: {values: [1, 2, 3]}, epochs: {values: [5, 9]}, lr_schedule: {value: cosine}}")) == 1


def test_four_values_of_a_range_are_taken(heaviest: Any) -> None:
    sizes = [trial.batch_size for trial in heaviest("{batch_size: {min: 16, max: 512}}")]
    assert (sizes[0], sizes[-1]) == (512, 16)
    assert sizes == sorted(set(sizes), reverse=True)
    assert heaviest("{batch_size: {min: 16, max: 512}}", batch="smallest")[0].batch_size == 16


def test_a_size_that_is_hardly_ever_drawn_and_cannot_be_trained_is_no_obstacle(heaviest: Any) -> None:
    rare = "{batch_size: {distribution: q_normal, mu: 64, sigma: 25, q: 1}}"
    assert heaviest(rare, batch="smallest")[0].batch_size == 2


def test_a_pair_that_no_trial_can_have_is_passed_over(heaviest: Any) -> None:
    trials = heaviest("{nesterov: {values: [true, false]}, momentum: {values: [0, 0.9]}}")
    assert [(trial.nesterov, trial.momentum) for trial in trials] == [(True, 0.9), (False, 0), (False, 0.9)]


def test_groups_are_looked_into(heaviest: Any) -> None:
    trials = heaviest("{net: {parameters: {model: {values: [ResNet18, ResNet34]}}}}")
    assert [trial.model for trial in trials] == ["ResNet34", "ResNet18"]


def test_what_a_sweep_does_not_name_is_a_constant_or_the_trials_own(heaviest: Any) -> None:
    (trial,) = heaviest("{lr: {min: 0.1, max: 0.2}}", precision="fp32")
    assert (trial.model, trial.batch_size, trial.stem) == (TrialConfig.model, TrialConfig.batch_size, TrialConfig.stem)
    assert trial.precision == "fp32"
    (trial,) = heaviest("{precision: {value: bf16}}", precision="fp32")
    assert trial.precision == "bf16"
