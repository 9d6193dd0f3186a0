from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tune_cifar.finalists import Repeats
from tune_cifar.results import Status, TrialRecord
from tune_cifar.runner.known_trials import KnownTrial, read_known_trials
from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trials_file import save_trials

LOSS = Metric(name="val_loss", goal="minimize")
CONFIG = {"lr": 0.01, "epochs": 3, "seed": 0}
WRITTEN_LATER = 4_000_000_000


def _result(epoch: int, status: str = "running", config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": epoch,
        "train_log": [[epoch, float(epoch), 1.0]],
        "train_loss": 1.0,
        "val_loss": 1 / epoch,
        "val_accuracy": 0.5,
        "epoch_runtime (seconds)": 1.0,
        "status": status,
        "done": status != "running",
        "timestamp": WRITTEN_LATER + epoch,
        "training_iteration": epoch,
        "config": config or CONFIG,
        **more,
    }


def _write_results(folder: Path, trial_id: str, *results: dict[str, Any], end: str = "") -> Path:
    trial = folder / "ray" / f"trial-{trial_id}"
    trial.mkdir(parents=True)
    (trial / "result.json").write_text("".join(json.dumps(result) + "\n" for result in results) + end)
    return trial


def _write_checkpoint(trial: Path, index: int, epoch: int, config: dict[str, Any] | None = None) -> Path:
    folder = trial / f"checkpoint_{index:06d}"
    folder.mkdir()
    progress = {"config": TrialConfig.from_parameters(config or CONFIG).as_dict(), "epochs_done": epoch}
    (folder / "progress.json").write_text(json.dumps(progress))
    for name in ("model.pth", "training.pth"):
        torch.save({"weight": torch.ones(1000)}, folder / name)
    return folder


def _row(epoch: int) -> dict[str, Any]:
    values = {"epoch": epoch, "val_loss": 1 / epoch, "val_accuracy": 0.5, "epoch_runtime (seconds)": 1.0}
    return {**values, "logged": [1 / epoch], "reported_at": 5.0}


def _save(folder: Path, status: Status, *epochs: int, message: str = "") -> None:
    rows = [_row(epoch) for epoch in epochs]
    save_trials(folder, [TrialRecord(1, "a", CONFIG, status, rows, message)], "running")


def _read(folder: Path, repeats: Repeats | None = None) -> list[KnownTrial]:
    known, _ = read_known_trials(folder, LOSS, repeats)
    return known


def test_epochs_that_trials_json_does_not_have_yet_come_from_the_trial(tmp_path: Path) -> None:
    _save(tmp_path, "running", 1)
    _write_results(tmp_path, "a", _result(1), _result(2), end='{"epoch": 3, "val')
    (trial,) = _read(tmp_path)
    assert (trial.record.number, trial.record.trial_id, trial.record.status) == (1, "a", "waiting")
    assert trial.record.epochs[0] == _row(1)
    assert [row["epoch"] for row in trial.record.epochs] == [result["epoch"] for result in trial.results] == [1, 2]
    assert trial.record.epochs[1]["logged"] == [0.5]


@pytest.mark.parametrize(
    ("last", "status", "message"),
    [
        (_result(2, "finished"), "finished", ""),
        (
            _result(2, "diverged", message="diverged: val_loss is nan", val_loss=None),
            "diverged",
            "diverged: val_loss is nan",
        ),
        (_result(2, done=True), "stopped", "stopped early"),
        (_result(2), "waiting", ""),
    ],
)
def test_a_trial_ended_as_its_last_result_says(tmp_path: Path, last: dict[str, Any], status: str, message: str) -> None:
    _save(tmp_path, "running", 1)
    _write_results(tmp_path, "a", _result(1), last)
    (trial,) = _read(tmp_path)
    assert (trial.record.status, trial.record.message) == (status, message)
    assert trial.has_ended == (status != "waiting")


@pytest.mark.parametrize("status", ["finished", "stopped", "failed", "diverged"])
def test_how_a_trial_ended_stands_in_trials_json(tmp_path: Path, status: Status) -> None:
    _save(tmp_path, status, 1, 2, message="why")
    (trial,) = _read(tmp_path)
    assert (trial.record.status, trial.record.message, len(trial.results)) == (status, "why", 2)
    assert trial.results[1]["val_loss"] == 0.5


def test_without_trials_json_all_trials_that_reported_are_known_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_text("{")
    repeat = {**CONFIG, "seed": 1}
    _write_results(tmp_path, "b", _result(1, config=repeat, timestamp=WRITTEN_LATER + 9))
    _write_results(tmp_path, "a", _result(1))
    _write_results(tmp_path, "never-reported")
    known, lines = read_known_trials(tmp_path, LOSS, Repeats(1, 1, 0))
    assert [(trial.record.number, trial.record.trial_id) for trial in known] == [(1, "a"), (2, "b")]
    assert [trial.record.repeat_of for trial in known] == [None, 1]
    assert "trials.json cannot be read" in lines[0]


def test_a_trial_that_an_earlier_resume_gave_up_is_not_taken_for_one(tmp_path: Path) -> None:
    _save(tmp_path, "finished", 1)
    _write_results(tmp_path, "old", _result(1, timestamp=5))
    assert [trial.record.trial_id for trial in _read(tmp_path)] == ["a"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.pth", "training.pth", "progress.json"])
def test_a_checkpoint_that_is_not_whole_does_not_count(tmp_path: Path, name: str, damage: Any) -> None:
    _save(tmp_path, "running", 1, 2)
    trial = _write_results(tmp_path, "a", _result(1), _result(2))
    first, second = _write_checkpoint(trial, 0, 1), _write_checkpoint(trial, 1, 2)
    assert dict(_read(tmp_path)[0].checkpoints) == {1: first, 2: second}
    damage(second / name)
    assert dict(_read(tmp_path)[0].checkpoints) == {1: first}


def test_a_checkpoint_of_an_epoch_that_nobody_heard_of_or_of_another_trial_does_not_count(tmp_path: Path) -> None:
    _save(tmp_path, "running", 1)
    trial = _write_results(tmp_path, "a", _result(1))
    first = _write_checkpoint(trial, 0, 1)
    _write_checkpoint(trial, 1, 2)
    _write_checkpoint(trial, 2, 1, {**CONFIG, "lr": 0.5})
    assert dict(_read(tmp_path)[0].checkpoints) == {1: first}
