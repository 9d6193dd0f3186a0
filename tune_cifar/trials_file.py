"""Keeps every epoch of every trial in trials.json, so that a report needs neither Ray nor the search's end."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from tune_cifar.errors import UserError, show
from tune_cifar.files import replace_text
from tune_cifar.results import CAN_WIN, ENDED, Status, TrialRecord, flatten
from tune_cifar.saved_json import read_json
from tune_cifar.sweep.problems import LARGEST_INTEGER
from tune_cifar.sweep.values import is_number

TRIALS_JSON = "trials.json"

# The year 5138: a time beyond it is none, and dates end in 9999.
_LATEST_SECONDS = 1e11

State = Literal["running", "interrupted", "complete"]
EndedTexts = dict[tuple[str, Status, int], str]
"""What was written of trials that have ended, by id, status and number of epochs: most of a long search."""


@dataclass(frozen=True)
class SavedTrials:
    """All trials of a search, by number, as they were at `written_at`, in seconds since 1970.

    A search that was killed stays "running": nobody was left to write otherwise.
    """

    state: State
    written_at: float
    trials: tuple[TrialRecord, ...]


def save_trials(
    folder: Path, trials: Iterable[TrialRecord], state: State, ended_texts: EndedTexts | None = None
) -> None:
    """Write trials.json into a search's folder; a reader sees the old file or the new one, never a part.

    Who writes often keeps `ended_texts`, which is filled here, for the next time.
    """
    texts = {} if ended_texts is None else ended_texts
    rows = [_row_text(trial, texts) for trial in sorted(trials, key=lambda trial: trial.number)]
    head = json.dumps({"state": state, "written_at": time.time()}).removesuffix("}")
    replace_text(folder / TRIALS_JSON, f'{head}, "trials": [{", ".join(rows)}]}}\n')


def load_trials(folder: Path) -> SavedTrials | None:
    """Read trials.json; None where no trial has started yet. Raises `UserError` when it cannot be read."""
    path = folder / TRIALS_JSON
    if not path.is_file():
        return None
    try:
        saved = read_json(path, SavedTrials)
        if problem := _problem(saved):
            raise ValueError(problem)
        return replace(saved, trials=tuple(_with_nan(trial) for trial in saved.trials))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). A resume of the search (--resume --name {folder.name}) writes it again."
        ) from None


def _row_text(trial: TrialRecord, ended_texts: EndedTexts) -> str:
    if trial.status not in ENDED:
        return json.dumps(_row(trial), allow_nan=False)
    key = (trial.trial_id, trial.status, len(trial.epochs))
    if key not in ended_texts:
        ended_texts[key] = json.dumps(_row(trial), allow_nan=False)
    return ended_texts[key]


def _row(trial: TrialRecord) -> dict[str, Any]:
    # JSON has no NaN and no infinity, which is what a diverged trial reports. `asdict` would copy all of it deeply.
    epochs = [{name: _finite(value) for name, value in epoch.items()} for epoch in trial.epochs]
    return {field.name: getattr(trial, field.name) for field in fields(trial)} | {"epochs": epochs}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(trial: TrialRecord) -> TrialRecord:
    epochs = [{name: math.nan if value is None else value for name, value in row.items()} for row in trial.epochs]
    return replace(trial, epochs=epochs)


def _problem(saved: SavedTrials) -> str | None:
    """What no search can have written, though each value is of its type; None where all is well."""
    if not 0 <= saved.written_at < _LATEST_SECONDS:
        return f"written_at is no time: {saved.written_at:g}"
    numbers = [0, *(trial.number for trial in saved.trials), LARGEST_INTEGER]
    if any(number >= after for number, after in itertools.pairwise(numbers)):
        return "the trials must have ascending numbers from 1 on"
    for trial in saved.trials:
        if trial.repeat_of is not None and not 1 <= trial.repeat_of < trial.number:
            return f"trial {trial.number} cannot repeat trial {trial.repeat_of}"
        for name, value in flatten(trial.config).items():
            if not (value is None or isinstance(value, str | bool) or is_number(value)):
                return f"trial {trial.number}: {name} must be a text, a number or a boolean, got {show(value)}"
        previous = 0
        for row in trial.epochs:
            problem = _row_problem(row, previous)
            if not problem and trial.status in CAN_WIN and not {"val_loss", "val_accuracy"} <= row.keys():
                problem = "val_loss and val_accuracy must be there"
            if problem:
                return f"trial {trial.number}, the epoch after {previous}: {problem}"
            previous = row["epoch"]
    return None


def _row_problem(row: Mapping[str, Any], previous: int) -> str | None:
    epoch, logged = row.get("epoch"), row.get("logged")
    if not isinstance(epoch, int) or not previous < epoch <= LARGEST_INTEGER:
        return f"epoch must be a whole number above {previous}, got {show(epoch)}"
    if not isinstance(logged, list) or not all(map(is_number, logged)):
        return "logged must be a list of numbers"
    for name in ("epoch_runtime (seconds)", "reported_at"):
        value: Any = row.get(name)
        if not is_number(value) or not 0 <= value < _LATEST_SECONDS:
            return f"{name} must be a number of seconds, got {show(value)}"
    wrong = [name for name, value in row.items() if name != "logged" and value is not None and not is_number(value)]
    return f"{wrong[0]} must be a number, got {show(row[wrong[0]])}" if wrong else None
