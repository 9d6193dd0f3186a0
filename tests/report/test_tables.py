from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

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
    assert (first["epochs"], first["seconds"]) == ("3", "4.5")
    assert (second["status"], second["message"], second["extra"]) == ("failed", "why", "a,b")
    assert (second["best_val_accuracy"], second["best_epoch"], second["epochs"]) == ("", "", "0")


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
