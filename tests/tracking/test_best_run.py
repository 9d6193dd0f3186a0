from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tracking.wandb_helpers import FakeTrial, epoch_result, read_run, run_files
from tests.tracking.wandb_server import ServedArtifact, ServedRun, WandbServer
from tune_cifar.publish.record import PublishedModel, add_published, now_utc
from tune_cifar.report.predictions import Predictions
from tune_cifar.report.tables import BestModel
from tune_cifar.tracking.best_run import mark_best_run
from tune_cifar.tracking.wandb_callback import SearchWandbCallback

CONFIG = {"model": "ResNet18", "optimizer": {"lr": 0.0042}}
NAME = "ResNet18-epchs-5-bs-32-lr-0.0042"
BEST = BestModel("best", 3, CONFIG, 2, 0.5, 0.2, 0.75, 0.25, f"best/{NAME}.pth")
LOGGED = {"train_loss": 0.25, "epoch": 2, "val_loss": 0.5, "val_accuracy": 0.2, "epoch_runtime (seconds)": 2.0}


def make_predictions(num_classes: int = 3, num_images: int = 6) -> Predictions:
    random = np.random.RandomState(0)
    scores = random.dirichlet(np.ones(num_classes), num_images).astype(np.float32)
    return Predictions(
        class_names=tuple(f"class{number}" for number in range(num_classes)),
        rows=np.arange(num_images),
        images=random.randint(0, 256, (num_images, 32, 32, 3)).astype(np.uint8),
        labels=np.arange(num_images) % num_classes,
        predicted=scores.argmax(axis=1),
        scores=scores,
    )


def search(callback: SearchWandbCallback, *trial_ids: str) -> None:
    for trial_id in trial_ids:
        trial = FakeTrial(trial_id)
        for epoch in (1, 2):
            callback.log_trial_result(epoch, trial, epoch_result(epoch))
        callback.log_trial_end(trial)
    callback.on_experiment_end([])


def sync(folder: Path) -> None:
    tool = Path(sys.executable).parent / "wandb"
    subprocess.run([tool, "sync", folder / "wandb"], check=True, capture_output=True)


def check_mark(run: ServedRun, other: ServedRun) -> None:
    assert run.tags == ["cifar", "best"]
    assert other.tags == ["cifar"]
    assert run.summary["Notes"] == NAME
    assert (run.summary["test_accuracy"], run.summary["test_loss"], run.summary["best_epoch"]) == (0.25, 0.75, 2)
    ended = LOGGED | {"best_val_loss": 0.5, "status": "stopped early"}
    assert {name: run.summary[name] for name in ended} == ended
    assert "Notes" not in other.summary
    assert [row["_step"] for row in run.metrics] == [1, 2, 3, 4]
    assert run.metrics == other.metrics
    assert (run.exit_code, run.display_name, run.group) == (0, "1-ResNet18-lr0.0042", "my search")
    assert run.config["optimizer"] == {"lr": 0.0042}


def check_table(artifact: ServedArtifact, predictions: Predictions) -> None:
    assert (artifact.name, artifact.kind, artifact.run_id) == (
        "cifar10_image_predictions",
        "predictions",
        "my-search-best",
    )
    assert artifact.committed
    assert set(artifact.manifest["contents"]) == set(artifact.files)
    table = json.loads(artifact.files["cifar10_predictions.table.json"])
    names = predictions.class_names
    assert table["columns"] == ["image", "label", "prediction", *(f"score_{name}" for name in names)]
    assert len(table["data"]) == len(predictions.rows)
    for number, (image, label, predicted, *scores) in enumerate(table["data"]):
        pixels = Image.open(io.BytesIO(artifact.files[image["path"]])).convert("RGB")
        assert (np.asarray(pixels) == predictions.images[number]).all()
        assert (label, predicted) == (names[predictions.labels[number]], names[predictions.predicted[number]])
        assert scores == pytest.approx(predictions.scores[number].tolist())


@pytest.mark.parametrize("num_classes", [3, 12])
def test_a_sync_delivers_the_mark_and_the_table_of_an_offline_search(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, tmp_path: Path, num_classes: int
) -> None:
    callback = make_callback(tags=("cifar",), sweep_id="sweep7")
    search(callback, "best", "other")
    time.sleep(1)  # W&B names a run's folder by the second; a real trial takes longer
    predictions = make_predictions(num_classes)
    mark_best_run(callback, tmp_path, BEST, predictions)
    assert server.runs == {}
    sync(tmp_path)
    check_mark(server.runs["my-search-best"], server.runs["my-search-other"])
    check_table(server.artifacts[0], predictions)
    assert {run.sweep for run in server.runs.values()} == {"sweep7"}


