"""Tables of real training curves, made into an objective for any learning rate, so that a search can be simulated.

A table file, as make_table.py writes it, is JSON. The epoch in which a run diverged is its
last and has a `val_loss` of null:

    {"provenance": {...how, where and from what it was made...},
     "runs": [{"model": "ResNet18", "batch_size": 32, "lr": 0.001, "seed": 0,
               "epochs": [{"val_loss": 1.9, "val_accuracy": 0.3, "train_loss": 2.0, "seconds": 12.5}, ...]}, ...]}
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_cifar.errors import UserError

Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One training run: its validation loss after each epoch, up to where it diverged if it did."""

    choices: tuple[Any, ...]
    learning_rate: float
    losses: tuple[float, ...]
    diverged: bool
    epoch_seconds: float | None = None


@dataclass(frozen=True)
class Curve:
    """What a trial would log: finite losses, one an epoch, and whether the epoch after them diverged."""

    losses: tuple[float, ...]
    diverged: bool = False

    @property
    def num_epochs(self) -> int:
        """The epochs that the trial trains, a diverging one included."""
        return len(self.losses) + self.diverged


@dataclass(frozen=True)
class _Setting:
    """All runs, which differ by seed only, of one learning rate with one combination of choices."""

    learning_rate: float
    runs: list[Run] = field(default_factory=list)

    @cached_property
    def mean(self) -> Losses | None:
        """The mean curve of the runs that did not diverge; None where half of them or more did."""
        finite = [run.losses for run in self.runs if not run.diverged]
        return np.mean(finite, axis=0) if 2 * len(finite) > len(self.runs) else None

    @cached_property
    def deviations(self) -> list[Losses]:
        """How each run differs from the mean, epoch by epoch; widened, because the mean is of few runs."""
        finite = [np.array(run.losses) for run in self.runs if not run.diverged]
        if self.mean is None or len(finite) < 2:
            return []
        widening = math.sqrt(len(finite) / (len(finite) - 1))
        return [widening * (losses - self.mean) for losses in finite]


