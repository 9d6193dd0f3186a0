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
    batch_sizes,
    draw_epoch,
    normalise,
    num_used_images,
    ordered_batches,
    step_sizes,
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
    order, change = draw_epoch(70, "none", _generator())
    assert sorted(order.tolist()) == list(range(70))
    assert change is None
    assert torch.equal(draw_epoch(70, "none", _generator())[0], order)
    assert not torch.equal(draw_epoch(70, "none", _generator(4))[0], order)
    assert torch.equal(draw_epoch(70, "flip_crop", _generator())[0], order)


@pytest.mark.parametrize(
    ("num_images", "sizes"), [(64, [32, 32]), (65, [32, 32]), (66, [32, 32, 2]), (70, [32, 32, 6]), (5, [5])]
)
def test_a_last_batch_of_one_image_is_left_out(num_images: int, sizes: list[int]) -> None:
    assert batch_sizes(num_images, 32) == sizes
    assert sum(sizes) == num_used_images(num_images, 32)
    assert step_sizes(num_images, 32) == sorted(set(sizes), reverse=True)


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


def test_draws_are_copied_in_place() -> None:
    room, drawn = CropAndFlip.empty(30, CPU), CropAndFlip.draw(30, _generator())
    address = room.down.data_ptr()
    room.copy_(drawn)
    assert room.down.data_ptr() == address
    rows = torch.arange(30)
    images = torch.randint(0, 256, (30, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(room.apply(images, rows), drawn.apply(images, rows))


def test_read_only_arrays_are_shared_and_not_copied() -> None:
    split = ImageSplit(np.zeros((4, 32, 32, 3), np.uint8), np.arange(4))
    split.images.setflags(write=False)
    data = DeviceImages.from_split(split, CPU)
    assert data.images.data_ptr() == split.images.ctypes.data
    assert [len(labels) for _, labels in ordered_batches(data, 3)] == [3, 1]
