"""The typed parameters of one training run, here so that a sweep, a command and a test share one set of rules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from tune_cifar.errors import UserError, show

Check = Callable[[Any], str | None]

EPOCH_METRICS = ("val_loss", "val_accuracy", "train_loss", "epoch_runtime (seconds)")
"""What every epoch reports and a search can optimise."""

PRECISION_CHOICES = ("auto", "fp32", "bf16")

# Listed here, and compared with torchvision by a test, because importing torchvision takes seconds
# and a sweep file is checked before anything slow begins.
MODELS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)


@dataclass(frozen=True)
class TrialConfig:
    """One training run. The defaults are those of the tutorial "Weights & Biases with Gradient"."""

    model: str = "ResNet18"
    lr: float = 1e-3
    batch_size: int = 128
    epochs: int = 10
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    label_smoothing: float = 0.0
    augment: str = "none"
    lr_schedule: str = "constant"
    stem: str = "imagenet"
    precision: str = "auto"
    seed: int = 0

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> TrialConfig:
        """Check `parameters` (a sweep's nested groups are allowed) and fill in the defaults.

        Groups only order a sweep file: `optimizer: {lr: …}` means `lr`. Raises `UserError` with every problem.
        """
        values: dict[str, Any] = {}
        problems = []
        for path, value in leaves(parameters):
            name = path.rpartition(".")[2]
            problem = check_parameter(name, value)
            if name in values:
                problem = f"{name!r} is given twice, here and in another group"
            if problem:
                problems.append(f"{path}: {problem}")
            values[name] = value
        if values.get("nesterov") and not values.get("momentum", cls.momentum):
            problems.append("nesterov: Nesterov momentum needs momentum above 0")
        if problems:
            raise UserError("The trial's parameters do not fit:\n" + "\n".join(f"  {line}" for line in problems))
        defaults = asdict(cls())
        return cls(**{name: type(defaults[name])(value) for name, value in values.items()})

    def as_dict(self) -> dict[str, Any]:
        """Every parameter, defaults included."""
        return asdict(self)


@dataclass(frozen=True)
class ParameterRule:
    """What a parameter means and which values it takes; `check` returns the broken rule or None."""

    description: str
    check: Check


def check_parameter(name: str, value: Any) -> str | None:
    """Say why `name: value` cannot be trained, or return None."""
    rule = PARAMETERS.get(name)
    if rule is None:
        near = get_close_matches(name[:80], PARAMETERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{show(name)} is not a parameter of the trial; {hint}known: {', '.join(PARAMETERS)}"
    return rule.check(value)


def torchvision_builder_name(model: str) -> str | None:
    """The torchvision builder of `model` ("ResNet18" and "resnet-18" are `resnet18`), or None."""
    return next((name for name in MODELS if _plain(name) == _plain(model)), None)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def leaves(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every parameter of a nested config with its dotted path."""
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _number(rule: str, accept: Callable[[float], bool]) -> Check:
    def check(value: Any) -> str | None:
        if not _is_number(value):
            return f"must be a number ({rule}), got {show(value)}"
        return None if accept(value) else f"must be {rule}, got {show(value)}"

    return check


def _integer(low: int, high: int | None = None) -> Check:
    rule = f"a whole number from {low} up" if high is None else f"a whole number from {low} to {high}"

    def check(value: Any) -> str | None:
        whole = _is_number(value) and value == int(value)
        if not whole or value < low or (high is not None and value > high):
            return f"must be {rule}, got {show(value)}"
        return None

    return check


def _one_of(*choices: str) -> Check:
    def check(value: Any) -> str | None:
        return None if value in choices else f"must be one of {', '.join(choices)}, got {show(value)}"

    return check


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"must be true or false, got {show(value)}"


def _model(value: Any) -> str | None:
    if isinstance(value, str) and torchvision_builder_name(value):
        return None
    return f"must be a torchvision ResNet, got {show(value)}; known: {', '.join(MODELS)}"


def _is_number(value: Any) -> bool:
    # By comparison: NaN and infinity are no numbers here, and neither are integers that a float cannot hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


PARAMETERS: Mapping[str, ParameterRule] = MappingProxyType(
    {
        "model": ParameterRule("the network, any torchvision ResNet", _model),
        "lr": ParameterRule("learning rate of SGD", _number("above 0", lambda x: x > 0)),
        "batch_size": ParameterRule("images a step (batch norm needs 2)", _integer(2)),
        "epochs": ParameterRule("passes over the training images", _integer(1)),
        "momentum": ParameterRule("momentum of SGD", _number("from 0 to below 1", lambda x: 0 <= x < 1)),
        "weight_decay": ParameterRule("L2 penalty of SGD", _number("0 or above", lambda x: x >= 0)),
        "nesterov": ParameterRule("Nesterov's form of momentum", _boolean),
        "label_smoothing": ParameterRule(
            "smoothing of the training labels", _number("from 0 to 1", lambda x: 0 <= x <= 1)
        ),
        "augment": ParameterRule("changes to the training images", _one_of("none", "flip_crop")),
        "lr_schedule": ParameterRule("course of the learning rate", _one_of("constant", "cosine", "onecycle")),
        "stem": ParameterRule("first layers of the network", _one_of("imagenet", "cifar")),
        "precision": ParameterRule("number format of matrix products", _one_of(*PRECISION_CHOICES)),
        "seed": ParameterRule("start of all random numbers", _integer(0, 2**63 - 1)),
    }
)
