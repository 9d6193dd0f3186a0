"""Writes what the best model said of test images as a table, for a look at single mistakes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tune_cifar.files import replacing
from tune_cifar.report.tables import BestModel
from tune_cifar.trial.data import ImageDataset

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
    """Write best/predictions.csv with what the best model said of `num_images` test images; None for 0 images.

    The images are spread evenly over the test split, so that a split ordered by class shows every class.
    """
    table = (folder / model.model).parent / PREDICTIONS_FILE
    if num_images == 0:
        table.unlink(missing_ok=True)  # of the same search before it was resumed
        return None
    if model.test_scores is None:
        raise ValueError(f"trial {model.number} has not been scored on the test images")
    predictions = select_predictions(data, model.test_scores, num_images)
    write_predictions(table, predictions)
    return predictions


def select_predictions(data: ImageDataset, scores: np.ndarray, num_images: int | Literal["all"]) -> Predictions:
    """`num_images` of all predictions; `scores` float32 [test images, classes] are the probabilities of them all."""
    count = len(data.test) if num_images == "all" else min(num_images, len(data.test))
    rows = np.arange(count) * len(data.test) // count
    split, chosen = data.test.take(rows), scores[rows]
    return Predictions(data.class_names, rows, split.images, split.labels, chosen.argmax(axis=1), chosen)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write index, label, prediction and scores as CSV; the images are the test split's at `index`."""
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label", "prediction", *predictions.score_columns])
        names = predictions.class_names
        for row, label, predicted, scores in zip(
            predictions.rows, predictions.labels, predictions.predicted, predictions.scores.tolist(), strict=True
        ):
            writer.writerow([row, names[label], names[predicted], *(f"{score:.6g}" for score in scores)])
