"""`python -m tune_cifar.evaluate` gives the scores that were written with a model, in every form that comes back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import run_here
from tests.publish.conftest import NAME, Store, write_search
from tests.publish.test_model_file import wrap
from tune_cifar import evaluate
from tune_cifar.publish.bundle import make_bundle
from tune_cifar.trial.batches import DeviceImages
from tune_cifar.trial.data import load_dataset
from tune_cifar.trial.evaluation import evaluate_model
from tune_cifar.trial.model import build_model


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A search's folder and a published folder of one ResNet18, and the line that tells its test scores."""
    data = load_dataset("digits")
    network = build_model("ResNet18", num_classes=10, seed=3)
    loss, accuracy = evaluate_model(network, DeviceImages.from_split(data.test, torch.device("cpu")))
    folder = tmp_path_factory.mktemp("scored")
    truth: dict[str, Any] = {"scores": {"test_accuracy": accuracy}, "data_fingerprint": data.fingerprint}
    search = write_search(folder / "results" / "small", network.state_dict(), **truth)
    make_bundle(search / "best", folder / "published")
    return search, folder / "published", f"test     loss {loss:.4f}, accuracy {accuracy:.4f} on 359 images of digits\n"


@pytest.mark.parametrize("form", ["search", "folder", "safetensors", "multipart", "s3"])
def test_each_form_gives_the_scores_that_were_written(
    scored: tuple[Path, Path, str],
    form: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    search, published, line = scored
    sources = {"search": str(search), "folder": str(published), "safetensors": str(published / f"{NAME}.safetensors")}
    if form == "multipart":
        copy = shutil.copytree(published, tmp_path / "copy")
        (copy / f"{NAME}.pth").write_bytes(wrap((published / f"{NAME}.pth").read_bytes(), f"{NAME}.pth"))
        sources[form] = str(copy / f"{NAME}.pth")
    if form == "s3":
        store: Store = request.getfixturevalue("store")
        for name in (f"{NAME}.pth", "manifest.json"):
            store.client.upload_file(str(published / name), "bucket", f"ours/{name}")
        sources[form] = "s3://bucket/ours"
    assert run_here(evaluate.main, [sources[form], "--data", "digits"]) == 0
    output = capsys.readouterr().out
    assert line in output
    assert "when it was written" in output
    assert "no manifest" not in output
    assert ("out of the multipart form" in output) == (form == "multipart")
    assert ("sha256 as in the manifest" in output) == (form == "s3")
