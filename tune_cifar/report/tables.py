"""Writes what a search found as summary.json and trials.csv, the files that people and scripts read first."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from tune_cifar.files import replace_text, replacing
from tune_cifar.finalists import Finalist
from tune_cifar.results import TrialRecord, count_by_status, flatten
from tune_cifar.sweep.schema import Metric

SUMMARY_FILE = "summary.json"
TRIALS_FILE = "trials.csv"
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class BestModel:
    """The winning trial: its values at its best epoch, its score on the test images and its file.

    `test_scores` float32 [test images, classes] are the probabilities that it gives; files have them in other forms.
    """

    trial_id: str
    number: int
    config: Mapping[str, Any]
    epoch: int
    val_loss: float
    val_accuracy: float
    test_loss: float
    test_accuracy: float
    model: str
    test_scores: np.ndarray | None = field(default=None, repr=False, compare=False)

    def for_summary(self) -> dict[str, Any]:
        """All but the test scores, as JSON has it."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "test_scores"}


def write_summary(
    folder: Path,
    *,
    name: str,
    metric: Metric,
    trials: Sequence[TrialRecord],
    best: BestModel | None,
    interrupted: bool,
    stopped_by: str | None = None,
    wall_seconds: float,
    data: Mapping[str, Any],
    versions: Mapping[str, str],
    finalists: Sequence[Finalist] = (),
    winner: Finalist | None = None,
) -> Path:
    """Write summary.json: the best trial, counts by status, cost, data and versions.

    `stopped_by` is what ended an interrupted search: "interrupt", "SIGTERM", "time budget" or "disk".
    Where the best configurations were repeated it has them with the values of all seeds, the best first.
    """
    summary = {
        "name": name,
        "metric": metric.name,
        "mode": "min" if metric.goal == "minimize" else "max",
        "complete": not interrupted,
        **({"stopped_by": stopped_by} if stopped_by else {}),
        "best": best.for_summary() if best else None,
        **({"finalists": [_finalist(one, metric, won=one is winner) for one in finalists]} if finalists else {}),
        "trials": count_by_status(trials),
        "epochs_trained": sum(len(trial.epochs) for trial in trials),
        "training_seconds": round(sum(trial.training_seconds for trial in trials), 3),
        "wall_seconds": round(wall_seconds, 3),
        "data": dict(data),
        "versions": dict(versions),
    }
    path = folder / SUMMARY_FILE
    replace_text(path, json.dumps(summary, indent=2) + "\n")
    return path


def _finalist(finalist: Finalist, metric: Metric, *, won: bool) -> dict[str, Any]:
    spread = finalist.standard_deviation
    return {
        "number": finalist.number,
        "won": won,
        "config": finalist.runs[0].config,
        "mean": finalist.mean,
        "standard_deviation": spread if math.isfinite(spread) else None,
        "runs": [
            {"number": run.number, "seed": seed, "status": run.status, metric.name: run.best_value(metric)}
            for run, seed in zip(finalist.runs, finalist.seeds, strict=True)
        ],
    }


def write_trials(folder: Path, trials: Sequence[TrialRecord], metric: Metric) -> Path:
    """Write trials.csv: a row a trial with its status, its parameters and its best epoch by the metric.

    `repeat_of` is the number of the trial that a row repeats with another seed; `epochs` is a trial's parameter, and
    `epochs_trained` how many it got; `where` is the machine of its last epoch; `failures` counts the attempts that
    failed.
    """
    parameters = sorted({name for trial in trials for name in flatten(trial.config)})
    # The search's own metric comes first where it is another than the tutorial's two.
    scores = list(dict.fromkeys([metric.name, "val_loss", "val_accuracy"]))
    columns = ["number", "id", "status", "repeat_of", *parameters]
    columns += [f"best_{metric.name}", "best_epoch", *scores[1:], "epochs_trained", "seconds"]
    columns += ["where", "failures", "message"]
    path = folder / TRIALS_FILE
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for trial in trials:
            writer.writerow(_row(trial, metric, scores))
    return path


def _row(trial: TrialRecord, metric: Metric, scores: Sequence[str]) -> dict[str, Any]:
    row = {
        "number": trial.number,
        "id": trial.trial_id,
        "status": trial.status,
        "repeat_of": trial.repeat_of or "",
        **flatten(trial.config),
        "epochs_trained": len(trial.epochs),
        "seconds": round(trial.training_seconds, 3),
        "where": trial.where,
        "failures": trial.failures,
        "message": trial.message,
    }
    best = trial.best_epoch(metric)
    if best:
        row[f"best_{metric.name}"] = best[metric.name]
        row["best_epoch"] = best["epoch"]
        row.update({score: best.get(score, "") for score in scores[1:]})
    return row