class CurveTable:
    """The validation loss of a trial as a function of some choices and a learning rate, known from real runs.

    Between two measured learning rates every epoch's mean loss is interpolated linearly in the logarithm of the
    rate; where one of the two diverged, the nearer of them counts alone. `draw` interpolates between a random run
    of each of the two, where both were run with several seeds. Else it adds the deviation of a random seed, from the
    nearer rate or, where that was run only once, from all runs with the same choices.

    Deviations from a mean of two runs would not do: where one of them has an epoch of loss 22 and the other of 2, the
    other's deviation makes any mean nearby the best loss of all.
    """

    def __init__(
        self, choice_names: Sequence[str], runs: Sequence[Run], num_epochs: int, untrained_loss: float
    ) -> None:
        self.choice_names = tuple(choice_names)
        self.num_epochs = num_epochs
        self.untrained_loss = untrained_loss
        self._settings: dict[tuple[Any, ...], list[_Setting]] = {}
        by_rate: dict[tuple[Any, ...], _Setting] = {}
        for run in sorted(runs, key=lambda run: run.learning_rate):
            key = (*run.choices, run.learning_rate)
            if key not in by_rate:
                by_rate[key] = _Setting(run.learning_rate)
                self._settings.setdefault(run.choices, []).append(by_rate[key])
            by_rate[key].runs.append(run)
        self._epoch_seconds = {
            choices: [run.epoch_seconds for setting in settings for run in setting.runs if run.epoch_seconds]
            for choices, settings in self._settings.items()
        }

    def sweep_parameters(self) -> dict[str, Any]:
        """The table's whole space as the `parameters` of a sweep file."""
        columns = zip(*self._settings, strict=True)
        listed = {
            name: {"values": list(dict.fromkeys(column))}
            for name, column in zip(self.choice_names, columns, strict=True)
        }
        low, high = (pick(self._rates()) for pick in (min, max))
        return {**listed, "lr": {"distribution": "log_uniform_values", "min": low, "max": high}}

    def mean_curve(self, config: Mapping[str, Any]) -> Curve:
        """The curve without noise."""
        left, right, share = self._neighbours(config)
        if left.mean is not None and right.mean is not None:
            return Curve(tuple(((1 - share) * left.mean + share * right.mean).tolist()))
        nearer = right if share > 0.5 else left
        if nearer.mean is not None:
            return Curve(tuple(nearer.mean.tolist()))
        return next(Curve(run.losses, diverged=True) for run in nearer.runs if run.diverged)

    def draw(self, config: Mapping[str, Any], random: np.random.Generator) -> Curve:
        """The curve of one trial, with the luck of its seed; it diverges as often as the nearer runs did."""
        left, right, share = self._neighbours(config)
        nearer, farther, weight = (right, left, share) if share > 0.5 else (left, right, 1 - share)
        run = nearer.runs[random.integers(len(nearer.runs))]
        mean = self.mean_curve(config)
        if run.diverged or mean.diverged:
            return Curve(run.losses, run.diverged)
        if nearer.deviations and farther.deviations:
            finite = [run.losses for run in farther.runs if not run.diverged]
            other = np.array(finite[random.integers(len(finite))])
            return Curve(tuple((weight * np.array(run.losses) + (1 - weight) * other).tolist()))
        deviations = nearer.deviations or self._pooled_deviations(self._choices(config))
        if not deviations:
            return mean
        losses = np.array(mean.losses) + deviations[random.integers(len(deviations))]
        return Curve(tuple(losses.tolist()))

    def true_loss(self, config: Mapping[str, Any]) -> float:
        """The best loss of the mean curve; never worse than that of an untrained network, which anyone has."""
        curve = self.mean_curve(config)
        return self.untrained_loss if curve.diverged else min(*curve.losses, self.untrained_loss)

    def best_loss(self, low: float, high: float) -> float:
        """The best true loss with a learning rate from `low` to `high`.

        Between measured rates each epoch's loss is linear, so its minimum is at one of them or at an end.
        """
        rates = [low, high, *(rate for rate in self._rates() if low <= rate <= high)]
        configs = [
            {**dict(zip(self.choice_names, choices, strict=True)), "lr": rate}
            for choices in self._settings
            for rate in rates
        ]
        return min(self.true_loss(config) for config in configs)

    def epoch_seconds(self, config: Mapping[str, Any]) -> float:
        """How long an epoch takes: the median of the runs with the same choices, 1 where no run was timed."""
        return statistics.median(self._epoch_seconds[self._choices(config)] or [1.0])

    def _choices(self, config: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(config[name] for name in self.choice_names)

    def _rates(self) -> list[float]:
        return sorted({setting.learning_rate for settings in self._settings.values() for setting in settings})

    def _neighbours(self, config: Mapping[str, Any]) -> tuple[_Setting, _Setting, float]:
        """The measured settings on both sides, and how far on the way from the first to the second (0 to 1)."""
        settings = self._settings[self._choices(config)]
        logs = np.log([setting.learning_rate for setting in settings])
        place = math.log(config["lr"])
        right = int(np.clip(np.searchsorted(logs, place), 1, len(logs) - 1))
        share = (place - logs[right - 1]) / (logs[right] - logs[right - 1])
        return settings[right - 1], settings[right], float(np.clip(share, 0, 1))

    def _pooled_deviations(self, choices: tuple[Any, ...]) -> list[Losses]:
        return [deviation for setting in self._settings[choices] for deviation in setting.deviations]


def load_deepobs(path: Path, num_epochs: int) -> CurveTable:
    """The runs of DeepOBS on CIFAR-10 with its network 3c3d, cut after `num_epochs` of their 100 epochs.

    Optimizer and learning rate vary; one rate of each optimizer was run with ten seeds. From
    https://github.com/fsschneider/DeepOBS_Baselines (MIT licence) as a list of {optimizer, lr, seed, test_loss};
    the first loss is that before training. Raises `UserError` where the file is missing or something else.
    """
    rows = _read_json(path, "--deepobs")
    try:
        runs = [_run((row["optimizer"],), row["lr"], row["test_loss"][1 : num_epochs + 1], num_epochs) for row in rows]
        return CurveTable(["optimizer"], runs, num_epochs, untrained_loss=rows[0]["test_loss"][0])
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: not a list of runs with optimizer, lr and test_loss ({error!r}).") from None


def load_table(path: Path) -> CurveTable:
    """A table file as described above. Raises `UserError` where it is missing or something else."""
    content = _read_json(path, "--tutorial")
    try:
        rows = content["runs"]
        num_epochs = max(len(row["epochs"]) for row in rows)
        runs = []
        for row in rows:
            losses = [epoch["val_loss"] for epoch in row["epochs"]]
            seconds = statistics.mean(epoch["seconds"] for epoch in row["epochs"])
            runs.append(_run((row["model"], row["batch_size"]), row["lr"], losses, num_epochs, seconds))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a table of curves; benchmarks/curves.py says what it holds ({error!r})."
        ) from None
    # A network that knows nothing gives each of the ten classes of CIFAR-10 the same probability.
    return CurveTable(["model", "batch_size"], runs, num_epochs, untrained_loss=math.log(10))


def _run(
    choices: tuple[Any, ...], rate: float, losses: Sequence[float | None], num_epochs: int, seconds: float | None = None
) -> Run:
    finite: list[float] = []
    for loss in losses:
        if loss is None or not math.isfinite(loss):
            break
        finite.append(float(loss))
    return Run(choices, float(rate), tuple(finite), len(finite) < num_epochs, seconds)


def _read_json(path: Path, flag: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Say with {flag} where the table is.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON ({error}).") from None
