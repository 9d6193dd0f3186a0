"""The training loop of one trial, the tutorial's loop with its metric names, resumable after any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tune_cifar.trial.batches import batch_sizes, draw_epoch
from tune_cifar.trial.checkpoint import TrainedTensors, load_checkpoint, write_progress
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.evaluation import evaluate_model
from tune_cifar.trial.live_taps import live_state
from tune_cifar.trial.progress import EpochProgress
from tune_cifar.trial.schedule import learning_rate_schedule
from tune_cifar.trial.workbench import Workbench

LOG_EVERY_BATCHES = 50
"""The tutorial logs the mean training loss of each 50 batches."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch brought: losses are means over images, accuracies shares of 1, times in seconds.

    `train_log` holds the epoch's rows (step, fractional epoch, train_loss); `step` counts rows over
    the whole run. A diverged epoch has no validation values and no `lr`, the learning rate of the last
    step. `average_epoch_seconds` comes with the last epoch. `started_at` and `trained_at` are the Unix times of the
    first step's start and the last step's end; `validation_seconds` is None where there was none.
    """

    epoch: int
    step: int
    train_log: tuple[tuple[int, float, float], ...]
    epoch_seconds: float
    status: Literal["running", "finished", "diverged"]
    val_loss: float | None = None
    val_accuracy: float | None = None
    average_epoch_seconds: float | None = None
    started_at: float = 0.0
    trained_at: float = 0.0
    lr: float | None = None
    message: str = ""
    validation_seconds: float | None = None

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
            "started_at": self.started_at,
            "trained_at": self.trained_at,
            "validation_seconds": self.validation_seconds,
            "lr": self.lr,
            "status": self.status,
            "message": self.message or None,
        }
        return {name: value for name, value in values.items() if value is not None}


class TrainingRun:
    """One trial: builds the network and trains it epoch by epoch; the caller decides what to do in between.

    The same config, data, device and number of threads give the same numbers, also when the run is
    saved after an epoch and goes on in another process.
    """

    def __init__(
        self, config: TrialConfig, data: ImageDataset, device: torch.device, workbench: Workbench | None = None
    ) -> None:
        """`workbench` is that of earlier runs in this process on the same data and device, if there were any."""
        self.config = config
        workbench = workbench or Workbench(data, device)
        self.validation_data = workbench.validation_data
        self._host_copies = workbench.host_copies
        self.program, fallback = workbench.program(config)
        self.notes = [fallback] if fallback else []
        self.network = self.program.network
        self.precision = self.program.precision
        self.num_images = len(workbench.train_data)
        self.batch_sizes = batch_sizes(self.num_images, config.batch_size)
        self.learning_rate = learning_rate_schedule(
            config.lr_schedule, lr=config.lr, num_steps=config.epochs * len(self.batch_sizes)
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.epochs_done = 0
        self.step = 0
        self.epoch_seconds: list[float] = []
        self._stopped = False
        # One tuple, so that another thread never sees the epoch of one moment with the batches of another.
        self._position = (1, 0, time.perf_counter())

    def progress(self) -> EpochProgress:
        """How far the running epoch is, for another thread; costs training nothing.

        On a GPU, steps count when they are launched, which is at most 50 before the device has done them.
        """
        epoch, batches, epoch_start = self._position
        seconds = time.perf_counter() - epoch_start
        images = min(batches * self.config.batch_size, self.num_images)
        return EpochProgress(epoch, batches / len(self.batch_sizes), images / seconds if seconds else 0.0)

    def stop(self) -> None:
        """End training within a step, from another thread; `epochs` then ends without the result of the epoch."""
        self._stopped = True

    def epochs(self, on_trained: Callable[[], None] | None = None) -> Iterator[EpochResult]:
        """Train the epochs that are left and yield the result of each; ends early when the loss is not finite.

        `on_trained` is called when an epoch's steps are done, before its validation, which changes nothing that
        `copy_tensors` copies: so a checkpoint can be written while the epoch is validated.
        """
        while self.epochs_done < self.config.epochs:
            result = self._train_epoch(on_trained)
            if result is None:
                return
            yield result
            if result.status == "diverged":
                return

    def _train_epoch(self, on_trained: Callable[[], None] | None) -> EpochResult | None:
        start, started_at = time.perf_counter(), time.time()
        epoch = self.epochs_done + 1
        rows: list[tuple[int, float, float]] = []
        diverged = ""
        for row in self._train_rows():
            rows.append(row)
            if not math.isfinite(row[2]):
                diverged = f"train_loss is {row[2]} at epoch {row[1]:.2f}"
                break
        if self._stopped:
            return None
        trained_at = time.time()
        self.step = rows[-1][0]
        val_loss = val_accuracy = validation_seconds = None
        if not diverged:
            self.epochs_done = epoch
            if on_trained is not None:
                on_trained()
            validation_start = time.perf_counter()
            val_loss, val_accuracy = evaluate_model(self.network, self.validation_data)
            validation_seconds = time.perf_counter() - validation_start
            if not math.isfinite(val_loss):
                diverged = f"val_loss is {val_loss} after epoch {epoch}"
        self.epoch_seconds.append(time.perf_counter() - start)
        if diverged:
            return EpochResult(
                epoch=epoch,
                step=self.step,
                train_log=tuple(row for row in rows if math.isfinite(row[2])),
                epoch_seconds=self.epoch_seconds[-1],
                status="diverged",
                started_at=started_at,
                trained_at=trained_at,
                message=f"diverged: {diverged}",
            )
        last = epoch == self.config.epochs
        return EpochResult(
            epoch=epoch,
            step=self.step,
            train_log=tuple(rows),
            epoch_seconds=self.epoch_seconds[-1],
            status="finished" if last else "running",
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            average_epoch_seconds=sum(self.epoch_seconds) / len(self.epoch_seconds) if last else None,
            started_at=started_at,
            trained_at=trained_at,
            lr=self.learning_rate(epoch * len(self.batch_sizes) - 1),
            validation_seconds=validation_seconds,
        )

    def _train_rows(self) -> Iterator[tuple[int, float, float]]:
        """Train one epoch; yield (step, fractional epoch, mean loss) of each 50 batches.

        What is left over at the end is not logged, as in the tutorial, except in an epoch of fewer
        than 50 batches, which would otherwise have no training loss at all.
        """
        self.network.train()
        self.program.start_epoch(*draw_epoch(self.num_images, self.config.augment, self.generator))
        num_steps = len(self.batch_sizes)
        epoch, epoch_start = self.epochs_done + 1, time.perf_counter()
        self._position = (epoch, 0, epoch_start)
        for batch, num_images in enumerate(self.batch_sizes, start=1):
            if self._stopped:
                return
            self.program.set_learning_rate(self.learning_rate(self.epochs_done * num_steps + batch - 1))
            self.program.step(num_images)
            self._position = (epoch, batch, epoch_start)
            short_epoch = num_steps < LOG_EVERY_BATCHES and batch == num_steps
            if batch % LOG_EVERY_BATCHES == 0 or short_epoch:
                num_batches = batch if short_epoch else LOG_EVERY_BATCHES
                self.step += 1
                # Reading the sum waits for the device, so it is done once a row and not once a step.
                yield self.step, self.epochs_done + batch / num_steps, self.program.read_loss_sum() / num_batches
        self.program.read_loss_sum()

    def copy_tensors(self) -> TrainedTensors:
        """A copy of the tensors that a checkpoint holds, so that they can be written while the run goes on."""
        copies = [self._host_copies.copy(live_state(self.network))]
        if self.epochs_done == self.config.epochs:
            return TrainedTensors(copies[0], release=partial(self._give_back, copies))
        momentum = {str(place): buffer for place, buffer in enumerate(self.program.momentum())}
        copies.append(self._host_copies.copy(momentum))
        return TrainedTensors(
            copies[0],
            momentum=list(copies[1].values()),
            generator=self.generator.get_state(),
            release=partial(self._give_back, copies),
        )

    def _give_back(self, copies: list[dict[str, Tensor]]) -> None:
        while copies:  # once, however often it is called
            self._host_copies.give_back(copies.pop())

    def progress_to_save(self) -> dict[str, Any]:
        """The plain values of a checkpoint, after an epoch."""
        return {
            "config": self.config.as_dict(),
            "precision": self.precision.name,
            "epochs_done": self.epochs_done,
            "step": self.step,
            "epoch_seconds": list(self.epoch_seconds),
        }

    def save(self, folder: Path) -> None:
        """Write a checkpoint into `folder`, between epochs."""
        tensors = self.copy_tensors()
        tensors.write(folder)
        tensors.release()
        write_progress(self.progress_to_save(), folder)

    def load(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`; raises `ValueError` when it belongs to another config."""
        state = load_checkpoint(folder)
        if state.progress["config"] != self.config.as_dict():
            raise ValueError(f"the checkpoint {folder} is of {state.progress['config']}, not of {self.config}")
        begun_in = state.progress["precision"]
        if begun_in != self.precision.name:
            self.notes.append(f"goes on in {self.precision.name} what was begun in {begun_in}: {self.precision.reason}")
        self.network.load_state_dict(state.tensors.weights)
        self.epochs_done = state.progress["epochs_done"]
        self.step = state.progress["step"]
        self.epoch_seconds = list(state.progress["epoch_seconds"])
        momentum, generator = state.tensors.momentum, state.tensors.generator
        if momentum is not None and generator is not None:
            self.program.load_momentum(momentum)
            self.generator.set_state(generator)
