"""Reads and writes the files of a checkpoint, which hold tensors and plain values only, never pickled code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WEIGHTS_FILE = "model.pth"
PROGRESS_FILE = "progress.json"
TRAINING_FILE = "training.pth"


def save_checkpoint(
    folder: Path,
    weights: Mapping[str, Tensor],
    progress: Mapping[str, Any],
    training_state: Mapping[str, Any] | None,
) -> None:
    """Write the weights, the progress (JSON values) and, unless training is over, the state of the optimizer."""
    save_weights(weights, folder / WEIGHTS_FILE)
    (folder / PROGRESS_FILE).write_text(json.dumps(progress))
    if training_state is not None:
        torch.save(dict(training_state), folder / TRAINING_FILE)


def load_checkpoint(
    folder: Path, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any] | None]:
    """Return (weights, progress, training state or None) as `save_checkpoint` wrote them."""
    weights = load_weights(folder / WEIGHTS_FILE, device)
    progress: dict[str, Any] = json.loads((folder / PROGRESS_FILE).read_text())
    training_file = folder / TRAINING_FILE
    state = torch.load(training_file, map_location=device, weights_only=True) if training_file.exists() else None
    return weights, progress, state


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a plain state_dict on the CPU in the default memory layout, so that it loads anywhere."""
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path)


def load_weights(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read a plain state_dict; refuses pickled code (`weights_only=True`)."""
    weights: dict[str, Tensor] = torch.load(path, map_location=device, weights_only=True)
    return weights
