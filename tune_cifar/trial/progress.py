"""Where a running trial is within its epoch, in a module that imports nothing, so that any process can read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochProgress:
    """The running epoch (from 1), the share 0..1 of its batches that are trained, and training images a second."""

    epoch: int
    share: float
    images_per_second: float
