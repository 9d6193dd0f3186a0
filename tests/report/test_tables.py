from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.finalists import finalists
from tune_cifar.report.tables import BestModel, write_summary, write_trials
from tune_cifar.results import Status, TrialRecord
from tune_cifar.sweep.schema import Metric

ACCURACY = Metric("val_accuracy", "maximize")


def _trial(number: int, status: Status, accuracies: list[float], **config: Any) -> TrialRecord:
    rows = [
        {
            "epoch": epoch,
            "val_loss": 1 - value,
            "val_accuracy": value,
            "epoch_runtime (seconds)": 1.5,
            "logged": [value],
        }
        for epoch, value in enumerate(accuracies, start=1)
    ]
    return TrialRecord(number, f"t{number}", config, status, rows, "why" if status == "failed" else "")


TRIALS = [
    _trial(1, "finished", [0.5, 0.7, 0.6], lr=0.1, optimizer={"momentum": 0.9}),
    _trial(2, "failed", [], lr=0.2, extra="a,b"),
]


def test_trials_csv_has_the_best_epoch_by_the_searchs_own_metric(tmp_path: Path) -> None:
    path = write_trials(tmp_path, TRIALS, ACCURACY)
    with path.open() as file:
        first, second = csv.DictReader(file)
    assert first["best_val_accuracy"] == "0.7"
    assert first["best_epoch"] == "2"
    assert float(first["val_loss"]) == 1 - 0.7
    assert (first["lr"], first["optimizer.momentum"], first["extra"]) == ("0.1", "0.9", "")
    assert (first["epochs_trained"], first["seconds"]) == ("3", "4.5")
    assert (second["status"], second["message"], second["extra"]) == ("failed", "why", "a,b")
    assert (second["best_val_accuracy"], second["best_epoch"], second["epochs_trained"]) == ("", "", "0")


def test_a_repeat_names_the_trial_that_it_repeats(tmp_path: Path) -> None:
    repeat = _trial(3, "finished", [0.6], lr=0.1, epochs=9)
    repeat.repeat_of = 1
    with write_trials(tmp_path, [*TRIALS, repeat], ACCURACY).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["repeat_of"] for row in rows] == ["", "", "1"]
    assert (rows[2]["epochs"], rows[2]["epochs_trained"]) == ("9", "1")


def test_trials_csv_says_where_each_trial_ran(tmp_path: Path) -> None:
    trial = _trial(1, "finished", [0.6])
    trial.where = "node-1 GPU 3"
    with write_trials(tmp_path, [trial, TRIALS[1]], ACCURACY).open() as file:
        assert [row["where"] for row in csv.DictReader(file)] == ["node-1 GPU 3", ""]


def test_summary_has_the_finalists_with_every_seed(tmp_path: Path) -> None:
    first, other = _trial(1, "finished", [0.5, 0.7], lr=0.1, seed=0), _trial(2, "finished", [0.8], lr=0.2, seed=0)
    repeat, diverged = _trial(3, "finished", [0.9], lr=0.1, seed=1), _trial(4, "diverged", [], lr=0.2, seed=1)
    repeat.repeat_of, diverged.repeat_of = 1, 2
    trials = [first, other, repeat, diverged]
    found = finalists(trials, ACCURACY)
    path = write_summary(
        tmp_path,
        name="mine",
        metric=ACCURACY,
        trials=trials,
        best=None,
        interrupted=False,
        wall_seconds=1,
        data={},
        versions={},
        finalists=found,
        winner=found[0],
    )
    assert json.loads(path.read_text())["finalists"] == [
        {
            "number": 1,
            "won": True,
            "config": {"lr": 0.1, "seed": 0},
            "mean": 0.8,
            "standard_deviation": pytest.approx(0.1414, abs=1e-4),
            "runs": [
                {"number": 1, "seed": 0, "status": "finished", "val_accuracy": 0.7},
                {"number": 3, "seed": 1, "status": "finished", "val_accuracy": 0.9},
            ],
        },
        {
            "number": 2,
            "won": False,
            "config": {"lr": 0.2, "seed": 0},
            "mean": 0.8,
            "standard_deviation": None,
            "runs": [
                {"number": 2, "seed": 0, "status": "finished", "val_accuracy": 0.8},
                {"number": 4, "seed": 1, "status": "diverged", "val_accuracy": None},
            ],
        },
    ]


def test_summary_counts_and_costs(tmp_path: Path) -> None:
    best = BestModel("t1", 1, {"lr": 0.1}, 2, 0.3, 0.7, 0.4, 0.65, "best/model.pth")
    path = write_summary(
        tmp_path,
        name="mine",
        metric=ACCURACY,
        trials=TRIALS,
        best=best,
        interrupted=True,
        wall_seconds=12.3456,
        data={"name": "digits"},
        versions={"torch": "2"},
    )
    summary = json.loads(path.read_text())
    assert (summary["metric"], summary["mode"], summary["complete"]) == ("val_accuracy", "max", False)
    assert summary["trials"] == {"finished": 1, "failed": 1}
    assert (summary["epochs_trained"], summary["training_seconds"], summary["wall_seconds"]) == (3, 4.5, 12.346)
    assert summary["best"] == {
        "trial_id": "t1",
        "number": 1,
        "config": {"lr": 0.1},
        "epoch": 2,
        "val_loss": 0.3,
        "val_accuracy": 0.7,
        "test_loss": 0.4,
        "test_accuracy": 0.65,
        "model": "best/model.pth",
    }