def test_an_online_run_is_marked_and_keeps_what_was_done_to_it(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, tmp_path: Path
) -> None:
    callback = make_callback(mode="online", tags=("cifar",), sweep_id="sweep7", notes="from the file")
    search(callback, "best", "other")
    run = server.runs["my-search-best"]
    run.notes = "edited on the page"
    predictions = make_predictions()
    mark_best_run(callback, tmp_path, BEST, predictions)
    check_mark(run, server.runs["my-search-other"])
    check_table(server.artifacts[0], predictions)
    assert run.notes == "edited on the page"
    assert run.sweep == "sweep7"


def test_no_predictions_no_table(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, tmp_path: Path
) -> None:
    callback = make_callback(mode="online", tags=("cifar",))
    search(callback, "best", "other")
    mark_best_run(callback, tmp_path, BEST, None)
    check_mark(server.runs["my-search-best"], server.runs["my-search-other"])
    assert server.artifacts == []


def test_a_run_is_marked_once(make_callback: Callable[..., SearchWandbCallback], tmp_path: Path) -> None:
    callback = make_callback()
    search(callback, "best")
    time.sleep(1)
    mark_best_run(callback, tmp_path, BEST, None)
    assert len(run_files(tmp_path)) == 2
    resumed = make_callback()
    resumed.set_state(callback.get_state() or {})
    mark_best_run(resumed, tmp_path, BEST, None)
    assert len(run_files(tmp_path)) == 2


def test_the_first_file_of_a_marked_run_is_left_as_it_was(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path
) -> None:
    callback = make_callback()
    search(callback, "best")
    (first,) = run_files(tmp_path)
    time.sleep(1)  # the client writes the end of a file just after it says that the run is finished
    before = first.read_bytes()
    assert len(before) > 1000
    mark_best_run(callback, tmp_path, BEST, make_predictions())
    assert first.read_bytes() == before
    mark = read_run(run_files(tmp_path)[1])
    assert (mark.num_rows, mark.tags, mark.summary["Notes"], mark.exit_code) == (0, ["best"], NAME, 0)


def test_the_run_tells_where_its_model_was_published(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path
) -> None:
    callback = make_callback()
    search(callback, "best")
    (tmp_path / "summary.json").write_text("{}")
    for name, uri in ((NAME, "file:///models/a"), ("an-older-model", "file:///models/b"), (NAME, "s3://models/a")):
        add_published(tmp_path, PublishedModel(uri, name, uri, "0" * 64, now_utc(), name))
    add_published(tmp_path, PublishedModel("s3://models/a", NAME, "s3://models/a", "0" * 64, now_utc(), "a commit"))
    mark_best_run(callback, tmp_path, BEST, make_predictions())
    assert read_run(run_files(tmp_path)[1]).summary["published"] == ["file:///models/a", "s3://models/a"]


def test_a_marked_run_is_told_once_of_what_was_published_since(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, tmp_path: Path
) -> None:
    callback = make_callback(tags=("cifar",))
    search(callback, "best", "other")
    predictions = make_predictions()
    time.sleep(1)  # W&B names a run's folder by the second
    mark_best_run(callback, tmp_path, BEST, predictions)
    (tmp_path / "summary.json").write_text("{}")
    add_published(tmp_path, PublishedModel("s3://models", NAME, "s3://models/a", "0" * 64, now_utc(), NAME))
    time.sleep(1)
    for _ in range(2):
        mark_best_run(callback, tmp_path, BEST, predictions)
        assert len(run_files(tmp_path)) == 4
    sync(tmp_path)
    run = server.runs["my-search-best"]
    check_mark(run, server.runs["my-search-other"])
    assert run.summary["published"] == ["s3://models/a"]
    assert len(server.artifacts) == 1


def test_a_server_that_is_gone_is_told_and_a_resume_marks_the_run(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    callback = make_callback(mode="online", tags=("cifar",), init_seconds=2.0)
    search(callback, "best", "other")
    state: dict[str, Any] = callback.get_state() or {}
    server.hang()
    started = time.monotonic()
    mark_best_run(callback, tmp_path, BEST, None)
    assert time.monotonic() - started < 10
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("tune_cifar")]
    assert line.startswith("W&B did not take the mark of the best run (CommError")
    assert line.endswith("); --resume --name my search tries it again.")
    server.answering.set()

    import wandb

    wandb.teardown()  # the resume is another process
    resumed = make_callback(mode="online", tags=("cifar",))
    resumed.set_state(state)
    mark_best_run(resumed, tmp_path, BEST, None)
    check_mark(server.runs["my-search-best"], server.runs["my-search-other"])


def test_disabled_marks_nothing(make_callback: Callable[..., SearchWandbCallback], tmp_path: Path) -> None:
    callback = make_callback(mode="disabled")
    search(callback, "best")
    mark_best_run(callback, tmp_path, BEST, make_predictions())
    assert list(tmp_path.iterdir()) == []
