from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from tune_cifar.publish.best_model import model_file_name, write_model
from tune_cifar.trial.config import TrialConfig


def _write(folder: Path, **changes: Any) -> Path:
    weights = {"layer.weight": torch.arange(12.0).reshape(3, 4).t()}
    values: dict[str, Any] = {
        "config": TrialConfig(lr=0.00421056, batch_size=32, epochs=5),
        "trial_id": "abc",
        "epoch": 3,
        "metric": "val_loss",
        "metric_value": 0.5,
        "scores": {"test_accuracy": 0.75},
        "class_names": ("cat", "dog"),
        "data": "digits",
        "data_fingerprint": "sha256:1",
        "versions": {"torch": "2"},
    }
    return write_model(folder / "best", weights, **{**values, **changes})


def test_the_name_is_the_tutorials() -> None:
    config = TrialConfig(model="ResNet34", lr=0.00421056, batch_size=32, epochs=5)
    assert model_file_name(config) == "ResNet34-epchs-5-bs-32-lr-0.004211.pth"


def test_the_file_is_a_plain_state_dict_and_the_manifest_tells_the_truth(tmp_path: Path) -> None:
    path = _write(tmp_path)
    weights = torch.load(path, weights_only=True)
    assert torch.equal(weights["layer.weight"], torch.arange(12.0).reshape(3, 4).t())
    assert weights["layer.weight"].is_contiguous()
    manifest = json.loads((path.parent / "manifest.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["size_bytes"] == path.stat().st_size
    assert manifest["config"]["lr"] == 0.00421056
    assert (manifest["model"], manifest["stem"], manifest["pixel_mean"]) == ("ResNet18", "imagenet", 0.5)
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, "manifest.json"])
