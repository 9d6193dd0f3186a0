"""Makes folders of searches as their files are, with learning curves from a formula instead of from training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tune_cifar.finalists import finalists
from tune_cifar.publish.record import PublishedModel, add_published
from tune_cifar.report.mistakes import find_mistakes, save_mistakes
from tune_cifar.report.predictions import Predictions
from tune_cifar.report.tables import BestModel, write_summary
from tune_cifar.results import Status, TrialRecord, best_trial
from tune_cifar.settings import SearchSettings, save_settings
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.config import EPOCH_METRICS, TrialConfig, check_parameter
from tune_cifar.trials_file import State, save_trials

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SWEEP = """\
# The networks of the tutorial, and what else may matter
method: bayes
metric: {name: val_loss, goal: minimize}
early_terminate: {type: hyperband, min_iter: 2}
run_cap: 24
parameters:
  model: {values: [ResNet18, ResNet34]}
  batch_size: {values: [16, 32, 64, 128]}
  optimizer:
    parameters:
      lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
      momentum: {min: 0.5, max: 0.99}
  augment: {values: [none, flip_crop]}
  epochs: {value: 8}
"""
SETTINGS = SearchSettings(
    data="cifar10",
    train_images=None,
    count=None,
    seed=0,
    cpus_per_trial=None,
    gpus_per_trial=None,
    trials_at_once=None,
    precision="auto",
)
METRIC = Metric("val_loss")


def make_trials(number: int = 24, num_epochs: int = 8, *, seed: int = 1, start: float = 1.7e9) -> list[TrialRecord]:
    """Trials, two at a time, that learn best at lr 0.004 with augmentation; one each is stopped, diverges and fails."""
    random = np.random.RandomState(seed)
    trials = []
    for place in range(number):
        lr = float(10 ** random.uniform(-4, -1))
        config = {
            "model": str(random.choice(["ResNet18", "ResNet34"])),
            "batch_size": int(random.choice([16, 32, 64, 128])),
            "optimizer": {"lr": lr, "momentum": float(random.uniform(0.5, 0.99))},
            "augment": str(random.choice(["none", "flip_crop"])),
            "epochs": num_epochs,
            "seed": 0,
        }
        status: Status = {5: "failed", 9: "diverged"}.get(place, "finished")  # type: ignore[assignment]
        misfit = abs(math.log10(lr / 0.004)) + 0.4 * (config["augment"] == "none")
        if misfit > 1.3 and status == "finished":
            status = "stopped"
        trained = {"failed": 1, "diverged": 3, "stopped": 2}.get(status, num_epochs)
        record = TrialRecord(place + 1, f"t{place + 1:04}", config, status)
        seconds = 40.0 if config["model"] == "ResNet18" else 71.0
        for epoch in range(1, trained + 1):
            loss = 0.5 + 0.35 * misfit + 1.6 * math.exp(-epoch / 3) + float(random.normal(0, 0.02))
            if status == "diverged" and epoch == trained:
                loss = math.nan
            row = {
                "epoch": epoch,
                "step": 100 * epoch,
                "train_loss": loss * (0.95 - 0.02 * epoch),
                "val_loss": loss,
                "val_accuracy": max(0.1, 0.97 - 0.3 * loss) if math.isfinite(loss) else 0.1,
                "epoch_runtime (seconds)": seconds,
                "reported_at": start + place // 2 * 600 + epoch * seconds + place % 2 * 3.5,
                "logged": [loss] if math.isfinite(loss) else [],
            }
            record.add_epoch(row)
        record.message = {
            "failed": "RuntimeError: CUDA out of memory. Tried to allocate 98.00 MiB",
            "diverged": "diverged: val_loss is nan in epoch 3",
            "stopped": "stopped at band 2: val_loss 1.9130 is not among the best third",
        }.get(status, "")
        trials.append(record)
    return trials


def add_repeats(trials: list[TrialRecord], metric: Metric = METRIC, seeds: Sequence[int] = (1, 2)) -> None:
    """Repeat the best two finished trials with other seeds."""
    own = sorted((t for t in trials if t.status == "finished"), key=lambda t: t.best_value(metric) or 0.0)
    for seed in seeds:
        for first in own[:2]:
            number = len(trials) + 1
            rows = [{**row, "val_loss": row["val_loss"] + 0.01 * seed} for row in first.epochs]
            record = TrialRecord(number, f"t{number:04}", {**first.config, "seed": seed}, "finished", rows)
            record.repeat_of = first.number
            trials.append(record)


def make_predictions(class_names: Sequence[str] = CLASSES, number: int = 600) -> Predictions:
    """Predictions of coloured noise, three of four right; cats and dogs are taken for each other most."""
    random = np.random.RandomState(3)
    classes = len(class_names)
    labels = np.arange(number) % classes
    scores = random.gamma(0.4, size=(number, classes))
    scores[np.arange(number), labels] += 1.2
    if classes > 5:
        scores[labels == 3, 5] += 0.9
        scores[labels == 5, 3] += 0.7
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    base = random.randint(40, 216, (classes, 1, 1, 3))[labels]
    images = np.clip(base + random.randint(-40, 40, (number, 32, 32, 3)), 0, 255).astype(np.uint8)
    return Predictions(tuple(class_names), np.arange(number), images, labels, scores.argmax(axis=1), scores)


def make_search(
    folder: Path,
    trials: Sequence[TrialRecord],
    *,
    state: State = "complete",
    sweep: str = SWEEP,
    settings: SearchSettings = SETTINGS,
    predictions: Predictions | None = None,
    fingerprint: str = "sha256:0f343b0931126a20f133d67c2b018a3b",
) -> Path:
    """Write the files of a search into `folder`, those of its end too unless it is running; returns the folder."""
    folder.mkdir(parents=True)
    source = folder.parent / f"{folder.name}.yaml"
    source.write_text(sweep)
    save_settings(folder, settings, source)
    metric = load_sweep(source, check_parameter, EPOCH_METRICS).metric
    save_trials(folder, trials, state)
    if state == "running":
        return folder
    best = best_trial(trials, metric)
    predictions = predictions or make_predictions()
    model = _best_model(best, metric, predictions) if best else None
    (folder / "best").mkdir()
    if model:
        save_mistakes(folder / "best", find_mistakes(predictions))
    found = finalists(list(trials), metric)
    write_summary(
        folder,
        name=folder.name,
        metric=metric,
        trials=trials,
        best=model,
        interrupted=state == "interrupted",
        wall_seconds=4321.0,
        data={"name": "cifar10", "fingerprint": fingerprint, "test_images": len(predictions.labels)},
        versions={"tune_cifar": "0.1.0", "python": "3.11.9", "torch": "2.15.0"},
        finalists=found,
        winner=found[0] if found else None,
    )
    return folder


def publish(folder: Path) -> None:
    """Note two places to which the model of a search was published."""
    for target, uri in (("s3://models/cifar", "s3://models/cifar/ResNet18-a"), ("models/", "models/ResNet18-a")):
        add_published(folder, PublishedModel(target, "ResNet18-a", uri, "ab" * 32, "2026-11-23T16:30:00+00:00", uri))


def _best_model(best: TrialRecord, metric: Metric, predictions: Predictions) -> BestModel:
    epoch = best.best_epoch(metric) or {}
    config = TrialConfig.from_parameters(best.config)
    accuracy = float((predictions.labels == predictions.predicted).mean())
    model = BestModel(
        trial_id=best.trial_id,
        number=best.number,
        config=best.config,
        epoch=epoch["epoch"],
        val_loss=epoch["val_loss"],
        val_accuracy=epoch["val_accuracy"],
        test_loss=0.71,
        test_accuracy=accuracy,
        model=f"best/{config.model}-epchs-{config.epochs}-bs-{config.batch_size}-lr-{config.lr:.6f}.pth",
    )
    return dataclasses.replace(model)
