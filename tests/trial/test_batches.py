from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from tune_cifar.trial.batches import (
    CropAndFlip,
    DeviceImages,
    normalise,
    num_training_batches,
    ordered_batches,
    training_batches,
)
from tune_cifar.trial.data import ImageSplit

CPU = torch.device("cpu")


def _generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalise_equals_the_tutorials_transform() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    tutorial = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    expected = torch.stack([tutorial(Image.fromarray(image)) for image in pixels])
    assert torch.equal(normalise(torch.from_numpy(pixels)), expected)


def test_an_epoch_has_every_image_once_in_a_seeded_order() -> None:
    pixels = torch.arange(70, dtype=torch.uint8)[:, None, None, None].expand(70, 32, 32, 3)
    data = DeviceImages(pixels, torch.arange(70))
    batches = list(training_batches(data, batch_size=32, augment="none", generator=_generator()))
    labels = torch.cat([labels for _, labels in batches])
    assert [len(images) for images, _ in batches] == [32, 32, 6]
    assert sorted(labels.tolist()) == list(range(70))
    assert torch.equal(torch.cat([images for images, _ in batches]), normalise(data.images[labels]))
    again = training_batches(data, batch_size=32, augment="none", generator=_generator())
    assert torch.equal(torch.cat([labels for _, labels in again]), labels)
    other = training_batches(data, batch_size=32, augment="none", generator=_generator(4))
    assert not torch.equal(torch.cat([labels for _, labels in other]), labels)


@pytest.mark.parametrize(("num_images", "sizes"), [(64, [32, 32]), (65, [32, 32]), (66, [32, 32, 2]), (5, [5])])
def test_a_last_batch_of_one_image_is_left_out(num_images: int, sizes: list[int]) -> None:
    data = DeviceImages(torch.zeros(num_images, 32, 32, 3, dtype=torch.uint8), torch.arange(num_images))
    batches = training_batches(data, batch_size=32, augment="none", generator=_generator())
    assert [len(images) for images, _ in batches] == sizes
    assert num_training_batches(num_images, 32) == len(sizes)


def test_crop_and_flip_equal_torchvisions_image_by_image() -> None:
    images = torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8, generator=_generator())
    change = CropAndFlip.draw(40, _generator())
    rows = torch.randperm(40, generator=_generator())[:16]
    changed = change.apply(images[rows], rows)
    for position, row in enumerate(rows.tolist()):
        padded = functional.pad(images[row].permute(2, 0, 1), [4, 4, 4, 4])
        expected = functional.crop(padded, int(change.down[row]), int(change.right[row]), 32, 32)
        expected = functional.hflip(expected) if change.flip[row] else expected
        assert torch.equal(changed[position].permute(2, 0, 1), expected)
    assert 0 < change.flip.sum() < 40
    assert change.down.min() == 0
    assert change.down.max() == 8


def test_augmented_batches_are_the_drawn_crops_and_flips() -> None:
    data = DeviceImages(torch.randint(0, 256, (50, 32, 32, 3), dtype=torch.uint8), torch.arange(50))
    batches = list(training_batches(data, batch_size=16, augment="flip_crop", generator=_generator()))
    generator = _generator()
    order = torch.randperm(50, generator=generator)
    change = CropAndFlip.draw(50, generator)
    expected = normalise(change.apply(data.images[order], order))
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)


def test_read_only_arrays_are_shared_and_not_copied() -> None:
    split = ImageSplit(np.zeros((4, 32, 32, 3), np.uint8), np.arange(4))
    split.images.setflags(write=False)
    data = DeviceImages.from_split(split, CPU)
    assert data.images.data_ptr() == split.images.ctypes.data
    assert [len(labels) for _, labels in ordered_batches(data, 3)] == [3, 1]
