from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tune_cifar.report.finish import write_results
from tune_cifar.report.mistakes import load_mistakes
from tune_cifar.report.predictions import PREDICTIONS_FILE, predict_with_best
from tune_cifar.report.tables import BestModel
from tune_cifar.results import TrialRecord
from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.batches import DeviceImages
from tune_cifar.trial.checkpoint import WEIGHTS_FILE, save_weights
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.device import choose_device
from tune_cifar.trial.evaluation import evaluate_model
from tune_cifar.trial.model import build_model

CONFIG = TrialConfig(model="resnet18", stem="cifar")


@pytest.fixture(scope="module")
def data(make_dataset: Callable[..., ImageDataset]) -> ImageDataset:
    return make_dataset(num_classes=3)


@pytest.fixture(scope="module")
def network(data: ImageDataset) -> torch.nn.Module:
    return build_model(CONFIG.model, num_classes=len(data.class_names), stem=CONFIG.stem, seed=3)


@pytest.fixture
def best(tmp_path: Path, data: ImageDataset, network: torch.nn.Module) -> BestModel:
    """What the end of a search makes of its best trial."""
    save_weights(network.state_dict(), tmp_path / WEIGHTS_FILE)
    row = {"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.5, "epoch_runtime (seconds)": 1.0, "reported_at": 1.0}
    trial = TrialRecord(1, "t1", CONFIG.as_dict(), "finished", [{**row, "logged": [0.5]}])
    model = write_results(
        tmp_path,
        trials=[trial],
        best=trial,
        best_weights=tmp_path / WEIGHTS_FILE,
        metric=Metric("val_loss"),
        data=data,
        interrupted=False,
        wall_seconds=1.0,
    )
    assert model is not None
    return model


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "best" / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_all_predictions_have_the_accuracy_and_loss_of_the_model(
    tmp_path: Path, data: ImageDataset, network: torch.nn.Module, best: BestModel
) -> None:
    predictions = predict_with_best(tmp_path, best, data, "all")
    assert predictions is not None
    assert predictions.rows.tolist() == list(range(len(data.test)))
    device = choose_device()
    loss, accuracy = evaluate_model(network.to(device), DeviceImages.from_split(data.test, device))
    assert (best.test_loss, best.test_accuracy) == (loss, accuracy)
    assert (predictions.predicted == data.test.labels).mean() == pytest.approx(accuracy)
    of_the_label = predictions.scores[np.arange(len(data.test)), data.test.labels]
    assert -np.log(of_the_label).mean() == pytest.approx(loss, abs=1e-5)
    assert predictions.scores.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_mistakes_of_the_report_are_those_of_all_test_images(
    tmp_path: Path, data: ImageDataset, best: BestModel
) -> None:
    mistakes = load_mistakes(tmp_path / "best")
    assert mistakes is not None
    assert mistakes.class_names == data.class_names
    assert mistakes.num_images == len(data.test)
    assert mistakes.num_wrong == round((1 - best.test_accuracy) * len(data.test)) > 0


def test_a_model_that_was_not_scored_has_no_predictions(tmp_path: Path, data: ImageDataset, best: BestModel) -> None:
    with pytest.raises(ValueError, match="trial 1 has not been scored on the test images"):
        predict_with_best(tmp_path, dataclasses.replace(best, test_scores=None), data, 5)


def test_the_file_has_a_row_an_image_with_names_and_scores(tmp_path: Path, data: ImageDataset, best: BestModel) -> None:
    predictions = predict_with_best(tmp_path, best, data, 5)
    assert predictions is not None
    rows = rows_of(tmp_path)
    assert [int(row["index"]) for row in rows] == [0, 8, 16, 24, 32]
    assert list(rows[0]) == ["index", "label", "prediction", "score_class0", "score_class1", "score_class2"]
    for row, image, scores in zip(rows, predictions.images, predictions.scores, strict=True):
        assert (image == data.test.images[int(row["index"])]).all()
        assert row["label"] == data.class_names[data.test.labels[int(row["index"])]]
        written = [float(row[name]) for name in predictions.score_columns]
        assert written == pytest.approx(scores.tolist(), rel=1e-5)
        assert row["prediction"] == data.class_names[written.index(max(written))]


def test_more_images_than_there_are_means_all(tmp_path: Path, data: ImageDataset, best: BestModel) -> None:
    predict_with_best(tmp_path, best, data, 10_000)
    assert len(rows_of(tmp_path)) == len(data.test)


def test_zero_images_means_no_table_also_where_there_was_one(
    tmp_path: Path, data: ImageDataset, best: BestModel
) -> None:
    predict_with_best(tmp_path, best, data, 3)
    assert (tmp_path / "best" / PREDICTIONS_FILE).exists()
    assert predict_with_best(tmp_path, best, data, 0) is None
    assert not (tmp_path / "best" / PREDICTIONS_FILE).exists()
