"""Reads the trials of an earlier search, ours or W&B's, from the files that hold them, for a new search to learn from.

W&B's runs come as the CSV file of its runs table, or as the rows of config and summary that its public API gives
(https://docs.wandb.ai/ref/python/public-api/runs), in JSON, JSON lines or the CSV that pandas makes of them.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tune_cifar.errors import UserError
from tune_cifar.sweep.values import is_number

TRIALS_FILE = "trials.csv"
# The first columns of our own table, by which it is told from W&B's.
OWN_COLUMNS = ("number", "id", "status")
# Longer texts are no numbers or lists, and reading them as such could take long.
LONGEST_VALUE_CHARACTERS = 100_000

End = Literal["ended", "failed", "open"]

# Our own statuses, those that we write into the summary of a W&B run, and W&B's states. A killed run was ended by
# its user, as a stopped one.
END_OF: Mapping[str, End] = MappingProxyType(
    {
        "finished": "ended",
        "stopped": "ended",
        "stopped early": "ended",
        "killed": "ended",
        "failed": "failed",
        "diverged": "failed",
        "crashed": "failed",
        "running": "open",
        "waiting": "open",
        "interrupted": "open",
        "pending": "open",
        "preempting": "open",
    }
)


@dataclass(frozen=True)
class EarlierTrial:
    """One trial as its file has it: parameters and metrics by dotted name, and how it ended.

    Values of a CSV file are text. `own` says that this project trained it, so that what its row does not name
    had the trial's default.
    """

    values: Mapping[str, Any]
    end: End
    own: bool = False


def read_earlier_trials(path: Path) -> list[EarlierTrial]:
    """Every trial in `path`: a folder of results, a trials.csv, or W&B's runs as .csv, .json or .jsonl.

    Raises `UserError` where there is no such file or it cannot be read.
    """
    if not path.exists():
        raise UserError(f"--prior {path}: there is no such file or folder.")
    if path.is_dir():
        if not (path / TRIALS_FILE).is_file():
            raise UserError(
                f"--prior {path}: there is no {TRIALS_FILE} in that folder, which a search writes when it ends."
            )
        path /= TRIALS_FILE
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(
            f"--prior {path} must be a folder of results, a {TRIALS_FILE}, or runs exported from W&B "
            f"({', '.join(_READERS)})."
        )
    try:
        return [_trial(row) for row in read(path)]
    except OSError as error:
        raise UserError(f"--prior {path} cannot be read: {error.strerror}.") from None
    except (ValueError, csv.Error, RecursionError) as error:
        raise UserError(f"--prior {path} cannot be read: {error}.") from None


def readings(value: Any) -> Iterator[Any]:
    """What a value can stand for: text may be a number, a list or a boolean, and else it is itself."""
    if isinstance(value, str) and len(value) <= LONGEST_VALUE_CHARACTERS:
        # W&B writes true where Python writes True, and 'a' is Python's alone.
        as_python = value.startswith(("[", "{")) or value in ("True", "False")
        for read in (json.loads, ast.literal_eval)[: 2 if as_python else 1]:
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                yield read(value)
    yield value


def finite_number(value: Any) -> float | None:
    """The finite number that `value` is or stands for, or None."""
    for reading in readings(value):
        if is_number(reading):
            return float(reading)
    return None


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        if not reader.fieldnames:
            raise ValueError("the file is empty")
        for row in reader:
            # The table that pandas makes of the API's rows has a column with the text of each dict.
            read = {name: _mapping(text) if name in ("config", "summary") else text for name, text in row.items()}
            yield read | {"own": tuple(reader.fieldnames[: len(OWN_COLUMNS)]) == OWN_COLUMNS}


def _mapping(text: str) -> Any:
    return next((reading for reading in readings(text) if isinstance(reading, dict)), text)


def _read_json(path: Path) -> Iterator[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8-sig"))
    yield from _checked(rows if isinstance(rows, list) else [rows])


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    yield from _checked([json.loads(line) for line in lines if line.strip()])


def _checked(rows: list[Any]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("config"), dict):
            raise ValueError(f"run {number} is no mapping with a `config` and a `summary`")
        yield row


_READERS: Mapping[str, Callable[[Path], Iterator[dict[str, Any]]]] = MappingProxyType(
    {".csv": _read_csv, ".json": _read_json, ".jsonl": _read_json_lines}
)


def _trial(row: dict[str, Any]) -> EarlierTrial:
    own = row.pop("own", False)
    if isinstance(row.get("config"), dict):
        summary = row.get("summary")
        row |= dict(_flat(summary)) if isinstance(summary, dict) else {}
        row |= dict(_flat(row["config"]))
    named = {name: value for name, value in row.items() if name and value not in ("", None)}
    # A run that diverged is "finished" to W&B: the summary that we wrote knows better.
    words = [str(named.get(key, "")).lower() for key in ("status", "state", "State")]
    return EarlierTrial(named, next((END_OF[word] for word in words if word in END_OF), "ended"), own)


def _flat(group: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in group.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
