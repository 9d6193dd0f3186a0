"""Reads what a search's own files and the trials' folders say of every trial, for when Tune's state is lost."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.finalists import Repeats, first_run_of
from tune_cifar.results import ENDED, Status, TrialRecord
from tune_cifar.runner.search_log import EPOCH_COLUMNS, logged_values
from tune_cifar.runner.tune_state import TRIAL_FOLDERS, TUNE_FOLDER
from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.checkpoint import PROGRESS_FILE, TRAINING_FILE, WEIGHTS_FILE
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trials_file import load_trials


@dataclass(frozen=True)
class KnownTrial:
    """A trial as its files tell it: what Tune reported of each epoch of `record`, and the checkpoints that are whole.

    `checkpoints` are folders by the number of epochs that they hold, none of an epoch that was never reported.
    """

    record: TrialRecord
    results: tuple[dict[str, Any], ...]
    checkpoints: Mapping[int, Path]

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is left to run."""
        return self.record.status in ENDED


def read_known_trials(folder: Path, metric: Metric, repeats: Repeats | None) -> tuple[list[KnownTrial], list[str]]:
    """All trials of the search in `folder` by number, and lines on what could not be read.

    trials.json has every trial, but is written every few seconds; `result.json` of a trial has every epoch.
    """
    lines: list[str] = []
    written_at, saved = 0.0, []
    try:
        if file := load_trials(folder):
            written_at, saved = file.written_at, list(file.trials)
    except UserError as error:
        lines.append(f"{error} The trials' own folders are read instead.")
    folders = {path.name.partition("-")[2]: path for path in (folder / TUNE_FOLDER).glob(TRIAL_FOLDERS)}
    results = {trial_id: _read_results(path) for trial_id, path in folders.items()}
    # A trial that is on the disk alone was begun after trials.json was written; an older one was given up, by a search
    # that was resumed from before it.
    unsaved = [
        trial_id
        for trial_id in results.keys() - {record.trial_id for record in saved}
        if results[trial_id] and results[trial_id][0]["timestamp"] >= int(written_at)
    ]
    unsaved.sort(key=lambda trial_id: float(results[trial_id][0]["timestamp"]))
    records = saved + _new_records(unsaved, results, saved, repeats)
    known = []
    for record in records:
        own_folder = folders.get(record.trial_id)
        rows = _with_saved(results.get(record.trial_id, []), record)
        now = replace(record, epochs=[_epoch_row(row, record, metric) for row in rows])
        now.status, now.message = _ending(now, rows, num_saved=len(record.epochs))
        checkpoints = _whole_checkpoints(own_folder, now) if own_folder else {}
        now.where = rows[-1].get("where", now.where) if rows else now.where
        known.append(KnownTrial(now, tuple(rows), {epoch: checkpoints[epoch] for epoch in sorted(checkpoints)}))
    return known, lines


def _read_results(folder: Path) -> list[dict[str, Any]]:
    """The lines of Tune's result.json by epoch, the last one of each; a line that is cut off is left out."""
    try:
        lines = (folder / "result.json").read_bytes().splitlines()
    except OSError:
        return []
    by_epoch: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            result = json.loads(line)
            usable = {"epoch", "step", "train_log", "status", "timestamp", "config"} <= result.keys()
        except (ValueError, AttributeError):
            continue
        if usable and isinstance(result["epoch"], int):
            # Tune writes null for what is not a number.
            finite = {name: math.nan if value is None else value for name, value in result.items()}
            by_epoch = {epoch: row for epoch, row in by_epoch.items() if epoch < result["epoch"]}
            by_epoch[result["epoch"]] = finite
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _new_records(
    trial_ids: Iterable[str],
    results: Mapping[str, list[dict[str, Any]]],
    saved: list[TrialRecord],
    repeats: Repeats | None,
) -> list[TrialRecord]:
    new: list[TrialRecord] = []
    for trial_id in trial_ids:
        config = results[trial_id][-1]["config"]
        earlier = [*saved, *new]
        first = first_run_of(config, earlier) if repeats and repeats.is_repeat(config) else None
        new.append(TrialRecord(len(earlier) + 1, trial_id, config, repeat_of=first.number if first else None))
    return new


def _with_saved(results: list[dict[str, Any]], record: TrialRecord) -> list[dict[str, Any]]:
    """The results of all epochs that the trial has reported; of those that trials.json alone has, what it has."""
    known = {row["epoch"]: row for row in results}
    for row in record.epochs:
        values = {name: value for name, value in row.items() if name not in ("logged", "reported_at")}
        saved = {"status": "running", "train_log": [], "timestamp": row["reported_at"], "step": row["epoch"]} | values
        known.setdefault(row["epoch"], {**saved, "training_iteration": row["epoch"], "config": record.config})
    return [known[epoch] for epoch in sorted(known)]


def _epoch_row(result: Mapping[str, Any], record: TrialRecord, metric: Metric) -> dict[str, Any]:
    for row in record.epochs:
        if row["epoch"] == result["epoch"]:
            return row
    row = {name: result[name] for name in EPOCH_COLUMNS if name in result}
    return {**row, "reported_at": result["timestamp"], "logged": logged_values(dict(result), metric.name)}


def _ending(record: TrialRecord, results: list[dict[str, Any]], *, num_saved: int) -> tuple[Status, str]:
    """How the trial ended, or that it waits: by trials.json, unless there are later results than it has."""
    if record.status in ENDED or not results:
        return (record.status if record.status in ENDED else "waiting"), record.message
    last = results[-1]
    if last["status"] in ("finished", "diverged"):
        return last["status"], last.get("message", "")
    if num_saved < len(results) and last.get("done"):
        return "stopped", "stopped early"
    return "waiting", ""


def _whole_checkpoints(folder: Path, record: TrialRecord) -> dict[int, Path]:
    epochs = {row["epoch"] for row in record.epochs}
    config = TrialConfig.from_parameters(record.config)
    found = {_epochs_in(path, config): path for path in sorted(folder.glob("checkpoint_*"))}
    return {epoch: path for epoch, path in found.items() if epoch in epochs}


def _epochs_in(checkpoint: Path, config: TrialConfig) -> int:
    """How many epochs a checkpoint of the trial of `config` holds; 0 where a part of it is missing or damaged."""
    try:
        progress = json.loads((checkpoint / PROGRESS_FILE).read_bytes())
        if progress["config"] != config.as_dict():
            return 0
        epochs = progress["epochs_done"]
        files = [WEIGHTS_FILE] + ([TRAINING_FILE] if epochs < config.epochs else [])
        # torch writes zip archives, which have a checksum of each part.
        whole = all(zipfile.ZipFile(checkpoint / name).testzip() is None for name in files)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, zipfile.BadZipFile):
        return 0
    return int(epochs) if whole else 0
