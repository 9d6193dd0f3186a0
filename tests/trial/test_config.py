from __future__ import annotations

import math

import pytest

from tune_cifar.errors import UserError
from tune_cifar.trial.config import PARAMETERS, TrialConfig, check_parameter


def test_defaults_are_the_tutorials() -> None:
    config = TrialConfig()
    assert (config.model, config.epochs, config.batch_size, config.lr) == ("ResNet18", 10, 128, 1e-3)
    assert (config.momentum, config.weight_decay, config.augment) == (0.9, 0.0, "none")
    assert (config.lr_schedule, config.stem) == ("constant", "imagenet")


def test_every_default_obeys_its_own_rule() -> None:
    assert {name: check_parameter(name, value) for name, value in TrialConfig().as_dict().items()} == dict.fromkeys(
        PARAMETERS
    )


def test_values_get_the_type_of_the_parameter() -> None:
    config = TrialConfig.from_parameters({"batch_size": 32.0, "lr": 1})
    assert config.batch_size == 32
    assert isinstance(config.batch_size, int)
    assert isinstance(config.lr, float)


def test_groups_only_order_the_file() -> None:
    config = TrialConfig.from_parameters({"optimizer": {"sgd": {"lr": 0.5}, "momentum": 0.0}, "epochs": 2})
    assert (config.lr, config.momentum, config.epochs) == (0.5, 0.0, 2)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        TrialConfig.from_parameters({"lrr": 1, "model": "VGG16", "a": {"lr": -1}, "b": {"lr": 1}})
    text = str(error.value)
    assert "lrr: 'lrr' is not a parameter of the trial; did you mean 'lr'?" in text
    assert "model: must be a torchvision ResNet, got 'VGG16'; known: resnet18" in text
    assert "a.lr: must be above 0, got -1" in text
    assert "b.lr: 'lr' is given twice" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", "0.1"),
        ("lr", True),
        ("batch_size", 1),
        ("batch_size", 32.5),
        ("batch_size", math.inf),
        ("epochs", 0),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("nesterov", 1),
        ("label_smoothing", 1.1),
        ("augment", "mixup"),
        ("lr_schedule", None),
        ("stem", "cifar10"),
        ("model", 18),
        ("model", ["ResNet18"]),
        ("seed", -1),
    ],
)
def test_a_bad_value_is_refused(name: str, value: object) -> None:
    problem = check_parameter(name, value)
    assert problem is not None
    assert repr(value) in problem


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(UserError, match="momentum above 0"):
        TrialConfig.from_parameters({"nesterov": True, "momentum": 0.0})
    assert TrialConfig.from_parameters({"nesterov": True}).nesterov


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 10**400), ("epochs", 10**5000), ("model", "x" * 10**6), ("x" * 10**6, 1)], ids=range(4)
)
def test_a_value_of_any_size_is_refused_in_a_line(name: str, value: object) -> None:
    problem = check_parameter(name, value)
    assert problem is not None
    assert len(problem) < 400
