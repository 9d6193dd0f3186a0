"""Copies tensors to the CPU into memory of earlier copies, because new memory for a checkpoint is slow to get."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
from torch import Tensor

MAX_SPARE = 4
"""The weights and the momentum of two models, which the trials of the tutorial's sweep take turns with."""


class HostCopies:
    """Copies of `tensors` of one device; what is given back serves the next ones of the same names and shapes.

    The 45 MB of a ResNet18 are 11,000 pages, which a virtual machine that has not used them yet hands out in
    0.1 s, and copies in 0.01 s. From a GPU they go into pinned memory, all in one wait.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        self._spare: list[dict[str, Tensor]] = []
        self._lock = threading.Lock()  # copies are given back by the thread that writes them

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values of `tensors` on the CPU in the default memory layout, so that they load anywhere."""
        copies = self._take(tensors)
        for name, tensor in tensors.items():
            copies[name].copy_(tensor.detach(), non_blocking=self._pinned)
        if self._pinned:
            torch.cuda.current_stream(self._device).synchronize()
        return copies

    def give_back(self, copies: dict[str, Tensor]) -> None:
        """Let later copies overwrite these."""
        with self._lock:
            self._spare.append(copies)
            del self._spare[:-MAX_SPARE]

    def _take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        layout = _layout(tensors)
        with self._lock:
            for place, spare in enumerate(self._spare):
                if _layout(spare) == layout:
                    return self._spare.pop(place)
        return {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pinned)
            for name, tensor in tensors.items()
        }


def _layout(tensors: Mapping[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]
