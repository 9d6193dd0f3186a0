"""Reads and writes the files of a checkpoint, which hold tensors and plain values only, never pickled code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WEIGHTS_FILE = "model.pth"
PROGRESS_FILE = "progress.json"
TRAINING_FILE = "training.pth"


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What a run is after an epoch, copied to the CPU: it can be written while training goes on.

    `weights` are in torchvision's layout. `momentum` has a tensor for each parameter in the optimizer's order,
    without those of taps that take no part; it and the state of the random `generator` are None once training is over.
    """

    weights: Mapping[str, Tensor]
    progress: Mapping[str, Any]
    momentum: list[Tensor] | None
    generator: Tensor | None

    def write(self, folder: Path) -> None:
        """Write the files of a checkpoint into `folder`."""
        torch.save(dict(self.weights), folder / WEIGHTS_FILE)
        (folder / PROGRESS_FILE).write_text(json.dumps(self.progress))
        if self.momentum is not None:
            torch.save({"momentum": self.momentum, "generator": self.generator}, folder / TRAINING_FILE)


def load_checkpoint(folder: Path) -> TrainingState:
    """Return what `TrainingState.write` wrote."""
    training_file = folder / TRAINING_FILE
    training = torch.load(training_file, map_location="cpu", weights_only=True) if training_file.exists() else {}
    return TrainingState(
        weights=load_weights(folder / WEIGHTS_FILE),
        progress=json.loads((folder / PROGRESS_FILE).read_text()),
        momentum=training.get("momentum"),
        generator=training.get("generator"),
    )


def copy_to_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state_dict on the CPU in the default memory layout, so that it loads anywhere."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a plain state_dict on the CPU in the default memory layout."""
    torch.save(copy_to_cpu(weights), path)


def load_weights(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read a plain state_dict; refuses pickled code (`weights_only=True`)."""
    weights: dict[str, Tensor] = torch.load(path, map_location=device, weights_only=True)
    return weights
