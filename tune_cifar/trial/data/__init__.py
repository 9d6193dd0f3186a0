"""The data room: turns a name or a folder into checked arrays of 32x32 images, the same for every trial."""

from __future__ import annotations

from tune_cifar.trial.data.dataset import ImageDataset, ImageSplit
from tune_cifar.trial.data.source import load_dataset

__all__ = ["ImageDataset", "ImageSplit", "load_dataset"]
