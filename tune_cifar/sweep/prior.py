"""Fits the trials of earlier searches into the space of a new one, so that its model starts with what they found."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.files import replace_text
from tune_cifar.saved_json import read_json
from tune_cifar.sweep.distributions import Categorical, Constant, Distribution, Quantized, practical_range
from tune_cifar.sweep.parameters import Parameter
from tune_cifar.sweep.prior_files import EarlierTrial, finite_number, read_earlier_trials, readings
from tune_cifar.sweep.schema import Metric, SweepConfig
from tune_cifar.sweep.searcher import PriorTrial, imputed_value
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.sweep.values import agree

PRIOR_FILE = "prior.json"


@dataclass(frozen=True)
class Prior:
    """What a search starts with: trials to learn from, and a line for each file that they came from.

    `warnings` are the lines of files of which no trial could be used.
    """

    trials: tuple[PriorTrial, ...]
    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def read_prior(
    paths: Iterable[Path], config: SweepConfig, space: SearchSpace, trial_defaults: Mapping[str, Any]
) -> Prior:
    """The usable trials of `paths` as points of `space`, and what was left out.

    A trial is usable if each parameter of `config` is there with a value that the space can take, and the metric
    too. Parameters that only the earlier search had are not looked at, and neither is a constant seed.
    `trial_defaults` are what a trial of this project takes where nothing is said. Trials that failed or diverged
    get their value by the file's `impute`, from the trials of the same file. Raises `UserError` for a method
    without a model and for a file that is missing or cannot be read.
    """
    if config.method != "bayes" or not space.distributions:
        has = "no free parameter" if config.method == "bayes" else f"`method: {config.method}`"
        raise UserError(f"--prior warms the model of `method: bayes`, but {config.path} has {has}. Leave it out.")
    trials: list[PriorTrial] = []
    lines, warnings = [], []
    for path in paths:
        earlier = read_earlier_trials(path)
        used, left_out = _fit(earlier, config.metric, space, trial_defaults)
        trials += used
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        tail = f"; {left_out.total()} left out: {reasons}" if left_out else ""
        if used:
            lines.append(f"{len(used)} {'trial' if len(used) == 1 else 'trials'} of {path}{tail}")
        else:
            warnings.append(f"--prior {path}: no trial to learn from{tail or '; it holds none'}. The search goes on.")
    return Prior(tuple(trials), tuple(lines), tuple(warnings))


def save_prior(folder: Path, prior: Prior) -> None:
    """Keep the prior in `folder`: a resume needs it as it was, whatever became of the files."""
    replace_text(folder / PRIOR_FILE, json.dumps(asdict(prior)) + "\n")


def load_prior(folder: Path, space: SearchSpace) -> Prior:
    """Read back what `save_prior` wrote; raises `UserError` where it is missing, damaged or not of this space."""
    path = folder / PRIOR_FILE
    try:
        prior = read_json(path, Prior)
        for place, trial in enumerate(prior.trials):
            if not math.isfinite(trial.value) or not space.has(trial.point):
                raise ValueError(f"trials[{place}] is no trial of the sweep file's parameters")
        return prior
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Start the search again under another --name.") from None


def _fit(
    earlier: Sequence[EarlierTrial], metric: Metric, space: SearchSpace, trial_defaults: Mapping[str, Any]
) -> tuple[list[PriorTrial], Counter[str]]:
    """The trials that fit, and how many do not for which reason."""
    left_out: Counter[str] = Counter()
    fitting: list[tuple[dict[str, Any], float | None, bool]] = []
    for trial in earlier:
        score = _score(trial, metric)
        point, reason = _point(trial, space, trial_defaults)
        if trial.end == "open":
            left_out["that had not ended"] += 1
        elif point is None:
            left_out[reason] += 1
        elif score is None and trial.end == "ended":
            left_out[f"without {metric.name}"] += 1
        else:
            fitting.append((point, score, trial.end == "failed"))
    histories = [[] if score is None else [score] for _, score, _ in fitting]
    used = []
    for index, (point, score, failed) in enumerate(fitting):
        others = histories[:index] + histories[index + 1 :]
        value = imputed_value(metric, histories[index], others) if failed else score
        if value is None:
            left_out["that failed"] += 1
        else:
            used.append(PriorTrial(point, value))
    return used, left_out


def _score(trial: EarlierTrial, metric: Metric) -> float | None:
    """The best value of the metric where the file has it, else the last one, which W&B shows."""
    # W&B's `define_metric(…, summary="min")` makes the column val_loss.min.
    summarized = f"{metric.name}.{'min' if metric.goal == 'minimize' else 'max'}"
    names = (f"best_{metric.name}", summarized, metric.name)
    scores = (finite_number(trial.values[name]) for name in names if name in trial.values)
    return next((score for score in scores if score is not None), None)


def _point(
    trial: EarlierTrial, space: SearchSpace, trial_defaults: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """The trial as an encoded point of `space`, or None and the reason."""
    point: dict[str, Any] = {}
    for parameter in space.parameters:
        name = ".".join(parameter.path)
        constant = isinstance(parameter.distribution, Constant)
        if constant and _last(name) == "seed":
            continue
        value = _value(trial, name, trial_defaults)
        if value is None:
            return None, f"without {name}"
        encoded = _encode(parameter, space, value)
        if encoded is None:
            return None, f"with {name} {_outside(parameter.distribution)}"
        if not constant:
            point[parameter.key] = encoded
    return point, ""


def _value(trial: EarlierTrial, name: str, trial_defaults: Mapping[str, Any]) -> Any:
    """The value of a parameter: by its whole name, or by the last part, as groups only order a file."""
    if name in trial.values:
        return trial.values[name]
    same = [value for other, value in trial.values.items() if _last(other) == _last(name)]
    if len(same) == 1:
        return same[0]
    return trial_defaults.get(_last(name)) if trial.own and not same else None


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _encode(parameter: Parameter, space: SearchSpace, value: Any) -> Any:
    if isinstance(parameter.distribution, Constant):
        return any(agree(reading, parameter.distribution.value) for reading in readings(value)) or None
    encoding = space.encodings[parameter.key]
    encoded = (encoding.encode(reading) for reading in readings(value))
    return next((one for one in encoded if one is not None), None)


def _outside(distribution: Distribution) -> str:
    match distribution:
        case Constant(value):
            return f"other than {value}"
        case Categorical(values):
            return f"other than {' or '.join(map(str, values))}"
    low, high = practical_range(distribution)
    steps = f" in steps of {distribution.q:g}" if isinstance(distribution, Quantized) else ""
    return f"outside {low:g} to {high:g}{steps}"
