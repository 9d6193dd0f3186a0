"""The dataset every trial sees: fixed stratified parts and a fingerprint, so that results can be compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from tune_cifar.errors import UserError

VALIDATION_SHARE = 10
"""One in this many training images is set apart for validation: 5,000 of CIFAR-10's 50,000."""

# The split must not follow the search's seed: trials of two searches are then measured on the same images.
_VALIDATION_SEED = 20_090_408
_SUBSET_SEED = 20_090_409


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images with their labels: `images` uint8 [n, 32, 32, 3], C-contiguous, and `labels` int64 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> ImageSplit:
        """A copy of the given rows, in the order given."""
        return ImageSplit(self.images[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class SourceImages:
    """A source before its validation images are set apart; a label is an index of `class_names`."""

    class_names: tuple[str, ...]
    train: ImageSplit
    test: ImageSplit


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A dataset in three parts; `fingerprint` covers them whole, whatever `train_images` keeps."""

    name: str
    class_names: tuple[str, ...]
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    fingerprint: str


def build_dataset(name: str, source: SourceImages, *, train_images: int | None) -> ImageDataset:
    """Check `source`, set a tenth of its training images apart to validate, keep `train_images` of the rest.

    Every class has an image in the part that stays for training, also where images are few. Raises
    `UserError` where the images do not allow that or there are fewer than `train_images`.
    """
    _check_classes(name, source)
    num_classes = len(source.class_names)
    num_validation = max(round(len(source.train) / VALIDATION_SHARE), num_classes)
    kept = stratified_rows(source.train.labels, len(source.train) - num_validation, seed=_VALIDATION_SEED)
    train = source.train.take(np.flatnonzero(kept))
    validation = source.train.take(np.flatnonzero(~kept))
    fingerprint = _fingerprint(source.class_names, train, validation, source.test)
    if train_images is not None:
        if not num_classes <= train_images <= len(train):
            raise UserError(
                f"train_images: {name} has {num_classes} classes and {len(train)} training images besides "
                f"those for validation, so it must be from {num_classes} to {len(train)}, got {train_images}."
            )
        train = train.take(np.flatnonzero(stratified_rows(train.labels, train_images, seed=_SUBSET_SEED)))
    return ImageDataset(name, source.class_names, train, validation, source.test, fingerprint)


def stratified_rows(labels: np.ndarray, num_rows: int, *, seed: int) -> np.ndarray:
    """Choose `num_rows` rows, some of every class and all classes in proportion; returns a mask bool [n].

    Labels are 0 to K-1, each with a row, and K <= num_rows <= n. Each class gets one row and its share of the
    others by largest remainder. The choice depends on nothing but the arguments: `RandomState` is frozen for
    all versions of numpy (https://numpy.org/neps/nep-0019-rng-policy.html), as `Generator` is not.
    """
    class_sizes = np.bincount(labels)
    num_classes = len(class_sizes)
    spare_rows = len(labels) - num_classes
    shares = (num_rows - num_classes) * (class_sizes - 1)
    quotas = 1 + shares // max(spare_rows, 1)
    largest_remainders = np.argsort(-(shares % max(spare_rows, 1)), kind="stable")
    quotas[largest_remainders[: num_rows - quotas.sum()]] += 1

    random = np.random.RandomState(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label, quota in enumerate(quotas):
        chosen[random.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return chosen


def _check_classes(name: str, source: SourceImages) -> None:
    if not len(source.train):
        raise UserError(f"{name}: there are no training images.")
    if not len(source.test):
        raise UserError(f"{name}: there are no test images.")
    num_classes = len(source.class_names)
    if num_classes < 2:
        raise UserError(f"{name}: all images are of one class; training a classifier needs at least 2.")
    if len(set(source.class_names)) < num_classes:
        raise UserError(f"{name}: two classes have the same name: {', '.join(source.class_names)}.")
    class_sizes = np.bincount(source.train.labels, minlength=num_classes)
    scarce = [f"{source.class_names[label]} ({class_sizes[label]})" for label in np.flatnonzero(class_sizes < 2)]
    if scarce:
        raise UserError(
            f"{name}: each class needs at least 2 training images, one to train and one to validate. "
            f"Too few: {', '.join(scarce)}."
        )


def _fingerprint(class_names: tuple[str, ...], *parts: ImageSplit) -> str:
    digest = hashlib.sha256(json.dumps(class_names).encode())
    for part in parts:
        for array in (part.images, part.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return f"sha256:{digest.hexdigest()}"
