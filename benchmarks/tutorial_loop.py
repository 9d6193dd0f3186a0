"""The tutorial's training loop as its notebook has it, here as the peer that ours is measured against.

https://github.com/gradient-ai/Gradient-WandB-Tutorial (train_model_wandb.ipynb, load_data.py). Left out is what is no
training: printing, W&B's calls and validation. The network is torchvision's, so that both loops train the same.
The PIL images are made beforehand; the tutorial's data set makes each from an array when it is asked for. Each epoch
starts the loader's workers anew, which takes 0.07 s on two cores: of an epoch of 2,048 images that is 1 to 2%.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms

from tune_cifar.runner.gpu_measurement import NUM_CLASSES
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageSplit

LOG_EVERY_BATCHES = 50

WARM_UP_STEPS = 3
"""Steps before those that are profiled, in which the loader's workers start."""


class PilImages(Dataset[tuple[Tensor, int]]):
    """CIFAR-10 as torchvision gives it: PIL images, each transformed when it is asked for."""

    def __init__(self, split: ImageSplit) -> None:
        self.images = [Image.fromarray(pixels) for pixels in split.images]
        self.labels = split.labels.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(self.images[row]), self.labels[row]


class TutorialLoop:
    """The network, its optimizer and a loader with two workers; fp32 and torch's own choice of threads."""

    def __init__(self, config: TrialConfig, split: ImageSplit, device: torch.device) -> None:
        self.device = device
        self.loader = DataLoader(PilImages(split), batch_size=config.batch_size, shuffle=True, num_workers=2)
        self.network = models.get_model(config.model, num_classes=NUM_CLASSES).to(device)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=config.lr, momentum=config.momentum)

    def train(self) -> None:
        """One epoch. Each step waits for the device, so nothing is left to wait for."""
        self._train_on(self.loader)

    def steps_to_profile(self) -> Callable[[], object]:
        """Start an epoch and return what trains the rest of it."""
        batches = iter(self.loader)
        self._train_on(islice(batches, min(WARM_UP_STEPS, len(self.loader) // 2)))
        return lambda: self._train_on(batches)

    def _train_on(self, batches: Iterable[list[Tensor]]) -> list[float]:
        """Train on `batches`; returns what the tutorial logs, the mean loss of each 50 of them."""
        logged = []
        running_loss = 0.0
        self.network.train()
        for i, data in enumerate(batches):
            inputs, labels = data[0].to(self.device), data[1].to(self.device)
            self.optimizer.zero_grad()
            outputs = self.network(inputs)
            loss = self.criterion(outputs, labels)
            loss.backward()
            self.optimizer.step()
            running_loss += loss.item()
            if i % LOG_EVERY_BATCHES == LOG_EVERY_BATCHES - 1:
                logged.append(running_loss / LOG_EVERY_BATCHES)
                running_loss = 0.0
        return logged

    def describe(self) -> dict[str, object]:
        """What the loop runs with."""
        return {
            "cpu_threads": torch.get_num_threads(),
            "loader_workers": self.loader.num_workers,
            "loader_start_method": multiprocessing.get_start_method(),
            "precision": "fp32",
            # torch's default; where a GPU has no TF32, it changes nothing.
            "tf32_convolutions": self.device.type == "cuda" and torch.backends.cudnn.allow_tf32,
        }
