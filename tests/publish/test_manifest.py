from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.publish.conftest import NAME
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.manifest import add_file, find_manifest, parse_manifest, read_manifest


@pytest.fixture
def model(search: Path) -> Path:
    return search / "best" / f"{NAME}.pth"


def test_it_reads_back(model: Path) -> None:
    manifest = read_manifest(model)
    assert manifest is not None
    assert manifest == find_manifest(model.parent)
    assert manifest.class_names == tuple("0123456789")
    assert manifest.scores == {"val_loss": 0.5, "test_accuracy": 0.75}
    assert (manifest.files, manifest.sha256_of(NAME)) == ((model.name,), None)


def test_a_file_of_another_size_is_noticed(model: Path) -> None:
    with model.open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"it has \d+ bytes, where the manifest has \d+"):
        read_manifest(model)


def test_a_file_of_other_bytes_is_noticed(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(UserError, match="its sha256 differs"):
        read_manifest(model)


def test_it_vouches_for_the_files_beside_the_weights(bundle: Bundle) -> None:
    safetensors = bundle.files[1].path
    assert read_manifest(safetensors) == bundle.manifest
    safetensors.write_bytes(b"other")
    with pytest.raises(UserError, match="its sha256 differs"):
        read_manifest(safetensors)


def test_a_file_is_added(model: Path) -> None:
    (model.parent / "model.onnx").write_bytes(b"graph")
    add_file(model.parent / "model.onnx")
    manifest = read_manifest(model.parent / "model.onnx")
    assert manifest is not None
    assert manifest.files == (model.name, "model.onnx")
    assert sorted(path.name for path in model.parent.iterdir()) == [model.name, "manifest.json", "model.onnx"]


def test_a_manifest_of_another_file_is_none_of_ours(model: Path) -> None:
    assert read_manifest(model.rename(model.with_name("renamed.pth"))) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"file": 1}', "\x00"])
def test_a_broken_one_is_named(model: Path, text: str) -> None:
    (model.parent / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json is not a manifest of this project"):
        read_manifest(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../../x.pth"},
        {"file": ""},
        {"file": ".."},
        {"sha256": "../.."},
        {"sha256": None},
        {"other_files": {"/etc/passwd": "0" * 64}},
        {"other_files": []},
        {"model": "VGG"},
        {"model": 3},
        {"stem": "other"},
        {"scores": {"test_accuracy": "high"}},
    ],
    ids=str,
)
def test_what_came_from_elsewhere_cannot_name_other_places(model: Path, changes: dict[str, Any]) -> None:
    values = json.loads((model.parent / "manifest.json").read_text()) | changes
    with pytest.raises(UserError, match=r"^here is not a manifest of this project"):
        parse_manifest(json.dumps(values), "here")


def test_a_folder_without_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no model in .*: no manifest\.json"):
        find_manifest(tmp_path)
