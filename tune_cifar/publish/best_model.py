"""Writes a trained model for others: weights under the tutorial's name, and a manifest that tells what they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tune_cifar.files import replacing
from tune_cifar.publish.manifest import Manifest, file_sha256, write_manifest
from tune_cifar.trial.batches import PIXEL_MEAN, PIXEL_STD
from tune_cifar.trial.checkpoint import save_weights
from tune_cifar.trial.config import TrialConfig

_DATA_LICENCES = {
    "cifar10": "none is stated; its authors ask to cite Krizhevsky 2009 (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "digits": "CC BY 4.0 (https://doi.org/10.24432/C50P49)",
}


def model_file_name(config: TrialConfig) -> str:
    """The tutorial's name for a model, such as `ResNet18-epchs-5-bs-32-lr-0.004211.pth`."""
    return f"{config.model}-epchs-{config.epochs}-bs-{config.batch_size}-lr-{round(config.lr, 6)}.pth"


def write_model(
    folder: Path,
    weights: Mapping[str, Tensor],
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
    """Write `<tutorial's name>.pth`, with `weights` in torchvision's layout, and manifest.json into `folder`.

    Returns the model's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / model_file_name(config)
    with replacing(target) as partial:
        save_weights(weights, partial)
        sha256, size_bytes = file_sha256(partial), partial.stat().st_size
    manifest = Manifest(
        file=target.name,
        sha256=sha256,
        size_bytes=size_bytes,
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
    write_manifest(manifest, folder)
    return target


def data_licence(data: str) -> str:
    """The licence of the data set called `data`, and who says so, where that is known."""
    return _DATA_LICENCES.get(data, "not known; ask where the images came from")
