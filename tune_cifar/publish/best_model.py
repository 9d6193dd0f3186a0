"""Writes a trained model for others: weights under the tutorial's name, and a manifest that tells what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.trial.batches import PIXEL_MEAN, PIXEL_STD
from tune_cifar.trial.checkpoint import load_weights, save_weights
from tune_cifar.trial.config import TrialConfig

MANIFEST_FILE = "manifest.json"

_DATA_LICENCES = {
    "cifar10": "none is stated; its authors ask to cite Krizhevsky 2009 (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "digits": "CC BY 4.0 (https://doi.org/10.24432/C50P49)",
}


@dataclass(frozen=True)
class Manifest:
    """What a model file is: how to build the network, how it was trained and scored, and its checksum.

    `other_files` maps the name of each other file that was published with it to its sha256.
    """

    file: str
    sha256: str
    size_bytes: int
    model: str
    stem: str
    class_names: tuple[str, ...]
    pixel_mean: float
    pixel_std: float
    config: Mapping[str, Any]
    trial_id: str
    epoch: int
    metric: str
    metric_value: float
    scores: Mapping[str, float]
    data: str
    data_fingerprint: str
    versions: Mapping[str, str]
    # Of a published model only, or of newer searches: a manifest without these is read as well.
    data_licence: str = ""
    other_files: Mapping[str, str] = field(default_factory=dict)


def model_file_name(config: TrialConfig) -> str:
    """The tutorial's name for a model, such as `ResNet18-epchs-5-bs-32-lr-0.004211.pth`."""
    return f"{config.model}-epchs-{config.epochs}-bs-{config.batch_size}-lr-{round(config.lr, 6)}.pth"


def write_model(
    folder: Path,
    weights_file: Path,
    *,
    config: TrialConfig,
    trial_id: str,
    epoch: int,
    metric: str,
    metric_value: float,
    scores: Mapping[str, float],
    class_names: tuple[str, ...],
    data: str,
    data_fingerprint: str,
    versions: Mapping[str, str],
) -> Path:
    """Write `<tutorial's name>.pth` and manifest.json into `folder`, and return the model's path."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / model_file_name(config)
    partial = target.with_suffix(".partial")
    save_weights(load_weights(weights_file), partial)
    manifest = Manifest(
        file=target.name,
        sha256=file_sha256(partial),
        size_bytes=partial.stat().st_size,
        model=config.model,
        stem=config.stem,
        class_names=class_names,
        pixel_mean=PIXEL_MEAN,
        pixel_std=PIXEL_STD,
        config=config.as_dict(),
        trial_id=trial_id,
        epoch=epoch,
        metric=metric,
        metric_value=metric_value,
        scores=dict(scores),
        data=data,
        data_fingerprint=data_fingerprint,
        versions=dict(versions),
        data_licence=data_licence(data),
    )
    # A reader sees a whole file or none: it is renamed into place when it is complete.
    partial.replace(target)
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    return target


def data_licence(data: str) -> str:
    """The licence of the data set called `data`, and who says so, where that is known."""
    return _DATA_LICENCES.get(data, "not known; ask where the images came from")


def read_manifest(model_file: Path) -> Manifest | None:
    """The manifest beside `model_file` if there is one of that file; raises `UserError` when the checksum differs."""
    path = model_file.parent / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
        manifest = Manifest(**{**values, "class_names": tuple(values["class_names"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a manifest of this project ({error}). Move it away to go on without.") from None
    if manifest.file != model_file.name:
        return None
    if file_sha256(model_file) != manifest.sha256:
        raise UserError(
            f"{model_file} is not the file that {path.name} beside it describes: its sha256 differs. "
            "Copy both again from where they came, or move the manifest away to go on without."
        )
    return manifest


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
