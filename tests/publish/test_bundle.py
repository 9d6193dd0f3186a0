from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.publish.conftest import NAME, write_search
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle, make_bundle
from tune_cifar.publish.manifest import read_manifest
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.model import build_model


def test_a_bundle_is_weights_twice_a_card_and_a_manifest_of_all(bundle: Bundle) -> None:
    assert bundle.name == NAME
    assert [file.name for file in bundle.files] == [
        f"{NAME}.pth",
        f"{NAME}.safetensors",
        "README.md",
        "manifest.json",
    ]
    manifest = json.loads(bundle.files[-1].path.read_text())
    assert manifest["sha256"] == bundle.weights.sha256
    assert manifest["data_licence"] == "CC BY 4.0 (https://doi.org/10.24432/C50P49)"
    for file in bundle.files[1:3]:
        assert manifest["other_files"][file.name] == hashlib.sha256(file.path.read_bytes()).hexdigest()
    weights, tensors = torch.load(bundle.weights.path, weights_only=True), load_file(bundle.files[1].path)
    assert torch.equal(weights["layer.weight"], tensors["layer.weight"])


def test_what_arrived_is_checked_by_the_same_reader(bundle: Bundle) -> None:
    manifest = read_manifest(bundle.weights.path)
    assert manifest is not None
    assert manifest.other_files.keys() == {f"{NAME}.safetensors", "README.md"}


def test_the_same_model_is_the_same_bytes(bundle: Bundle, search: Path, tmp_path: Path) -> None:
    again = make_bundle(search / "best", tmp_path / "again")
    assert [file.sha256 for file in again.files] == [file.sha256 for file in bundle.files]


def test_a_manifest_of_an_older_search_will_do(search: Path, tmp_path: Path) -> None:
    path = search / "best" / "manifest.json"
    values = json.loads(path.read_text())
    del values["data_licence"], values["other_files"]
    path.write_text(json.dumps(values))
    assert make_bundle(search / "best", tmp_path / "staging").manifest.data_licence.startswith("CC BY 4.0")


def test_a_changed_model_is_not_published(search: Path, tmp_path: Path) -> None:
    path = search / "best" / f"{NAME}.pth"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="its sha256 differs"):
        make_bundle(search / "best", tmp_path / "staging")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not a manifest"),
        ('{"file": "x.pth"}', "is not a manifest"),
        ("", "is not a manifest"),
    ],
)
def test_a_wrong_manifest_is_told(search: Path, tmp_path: Path, text: str, message: str) -> None:
    (search / "best" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=message):
        make_bundle(search / "best", tmp_path / "staging")


def test_no_model_is_told(search: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no model in"):
        make_bundle(search, tmp_path / "staging")


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_the_cards_own_code_loads_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str) -> None:
    network = build_model("ResNet18", num_classes=10, stem=stem, seed=0)
    config = TrialConfig(lr=0.00421056, batch_size=32, epochs=5, stem=stem)
    search = write_search(tmp_path / "search", network.state_dict(), config=config)
    bundle = make_bundle(search / "best", tmp_path / "staging")
    card = (tmp_path / "staging" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.75
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(bundle.weights.path.parent)
    names: dict[str, Any] = {}
    exec(code[1], names)  # noqa: S102 - a reader of the card would paste it
    with torch.inference_mode():
        assert names["network"](torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert not names["network"].training
