"""Trains many configs side by side and keeps each result as it comes, so that a stopped measurement goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset, load_dataset
from tune_cifar.trial.device import choose_device, prepare_device
from tune_cifar.trial.training import EpochResult, TrainingRun
from tune_cifar.trial.workbench import Workbench

Record = dict[str, Any]

DEFAULT_DATA = os.environ.get("TUNE_CIFAR_DATA", "../shared/data/cifar10-jpeg")

_worker: list[tuple[ImageDataset, Workbench]] = []


def train_all(
    configs: Sequence[TrialConfig], log: Path, *, data: str, train_images: int | None, num_processes: int
) -> Iterator[Record]:
    """Train each config that `log` (a JSON line a run) does not hold yet; yield all records, the old ones first.

    On a CPU each process has one thread, as a trial of a search has.
    """
    done = {json.dumps(record["config"], sort_keys=True): record for record in read_log(log)}
    keys = [json.dumps(config.as_dict(), sort_keys=True) for config in configs]
    yield from (done[key] for key in keys if key in done)
    todo = [config for config, key in zip(configs, keys, strict=True) if key not in done]
    log.parent.mkdir(parents=True, exist_ok=True)
    pool = ProcessPoolExecutor(
        num_processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(data, train_images),
    )
    with pool, log.open("a") as lines:
        for future in as_completed([pool.submit(_train, config) for config in todo]):
            record = future.result()
            lines.write(json.dumps(record) + "\n")
            lines.flush()
            yield record


def read_log(log: Path) -> list[Record]:
    """The records that `train_all` has written; a last line that was cut off is left out."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def default_processes() -> int:
    """One a core, or one for the GPU."""
    return 1 if choose_device().type == "cuda" else len(os.sched_getaffinity(0))


def _start_worker(data: str, train_images: int | None) -> None:
    device = choose_device()
    prepare_device(device, cpu_threads=1)
    dataset = load_dataset(data, train_images=train_images)
    _worker.append((dataset, Workbench(dataset, device)))


def _train(config: TrialConfig) -> Record:
    data, workbench = _worker[0]
    run = TrainingRun(config, data, workbench.device, workbench)
    epochs = [_epoch(result) for result in run.epochs()]
    return {
        "config": config.as_dict(),
        "precision": run.precision.name,
        "device": torch.cuda.get_device_name() if workbench.device.type == "cuda" else "cpu",
        "data": data.fingerprint,
        "train_images": len(data.train),
        "epochs": epochs,
    }


def _epoch(result: EpochResult) -> Record:
    """One epoch as table files have it; a diverged one has no validation loss."""
    return {
        "val_loss": result.val_loss,
        "val_accuracy": result.val_accuracy,
        "train_loss": result.train_log[-1][2] if result.train_log else None,
        "seconds": result.epoch_seconds,
    }
