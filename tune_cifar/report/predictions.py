"""Predicts test images with the best model and writes the scores as a table, for a look at single mistakes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from tune_cifar.publish.best_model import read_manifest
from tune_cifar.report.tables import BestModel
from tune_cifar.trial.batches import DeviceImages, ordered_batches
from tune_cifar.trial.checkpoint import load_weights
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.device import choose_device
from tune_cifar.trial.evaluation import EVALUATION_BATCH_SIZE
from tune_cifar.trial.model import build_model

PREDICTIONS_FILE = "predictions.csv"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of some test images, a row each.

    `rows` int64 [n] are places in the test split, `labels` and `predicted` int64 [n] class numbers, `scores` float32
    [n, classes] probabilities (softmax), `images` uint8 [n, height, width, 3] as people see them.
    """

    class_names: tuple[str, ...]
    rows: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The tutorial's names for the scores' columns, such as `score_cat`."""
        return tuple(f"score_{name}" for name in self.class_names)


def predict_with_best(
    folder: Path, model: BestModel, data: ImageDataset, num_images: int | Literal["all"]
) -> Predictions | None:
    """Predict `num_images` test images with the saved model and write best/predictions.csv; None for 0 images.

    The images are spread evenly over the test split, so that a split ordered by class shows every class.
    """
    path = folder / model.model
    table = path.parent / PREDICTIONS_FILE
    if num_images == 0:
        table.unlink(missing_ok=True)  # of the same search before it was resumed
        return None
    manifest = read_manifest(path)
    if manifest is None:
        raise RuntimeError(f"no manifest beside {path}, which was written with one")
    network = build_model(manifest.model, num_classes=len(data.class_names), stem=manifest.stem, seed=0)
    network.load_state_dict(load_weights(path))
    count = len(data.test) if num_images == "all" else min(num_images, len(data.test))
    predictions = predict(network, data, np.arange(count) * len(data.test) // count)
    write_predictions(table, predictions)
    return predictions


def predict(network: nn.Module, data: ImageDataset, rows: np.ndarray) -> Predictions:
    """What `network` says of the test images `rows`, int64 [n]."""
    device = choose_device()
    network = network.to(device).eval()
    split = data.test.take(rows)
    with torch.inference_mode():
        batches = ordered_batches(DeviceImages.from_split(split, device), EVALUATION_BATCH_SIZE)
        outputs = [network(images).float().softmax(dim=1).cpu() for images, _ in batches]
    scores = torch.cat(outputs).numpy()
    return Predictions(data.class_names, rows, split.images, split.labels, scores.argmax(axis=1), scores)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write index, label, prediction and scores as CSV; the images are the test split's at `index`."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label", "prediction", *predictions.score_columns])
        names = predictions.class_names
        for row, label, predicted, scores in zip(
            predictions.rows, predictions.labels, predictions.predicted, predictions.scores.tolist(), strict=True
        ):
            writer.writerow([row, names[label], names[predicted], *(f"{score:.6g}" for score in scores)])
    partial.replace(path)
