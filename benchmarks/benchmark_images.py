"""Images for a benchmark of training speed, in files that all of its processes map instead of making their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tune_cifar.errors import UserError
from tune_cifar.runner.gpu_measurement import NUM_CLASSES
from tune_cifar.trial.data import ImageSplit, load_dataset

CIFAR10_TRAINING_IMAGES = 45_000
"""CIFAR-10's training images without those set apart for validation."""


def real_images(source: str, num_images: int) -> ImageSplit:
    """The first of the training images of `source`; raises `UserError` if they are of no use."""
    try:
        data = load_dataset(source)
    except ModuleNotFoundError as missing:
        raise UserError(f"--data {source}: reading it needs {missing.name}, which is not installed.") from None
    if len(data.class_names) != NUM_CLASSES:
        raise UserError(f"--data {source}: the benchmark trains on ten classes, this has {len(data.class_names)}.")
    if len(data.train) < num_images:
        raise UserError(f"--images {num_images}: {source} has {len(data.train)} training images. Ask for fewer.")
    return data.train.take(np.arange(num_images))


def write_images(folder: Path, split: ImageSplit) -> None:
    """Write `split` for `read_images`."""
    np.save(folder / "images.npy", split.images)
    np.save(folder / "labels.npy", split.labels)


def read_images(folder: Path, num_images: int) -> ImageSplit:
    """Map the first `num_images` of what `write_images` wrote; read-only."""
    images, labels = (np.load(folder / f"{name}.npy", mmap_mode="r")[:num_images] for name in ("images", "labels"))
    return ImageSplit(images, labels)
