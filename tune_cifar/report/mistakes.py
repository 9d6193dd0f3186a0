"""Keeps what the best model gets wrong on the test images, so that a report needs neither the model nor the images."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tune_cifar.errors import UserError
from tune_cifar.files import replace_text
from tune_cifar.saved_json import read_json
from tune_cifar.sweep.problems import LARGEST_INTEGER

if TYPE_CHECKING:
    from tune_cifar.report.predictions import Predictions

MISTAKES_FILE = "mistakes.json"
NUM_WORST = 25


@dataclass(frozen=True)
class Mistake:
    """A test image that was taken for another class: its row in the test split, classes by number, the image as PNG.

    The probabilities are those that the model gives to the true class and to the one it chose.
    """

    row: int
    label: int
    predicted: int
    label_probability: float
    predicted_probability: float
    png_base64: str


@dataclass(frozen=True)
class Mistakes:
    """Counts of all test images, a row a true class and a column a predicted one, and the worst mistakes first."""

    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    worst: tuple[Mistake, ...]

    @property
    def num_images(self) -> int:
        """How many test images there are."""
        return sum(map(sum, self.confusion))

    @property
    def num_wrong(self) -> int:
        """How many of them are taken for another class."""
        return self.num_images - sum(row[label] for label, row in enumerate(self.confusion))


def find_mistakes(predictions: Predictions) -> Mistakes:
    """Count the predictions of all test images and take the mistakes with the lowest probability of the true class."""
    labels, predicted = predictions.labels, predictions.predicted
    confusion = np.zeros((len(predictions.class_names),) * 2, dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    of_label = predictions.scores[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(labels != predicted)
    worst = wrong[np.argsort(of_label[wrong], kind="stable")][:NUM_WORST]
    return Mistakes(
        predictions.class_names,
        tuple(tuple(map(int, row)) for row in confusion),
        tuple(
            Mistake(
                row=int(predictions.rows[index]),
                label=int(labels[index]),
                predicted=int(predicted[index]),
                label_probability=float(of_label[index]),
                predicted_probability=float(predictions.scores[index, predicted[index]]),
                png_base64=_png(predictions.images[index]),
            )
            for index in worst
        ),
    )


def save_mistakes(folder: Path, mistakes: Mistakes) -> None:
    """Write mistakes.json into the folder of the best model."""
    replace_text(folder / MISTAKES_FILE, json.dumps(asdict(mistakes)) + "\n")


def load_mistakes(folder: Path) -> Mistakes | None:
    """Read mistakes.json; None where there is none. Raises `UserError` when it cannot be read."""
    path = folder / MISTAKES_FILE
    if not path.is_file():
        return None
    try:
        mistakes = read_json(path, Mistakes)
        if problem := _problem(mistakes):
            raise ValueError(problem)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Move it away to go on without.") from None
    return mistakes


def _problem(mistakes: Mistakes) -> str | None:
    """What no model can have said, though each value is of its type; None where all is well."""
    num_classes = len(mistakes.class_names)
    if [len(row) for row in mistakes.confusion] != [num_classes] * num_classes:
        return f"confusion must have a row and a column for each of the {num_classes} classes"
    if any(not 0 <= number <= LARGEST_INTEGER for row in mistakes.confusion for number in row):
        return "confusion must hold numbers of images"
    if not mistakes.num_images:
        return "confusion must count at least one image"
    for mistake in mistakes.worst:
        if not (0 <= mistake.label < num_classes and 0 <= mistake.predicted < num_classes):
            return f"the mistake on image {mistake.row} is of no class from 0 to {num_classes - 1}"
    return None


def _png(image: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
