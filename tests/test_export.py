"""`python -m tune_cifar.export`, the graph it writes, and that it is published; one export is shared by most tests."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands import REPOSITORY, run, run_here
from tests.publish.conftest import NAME, write_search
from tune_cifar import export
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import make_bundle
from tune_cifar.publish.manifest import find_manifest, read_manifest
from tune_cifar.publish.onnx_export import LOGIT_TOLERANCE
from tune_cifar.trial.batches import normalise
from tune_cifar.trial.data import load_dataset
from tune_cifar.trial.model import build_model

pytestmark = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs the extra tune-cifar[onnx]")


def _weights(scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights whose batch norms have seen images, as those of a trained network have."""
    network = build_model("ResNet18", num_classes=10, seed=0)
    with torch.no_grad():
        network(_images(100))
        network.fc.weight *= scale
    return network.state_dict()


def _images(number: int) -> torch.Tensor:
    return normalise(torch.from_numpy(np.array(load_dataset("digits").test.images[:number])))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a search whose model was exported, and all that was printed."""
    folder = tmp_path_factory.mktemp("export")
    write_search(folder / "results" / "small", _weights())
    done = run("export", "results/small", "onnx", "--cpu-threads", "1", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "results" / "small", done.stdout + done.stderr


@pytest.fixture(scope="module")
def session(exported: tuple[Path, str]) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(exported[0] / "best" / f"{NAME}.onnx", providers=["CPUExecutionProvider"])


def test_the_user_gets_one_line(exported: tuple[Path, str]) -> None:
    search, output = exported
    assert output.startswith(f"onnx     results/small/best/{NAME}.onnx: 44.")
    assert " MB, predicts as torch does on 256 test images, logits within " in output
    assert output.count("\n") == 1
    names = [f"{NAME}.onnx", f"{NAME}.pth", "manifest.json"]
    assert sorted(path.name for path in (search / "best").iterdir()) == names


@pytest.mark.parametrize("number", [1, 5])
def test_it_takes_pixels_in_batches_of_any_size(exported: tuple[Path, str], session: Any, number: int) -> None:
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(float)", ["batch", 3, 32, 32])
    assert (given.name, given.type, given.shape) == ("logits", "tensor(float)", ["batch", 10])
    pixels = load_dataset("digits").test.images[:number].transpose(0, 3, 1, 2).astype(np.float32) / 255
    (logits,) = session.run(None, {"images": pixels})
    network = build_model("ResNet18", num_classes=10, seed=1).eval()
    network.load_state_dict(torch.load(exported[0] / "best" / f"{NAME}.pth", weights_only=True))
    with torch.inference_mode():
        expected = network(_images(number)).numpy()
    assert np.abs(logits - expected).max() < LOGIT_TOLERANCE


def test_the_graph_says_what_it_is_and_not_where_it_was_made(exported: tuple[Path, str], session: Any) -> None:
    search, _ = exported
    facts = session.get_modelmeta().custom_metadata_map
    manifest = find_manifest(search / "best")
    assert json.loads(facts["class_names"]) == list(manifest.class_names)
    assert json.loads(facts["config"]) == manifest.config
    assert facts["weights_sha256"] == manifest.sha256
    assert facts["input"].startswith("float32 [n, 3, 32, 32], RGB, values 0..1")
    content = (search / "best" / f"{NAME}.onnx").read_bytes()
    for place in (REPOSITORY, Path(torch.__file__).parent, search.parent.parent):
        assert str(place).encode() not in content


def test_it_is_published_with_the_weights(exported: tuple[Path, str], tmp_path: Path) -> None:
    best = exported[0] / "best"
    bundle = make_bundle(best, tmp_path / "staging")
    graph = tmp_path / "staging" / f"{NAME}.onnx"
    assert [file.name for file in bundle.files if file.name.endswith(".onnx")] == [graph.name]
    assert graph.read_bytes() == (best / graph.name).read_bytes()
    assert read_manifest(graph) == bundle.manifest
    assert f"`{graph.name}` " in (tmp_path / "staging" / "README.md").read_text()


def test_a_graph_that_changed_is_not_published(exported: tuple[Path, str], tmp_path: Path) -> None:
    best = shutil.copytree(exported[0] / "best", tmp_path / "best")
    (best / f"{NAME}.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match=r"\.onnx is not the file that manifest\.json beside it describes: its sha256"):
        make_bundle(best, tmp_path / "staging")
    (best / f"{NAME}.onnx").unlink()
    with pytest.raises(UserError, match=r"manifest\.json lists .*\.onnx, which is not there"):
        make_bundle(best, tmp_path / "staging")


def test_a_graph_that_answers_otherwise_is_removed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Logits of a hundred million have no digits left for the tolerance.
    search = write_search(tmp_path / "search", _weights(scale=1e8))
    assert run_here(export.main, [str(search), "onnx", "--cpu-threads", "1"]) == 1
    output = capfd.readouterr()
    assert output.out.startswith(f"failed   {search / 'best' / NAME}.onnx: onnxruntime predicts another class for ")
    assert "where 1e-03 is allowed. The file was removed.\n" in output.out
    assert output.err == ""
    assert sorted(path.name for path in (search / "best").iterdir()) == [f"{NAME}.pth", "manifest.json"]
    assert find_manifest(search / "best").other_files == {}


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = write_search(tmp_path / "search", {"layer": torch.zeros(3)})
    assert run_here(export.main, [str(search), "tflite"]) == 2
    assert run_here(export.main, [str(tmp_path), "onnx"]) == 2
    assert "is not the folder of a search" in capsys.readouterr().err
    assert run_here(export.main, [str(search), "onnx"]) == 2
    assert "does not hold the weights of ResNet18" in capsys.readouterr().err
    (search / "best" / f"{NAME}.pth").write_bytes(b"other")
    assert run_here(export.main, [str(search), "onnx"]) == 2
    assert "is not the file that the manifest beside it describes: it has 5 bytes" in capsys.readouterr().err
    shutil.rmtree(search / "best")
    assert run_here(export.main, [str(search), "onnx"]) == 2
    assert "Of a search, no trial has finished then" in capsys.readouterr().err


def test_missing_packages_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tune_cifar.publish.onnx_export.find_spec", lambda name: None)
    assert run_here(export.main, [str(tmp_path), "onnx"]) == 2
    assert "pip install 'tune-cifar[onnx]'" in capsys.readouterr().err
