from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from tune_cifar.trial.data.digits import load_digits_images


def test_digits_are_32x32_grey_as_rgb_in_two_stratified_parts() -> None:
    source = load_digits_images()
    assert source.class_names == tuple("0123456789")
    assert (len(source.train), len(source.test)) == (1438, 359)
    assert source.train.images.shape == (1438, 32, 32, 3)
    assert (source.train.images.dtype, source.train.labels.dtype) == (np.uint8, np.int64)
    assert source.train.images.flags.c_contiguous
    assert (source.train.images[..., 0] == source.train.images[..., 2]).all()
    assert np.abs(np.bincount(source.test.labels) - np.bincount(source.train.labels) / 4).max() < 2


def test_scaling_keeps_digits_and_labels_together() -> None:
    source = load_digits_images()
    bundled = load_digits()
    # Each block of 4x4 pixels stands for one pixel; bilinear scaling blurs it with its neighbours.
    blocks = source.test.images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)).reshape(-1, 64)
    originals = bundled.images.reshape(-1, 64) * (255 / 16)
    nearest = ((blocks[:, None] - originals[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert (bundled.target[nearest] == source.test.labels).mean() > 0.99
    assert source.test.images.max() > 240
    assert source.test.images.min() == 0
