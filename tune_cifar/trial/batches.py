"""Feeds images to the network from one uint8 array in memory, here because decoding and normalising
image by image costs more than training on a GPU does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_cifar.trial.data import ImageSplit

# The tutorial's Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) after ToTensor: bytes 0..255 become -1..1.
# https://github.com/gradient-ai/Gradient-WandB-Tutorial/blob/main/load_data.py
PIXEL_MEAN = 0.5
PIXEL_STD = 0.5
CROP_PADDING_PIXELS = 4


@dataclass(frozen=True)
class DeviceImages:
    """Images and labels of a split on the device: uint8 [n, height, width, 3] and int64 [n]."""

    images: Tensor
    labels: Tensor

    @classmethod
    def from_split(cls, split: ImageSplit, device: torch.device) -> DeviceImages:
        """Place `split` on `device`; on the CPU the arrays are shared, not copied."""
        return cls(_tensor(split.images).to(device), _tensor(split.labels).to(device))

    def __len__(self) -> int:
        return len(self.labels)


def _tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # Arrays shared by all trials of a machine are read-only, of which torch warns; nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 [n, height, width, 3] into float32 [n, 3, height, width] with values -1..1, in channels_last order."""
    scaled = images.to(torch.float32).div_(255.0).sub_(PIXEL_MEAN).div_(PIXEL_STD)
    return scaled.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class CropAndFlip:
    """The random part of `augment: flip_crop` for each image: int64 [n] shifts in pixels, bool [n] flips."""

    down: Tensor
    right: Tensor
    flip: Tensor

    @classmethod
    def draw(cls, num_images: int, generator: torch.Generator) -> CropAndFlip:
        """Draw shifts of 0..8 pixels into the padded image, and flips of every second image."""
        shifts = torch.randint(0, 2 * CROP_PADDING_PIXELS + 1, (2, num_images), generator=generator)
        return cls(shifts[0], shifts[1], torch.rand(num_images, generator=generator) < 0.5)

    @classmethod
    def empty(cls, num_images: int, device: torch.device) -> CropAndFlip:
        """Room on `device` for the draws of an epoch."""
        shifts = torch.zeros(2, num_images, dtype=torch.int64, device=device)
        return cls(shifts[0], shifts[1], torch.zeros(num_images, dtype=torch.bool, device=device))

    def copy_(self, other: CropAndFlip) -> None:
        """Take over the draws of `other`, in place."""
        self.down.copy_(other.down)
        self.right.copy_(other.right)
        self.flip.copy_(other.flip)

    def apply(self, images: Tensor, rows: Tensor) -> Tensor:
        """Crop and flip `images` (uint8 [k, height, width, 3]), which are the ones numbered `rows`.

        The same as torchvision's RandomCrop(padding=4) and RandomHorizontalFlip, in one gather
        (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).
        """
        count, height, width, _ = images.shape
        device = images.device
        pad = CROP_PADDING_PIXELS
        padded = torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))
        down, right, flip = (part.index_select(0, rows) for part in (self.down, self.right, self.flip))
        columns = torch.arange(width, device=device).expand(count, width)
        columns = torch.where(flip[:, None], width - 1 - columns, columns) + right[:, None]
        lines = torch.arange(height, device=device) + down[:, None]
        which = torch.arange(count, device=device)[:, None, None]
        return padded[which, lines[:, :, None], columns[:, None, :]]


def num_used_images(num_images: int, batch_size: int) -> int:
    """How many of `num_images` an epoch trains on: all, or all but one.

    Batch norm cannot train on one image whose last feature map is 1x1: such a last batch is left out.
    """
    return num_images - (num_images % batch_size == 1)


def batch_sizes(num_images: int, batch_size: int) -> list[int]:
    """The number of images of each step of an epoch. The last is as short as it comes, as in the tutorial."""
    used = num_used_images(num_images, batch_size)
    return [min(batch_size, used - start) for start in range(0, used, batch_size)]


def step_sizes(num_images: int, batch_size: int) -> list[int]:
    """The different numbers of images that a step has, the usual one first."""
    return list(dict.fromkeys(batch_sizes(num_images, batch_size)))


def draw_epoch(num_images: int, augment: str, generator: torch.Generator) -> tuple[Tensor, CropAndFlip | None]:
    """Draw an epoch's order (int64 [n]) and augmentation from `generator`, a CPU one.

    All random numbers of the epoch are drawn before its first step, so the generator's state between
    epochs is all that a checkpoint needs, and is the same on every device.
    """
    order = torch.randperm(num_images, generator=generator)
    return order, CropAndFlip.draw(num_images, generator) if augment == "flip_crop" else None


def ordered_batches(data: DeviceImages, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (float images, labels) in the order of the split, unchanged, for validation and test."""
    for start in range(0, len(data), batch_size):
        rows = slice(start, start + batch_size)
        yield normalise(data.images[rows]), data.labels[rows]
