"""Finds the trials of a sweep that work a GPU the hardest, for what is measured before the search."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
import torchvision

from tune_cifar.errors import UserError
from tune_cifar.sweep.distributions import Categorical, Constant, Distribution, practical_range
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.trial.config import TrialConfig, leaves, torchvision_builder_name

NUM_EPOCHS = 2
LEARNING_RATE = 1e-6
"""A rate at which nothing diverges, which would end a trial."""

_COSTLY = {"stem": "cifar", "augment": "flip_crop", "precision": "fp32"}
_OF_NO_COST = ("lr", "lr_schedule", "epochs", "seed")


def heaviest_trials(
    config: SweepConfig, constants: Mapping[str, Any], *, batch: Literal["largest", "smallest"]
) -> Iterator[TrialConfig]:
    """The trials that differ in what a training step computes, in the order of their cost, of two epochs each.

    The largest network comes first, with the largest or smallest batch, and so on; of a range four values are taken.
    `constants` are parameters of every trial unless the sweep names them.
    """
    values = _step_parameters(config, constants)
    values["model"].sort(key=_num_weights, reverse=True)
    values["batch_size"].sort(reverse=batch == "largest")
    # The last parameter changes first: model and batch size, which come first, stay as they are the longest.
    for combination in itertools.product(*values.values()):
        parameters = dict(zip(values, combination, strict=True))
        # A pair that no trial can have, such as Nesterov's form of no momentum, is passed over.
        with contextlib.suppress(UserError):
            yield TrialConfig.from_parameters({**parameters, "epochs": NUM_EPOCHS, "lr": LEARNING_RATE})


def _step_parameters(config: SweepConfig, constants: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The different values of what a step depends on, by the name that the trial knows, the costliest first."""
    values: dict[str, list[Any]] = {"model": [], "batch_size": []}
    for parameter in config.parameters:
        for value in _values(parameter.distribution):
            for path, leaf in leaves({parameter.name: value}):
                values.setdefault(path.rpartition(".")[2], []).append(leaf)
    # A distribution that fades out can, rarely, draw less than the two images that batch norm needs.
    values["batch_size"] = [max(2, int(size)) for size in values["batch_size"]]
    defaults = {"model": TrialConfig.model, "batch_size": TrialConfig.batch_size, **constants}
    for name, default in defaults.items():
        values[name] = values.get(name) or [default]
    for name, costly in _COSTLY.items():
        if costly in values.get(name, []):
            values[name].insert(0, costly)
    return {name: list(dict.fromkeys(listed)) for name, listed in values.items() if name not in _OF_NO_COST}


def _values(distribution: Distribution) -> tuple[Any, ...]:
    match distribution:
        case Constant(value):
            return (value,)
        case Categorical(values):
            return values
    low, high = practical_range(distribution)
    return high, distribution.from_quantile(2 / 3), distribution.from_quantile(1 / 3), low


def _num_weights(model: str) -> int:
    with torch.device("meta"):  # shapes without memory
        network = torchvision.models.get_model(torchvision_builder_name(model), weights=None)
    return sum(weights.numel() for weights in network.parameters())
