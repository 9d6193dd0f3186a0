"""The training loop of one trial, the tutorial's loop with its metric names, resumable after any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tune_cifar.trial.batches import DeviceImages, num_training_batches, training_batches
from tune_cifar.trial.checkpoint import load_checkpoint, save_checkpoint
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.evaluation import evaluate_model
from tune_cifar.trial.model import build_model
from tune_cifar.trial.schedule import make_lr_schedule

LOG_EVERY_BATCHES = 50
"""The tutorial logs the mean training loss of each 50 batches."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch brought: losses are means over images, accuracies shares of 1, times in seconds.

    `train_log` holds the epoch's rows (step, fractional epoch, train_loss); `step` counts rows over
    the whole run. A diverged epoch has no validation values. `average_epoch_seconds` comes with the last epoch.
    """

    epoch: int
    step: int
    train_log: tuple[tuple[int, float, float], ...]
    epoch_seconds: float
    status: Literal["running", "finished", "diverged"]
    val_loss: float | None = None
    val_accuracy: float | None = None
    average_epoch_seconds: float | None = None
    message: str = ""

    def metrics(self) -> dict[str, Any]:
        """The values under the names that the tutorial gave them in its W&B charts."""
        values = {
            "epoch": self.epoch,
            "step": self.step,
            "train_log": [list(row) for row in self.train_log],
            "train_loss": self.train_log[-1][2] if self.train_log else None,
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
            "epoch_runtime (seconds)": self.epoch_seconds,
            "avg epoch runtime (seconds)": self.average_epoch_seconds,
            "status": self.status,
            "message": self.message or None,
        }
        return {name: value for name, value in values.items() if value is not None}


class TrainingRun:
    """One trial: builds the network and trains it epoch by epoch; the caller decides what to do in between.

    The same config, data, device and number of threads give the same numbers, also when the run is
    saved after an epoch and goes on in another process.
    """

    def __init__(self, config: TrialConfig, data: ImageDataset, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.train_data = DeviceImages.from_split(data.train, device)
        self.validation_data = DeviceImages.from_split(data.validation, device)
        network = build_model(config.model, num_classes=len(data.class_names), stem=config.stem, seed=config.seed)
        self.network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )
        self.steps_per_epoch = num_training_batches(len(self.train_data), config.batch_size)
        self.lr_schedule = make_lr_schedule(
            config.lr_schedule, self.optimizer, num_steps=config.epochs * self.steps_per_epoch
        )
        self.loss_function = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.epochs_done = 0
        self.step = 0
        self.epoch_seconds: list[float] = []

    def epochs(self) -> Iterator[EpochResult]:
        """Train the epochs that are left and yield the result of each; ends early when the loss is not finite."""
        while self.epochs_done < self.config.epochs:
            result = self._train_epoch()
            yield result
            if result.status == "diverged":
                return

    def _train_epoch(self) -> EpochResult:
        start = time.perf_counter()
        rows: list[tuple[int, float, float]] = []
        diverged = ""
        for row in self._train_rows():
            rows.append(row)
            if not math.isfinite(row[2]):
                diverged = f"train_loss is {row[2]} at epoch {row[1]:.2f}"
                break
        val_loss = val_accuracy = None
        if not diverged:
            val_loss, val_accuracy = evaluate_model(self.network, self.validation_data)
            if not math.isfinite(val_loss):
                diverged = f"val_loss is {val_loss} after epoch {self.epochs_done + 1}"
        self.step = rows[-1][0]
        self.epoch_seconds.append(time.perf_counter() - start)
        if diverged:
            message = f"diverged: {diverged}"
            finite_rows = tuple(row for row in rows if math.isfinite(row[2]))
            return EpochResult(
                self.epochs_done + 1, self.step, finite_rows, self.epoch_seconds[-1], "diverged", message=message
            )
        self.epochs_done += 1
        last = self.epochs_done == self.config.epochs
        return EpochResult(
            epoch=self.epochs_done,
            step=self.step,
            train_log=tuple(rows),
            epoch_seconds=self.epoch_seconds[-1],
            status="finished" if last else "running",
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            average_epoch_seconds=sum(self.epoch_seconds) / len(self.epoch_seconds) if last else None,
        )

    def _train_rows(self) -> Iterator[tuple[int, float, float]]:
        """Train one epoch; yield (step, fractional epoch, mean loss) of each 50 batches.

        What is left over at the end is not logged, as in the tutorial, except in an epoch of fewer
        than 50 batches, which would otherwise have no training loss at all.
        """
        self.network.train()
        loss_sum = torch.zeros((), device=self.device)
        batches = training_batches(
            self.train_data,
            batch_size=self.config.batch_size,
            augment=self.config.augment,
            generator=self.generator,
        )
        for batch, (images, labels) in enumerate(batches, start=1):
            loss_sum += self._train_step(images, labels)
            short_epoch = self.steps_per_epoch < LOG_EVERY_BATCHES and batch == self.steps_per_epoch
            if batch % LOG_EVERY_BATCHES == 0 or short_epoch:
                num_batches = batch if short_epoch else LOG_EVERY_BATCHES
                self.step += 1
                # Reading the sum waits for the device, so it is done once a row and not once a step.
                mean_loss = loss_sum.item() / num_batches
                yield self.step, self.epochs_done + batch / self.steps_per_epoch, mean_loss
                loss_sum.zero_()

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss: torch.Tensor = self.loss_function(self.network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.lr_schedule.step()
        return loss.detach()

    def save(self, folder: Path) -> None:
        """Write a checkpoint into `folder`: the weights, and what training needs to go on, if it is not over."""
        unfinished = self.epochs_done < self.config.epochs
        progress = {
            "config": self.config.as_dict(),
            "epochs_done": self.epochs_done,
            "step": self.step,
            "epoch_seconds": self.epoch_seconds,
        }
        state = {
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": self.lr_schedule.state_dict(),
            "generator": self.generator.get_state(),
        }
        save_checkpoint(folder, self.network.state_dict(), progress, state if unfinished else None)

    def load(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`; raises `ValueError` when it belongs to another config."""
        weights, progress, state = load_checkpoint(folder, self.device)
        if progress["config"] != self.config.as_dict():
            raise ValueError(f"the checkpoint {folder} is of {progress['config']}, not of {self.config}")
        self.network.load_state_dict(weights)
        self.epochs_done = progress["epochs_done"]
        self.step = progress["step"]
        self.epoch_seconds = list(progress["epoch_seconds"])
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_schedule.load_state_dict(state["lr_schedule"])
            self.generator.set_state(state["generator"].cpu())
