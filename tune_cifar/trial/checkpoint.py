"""Reads and writes the files of a checkpoint, which hold tensors and plain values only, never pickled code."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WEIGHTS_FILE = "model.pth"
PROGRESS_FILE = "progress.json"
TRAINING_FILE = "training.pth"

# What an archive starts with, and by which torch tells its two forms apart.
_ZIP_START = b"PK\x03\x04"


def _keep() -> None:
    """Their memory is nobody else's."""


@dataclass(frozen=True, eq=False)
class TrainedTensors:
    """The tensors of a run after an epoch's steps, copied to the CPU: they can be written while it goes on.

    `weights` are what `live_state` gives: without the taps that keep their initial values, which is more than half of a
    ResNet18 on 32x32 images. `momentum` has a tensor for each parameter in the optimizer's order, without those taps
    too; it and the state of the random `generator` are None once training is over.
    `release` hands their memory on to later copies; nothing may read them after it.
    """

    weights: Mapping[str, Tensor]
    momentum: Sequence[Tensor] | None = None
    generator: Tensor | None = None
    release: Callable[[], None] = _keep

    def write(self, folder: Path) -> None:
        """Write all files of a checkpoint into `folder` but the progress."""
        _save(dict(self.weights), folder / WEIGHTS_FILE)
        if self.momentum is not None:
            _save({"momentum": list(self.momentum), "generator": self.generator}, folder / TRAINING_FILE)


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What a checkpoint holds: the tensors, and how far the run is as plain values."""

    tensors: TrainedTensors
    progress: Mapping[str, Any]


def write_progress(progress: Mapping[str, Any], folder: Path) -> None:
    """Write what makes the tensors in `folder` a checkpoint; it is known when the epoch is validated."""
    (folder / PROGRESS_FILE).write_text(json.dumps(progress))


def _save(content: object, path: Path) -> None:
    with path.open("wb") as file:  # given a path, torch does not say that the disk is full (torch 2.15)
        torch.save(content, file)


def load_checkpoint(folder: Path) -> TrainingState:
    """Return what `TrainedTensors.write` and `write_progress` wrote."""
    training_file = folder / TRAINING_FILE
    training = torch.load(training_file, map_location="cpu", weights_only=True) if training_file.exists() else {}
    return TrainingState(
        TrainedTensors(load_weights(folder / WEIGHTS_FILE), training.get("momentum"), training.get("generator")),
        progress=json.loads((folder / PROGRESS_FILE).read_text()),
    )


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a plain state_dict on the CPU in the default memory layout, so that it loads anywhere."""
    plain = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
    torch.save(plain, path)


def load_weights(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read a plain state_dict; refuses pickled code (`weights_only=True`).

    Raises `ValueError` with the reason where `path` is none, and `OSError` where it cannot be read.
    """
    _refuse_zip_bomb(path)
    try:
        with warnings.catch_warnings():
            # Of a pickle that was written in another way than torch's: whether it can be read is told below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            weights = torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:
        # torch's own message proposes to load the file without this protection.
        raise ValueError("it holds pickled code, or is no file that torch.save wrote") from None
    except Exception as error:
        # Broken bytes make the reader raise whatever it stumbles on: RuntimeError, EOFError, KeyError, MemoryError …
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise ValueError("it does not hold tensors by name")
    return weights


def _refuse_zip_bomb(path: Path) -> None:
    """Raise `ValueError` where a zip archive unpacks to more than its own size: `torch.save` compresses nothing."""
    with path.open("rb") as file:
        if file.read(len(_ZIP_START)) != _ZIP_START:
            return  # the form of older versions of torch, or nothing of the kind, which torch's reader tells
        try:
            with zipfile.ZipFile(file) as archive:
                unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise ValueError(f"it is a broken archive: {error}") from None
    if unpacked_bytes > path.stat().st_size:
        raise ValueError(f"its {path.stat().st_size:,} bytes unpack to {unpacked_bytes:,}, which torch.save never does")
