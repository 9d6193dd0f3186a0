"""Writes the model card, the README.md that goes with a published model."""

from __future__ import annotations

import json

import yaml

from tune_cifar.publish.manifest import Manifest
from tune_cifar.trial.config import torchvision_builder_name

# The Hub's names of data sets, where a data set is there (https://huggingface.co/datasets/uoft-cs/cifar10).
_HUB_DATASETS = {"cifar10": "uoft-cs/cifar10"}

_CIFAR_STEM = """network.conv1 = torch.nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
network.maxpool = torch.nn.Identity()
"""


def model_card(manifest: Manifest, name: str) -> str:
    """The card in the Hub's format (https://huggingface.co/docs/hub/model-cards): YAML, then Markdown."""
    scores = "\n".join(f"| {score} | {value:.4f} |" for score, value in sorted(manifest.scores.items()))
    versions = ", ".join(f"{package} {version}" for package, version in sorted(manifest.versions.items()))
    return f"""---
{yaml.safe_dump(_metadata(manifest, name), sort_keys=False).strip()}
---

# {name}

A torchvision `{torchvision_builder_name(manifest.model)}` that tells {len(manifest.class_names)} classes apart: \
{", ".join(manifest.class_names)}. It is the best trial (`{manifest.trial_id}`) of a hyperparameter search, at epoch \
{manifest.epoch}, chosen by `{manifest.metric}` = {manifest.metric_value:.6g} on validation images that are no test \
images.

| score | value |
|---|---|
{scores}

## Load it

```python
import torch, torchvision

network = torchvision.models.{torchvision_builder_name(manifest.model)}(num_classes={len(manifest.class_names)})
{_CIFAR_STEM if manifest.stem == "cifar" else ""}\
network.load_state_dict(torch.load("{manifest.file}", weights_only=True))
network.eval()
```

Images are 32x32 pixels, RGB, with values from 0 to 1, less {manifest.pixel_mean:g}, divided by \
{manifest.pixel_std:g}. The file `{name}.safetensors` holds the same weights: `safetensors.torch.load_file`. \
{_onnx(manifest, name)}`manifest.json` has the sha256 of every file.

## Training

Data: {manifest.data} (fingerprint `{manifest.data_fingerprint}`). Licence of the data: {manifest.data_licence}.

```json
{json.dumps(dict(manifest.config), indent=2)}
```

Versions: {versions}.
"""


def _onnx(manifest: Manifest, name: str) -> str:
    if f"{name}.onnx" not in manifest.other_files:
        return ""
    return (
        f"`{name}.onnx` is for onnxruntime: its input `images` takes float32 [n, 3, 32, 32], RGB, values from 0 "
        "to 1 (it normalises them itself); its output `logits` is float32 [n, classes]. "
    )


def _metadata(manifest: Manifest, name: str) -> dict[str, object]:
    metadata: dict[str, object] = {
        "library_name": "torchvision",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pytorch", "resnet", "tune_cifar"],
        "metrics": ["accuracy"],
    }
    dataset: dict[str, str] = {"name": manifest.data, "type": _HUB_DATASETS.get(manifest.data, manifest.data)}
    if manifest.data in _HUB_DATASETS:
        metadata["datasets"] = [_HUB_DATASETS[manifest.data]]
    if "test_accuracy" in manifest.scores:
        result = {
            "task": {"type": "image-classification"},
            "dataset": dataset,
            "metrics": [{"type": "accuracy", "value": manifest.scores["test_accuracy"], "name": "test accuracy"}],
        }
        metadata["model-index"] = [{"name": name, "results": [result]}]
    return metadata
