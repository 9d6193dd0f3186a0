"""Marks the best trial's W&B run once the search is over: a tag, the model's name, and a table of its predictions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import wandb

from tune_cifar.publish.record import read_published
from tune_cifar.report.predictions import Predictions
from tune_cifar.report.tables import BestModel
from tune_cifar.tracking.wandb_callback import SearchWandbCallback
from tune_cifar.tracking.wandb_run import Amendment

BEST_TAG = "best"

# The tutorial's names, whatever the images are, so that a report made for one search fits the next.
# https://github.com/gradient-ai/Gradient-WandB-Tutorial/blob/main/train_model_wandb.ipynb
NOTES_KEY = "Notes"
ARTIFACT_NAME = "cifar10_image_predictions"
ARTIFACT_TYPE = "predictions"
TABLE_NAME = "cifar10_predictions"

MARK_FILE = "wandb-best.txt"
"""In the search's folder: the trial whose run is marked, and where that says the model is: once is enough."""


def mark_best_run(
    callback: SearchWandbCallback, folder: Path, model: BestModel, predictions: Predictions | None
) -> None:
    """Tag the run of the best trial, and add the model's name, where it is, its test scores and predictions to it.

    `callback` is that of the search, which has ended; `folder` is the search's. Where W&B is off or does not take
    it, nothing is marked, and a resume of the search tries again.
    """
    name = Path(model.model).stem
    uris = list(dict.fromkeys(entry.uri for entry in read_published(folder) if entry.name == name))
    done = [model.trial_id, *uris]
    marked = marked_run(folder)
    if callback.mode == "disabled" or marked == done:
        return
    summary = {
        NOTES_KEY: name,
        "best_epoch": model.epoch,
        "test_loss": model.test_loss,
        "test_accuracy": model.test_accuracy,
    }
    if uris:
        summary["published"] = uris
    has_table = marked[:1] == done[:1]
    artifact = predictions_artifact(predictions, folder) if predictions and not has_table else None
    if callback.amend(model.trial_id, model.config, Amendment(BEST_TAG, summary, artifact)):
        (folder / MARK_FILE).write_text("\n".join(done) + "\n")


def marked_run(folder: Path) -> list[str]:
    """The trial whose run is marked, and where that says that the model is; nothing where none is."""
    mark = folder / MARK_FILE
    return mark.read_text().split("\n")[:-1] if mark.is_file() else []


def predictions_artifact(predictions: Predictions, folder: Path) -> wandb.Artifact:
    """The tutorial's table of predictions: image, label, prediction and a score a class, a row an image."""
    table = wandb.Table(columns=["image", "label", "prediction", *predictions.score_columns])
    names = predictions.class_names
    for image, label, predicted, scores in zip(
        predictions.images, predictions.labels, predictions.predicted, predictions.scores.tolist(), strict=True
    ):
        table.add_data(wandb.Image(image), names[label], names[predicted], *scores)
    with _staged_in(folder / "wandb"):
        artifact = wandb.Artifact(ARTIFACT_NAME, type=ARTIFACT_TYPE)
        artifact.add(table, TABLE_NAME)
    if not folder.is_absolute():
        # `wandb sync` leaves out, without a word, files that are not where the artifact says (0.31). Relative, they
        # are found by the printed command also where the results were copied to another machine.
        for entry in artifact.manifest.entries.values():
            entry.local_path = os.path.relpath(entry.local_path or "")
    return artifact


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """W&B keeps an artifact's files until `wandb sync` in the user's home; keep them with the search's other files."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before
