"""Keeps every epoch of every trial in trials.json, so that a report needs neither Ray nor the search's end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tune_cifar.errors import UserError
from tune_cifar.results import TrialRecord

TRIALS_JSON = "trials.json"

State = Literal["running", "interrupted", "complete"]


@dataclass(frozen=True)
class SavedTrials:
    """All trials of a search, by number, as they were at `written_at`, in seconds since 1970.

    A search that was killed stays "running": nobody was left to write otherwise.
    """

    state: State
    written_at: float
    trials: tuple[TrialRecord, ...]


def save_trials(folder: Path, trials: Iterable[TrialRecord], state: State) -> None:
    """Write trials.json into a search's folder; a reader sees the old file or the new one, never a part."""
    rows = [_row(trial) for trial in sorted(trials, key=lambda trial: trial.number)]
    document = {"state": state, "written_at": time.time(), "trials": rows}
    path = folder / TRIALS_JSON
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, allow_nan=False) + "\n")
    partial.replace(path)


def load_trials(folder: Path) -> SavedTrials | None:
    """Read trials.json; None where no trial has started yet. Raises `UserError` when it cannot be read."""
    path = folder / TRIALS_JSON
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text())
        trials = tuple(_record(row) for row in document["trials"])
        return SavedTrials(document["state"], float(document["written_at"]), trials)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). A resume of the search (--resume --name {folder.name}) writes it again."
        ) from None


def _row(trial: TrialRecord) -> dict[str, Any]:
    # JSON has no NaN and no infinity, which is what a diverged trial reports.
    epochs = [{name: _finite(value) for name, value in epoch.items()} for epoch in trial.epochs]
    return {**asdict(trial), "epochs": epochs}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(row: dict[str, Any]) -> TrialRecord:
    epochs = [{name: math.nan if value is None else value for name, value in epoch.items()} for epoch in row["epochs"]]
    return TrialRecord(**{**row, "epochs": epochs})
