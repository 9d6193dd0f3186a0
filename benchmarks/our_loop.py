"""This project's training loop behind the few words that the benchmark of a trial needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from tune_cifar.runner.gpu_measurement import NUM_CLASSES
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset, ImageSplit
from tune_cifar.trial.training import TrainingRun

NUM_VALIDATION_IMAGES = 10
"""Our epoch ends with a validation, which is left out of the tutorial's here: so few images take next to no time."""

MORE_EPOCHS_THAN_NEEDED = 10_000


class OurLoop:
    """One trial, trained epoch by epoch as a search does it."""

    def __init__(self, config: TrialConfig, split: ImageSplit, device: torch.device) -> None:
        self.device = device
        self.run = TrainingRun(replace(config, epochs=MORE_EPOCHS_THAN_NEEDED), benchmark_dataset(split), device)
        self._epochs = self.run.epochs()

    def train(self) -> None:
        """One epoch, until the device is done with it. Raises `RuntimeError` if the loss is not finite."""
        result = next(self._epochs)
        if result.status == "diverged":
            raise RuntimeError(result.message)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def steps_to_profile(self) -> Callable[[], object]:
        """Return what trains an epoch."""
        return self.train

    def describe(self) -> dict[str, object]:
        """What the loop runs with; `notes` say in words what could not be used, if anything."""
        return {
            "cpu_threads": torch.get_num_threads(),
            "precision": self.run.precision.name,
            "precision_reason": self.run.precision.reason,
            "notes": self.run.notes,
        }


def benchmark_dataset(split: ImageSplit) -> ImageDataset:
    """`split` to train on, with next to nothing to validate or test on."""
    few = ImageSplit(split.images[:NUM_VALIDATION_IMAGES], split.labels[:NUM_VALIDATION_IMAGES])
    return ImageDataset("benchmark", tuple(map(str, range(NUM_CLASSES))), split, few, few, fingerprint="")
