"""The course of the learning rate over a run, here so that the loop only calls `step()`."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR


def make_lr_schedule(name: str, optimizer: Optimizer, *, num_steps: int) -> LRScheduler:
    """Return a schedule that is stepped after every training step, `num_steps` times.

    `constant` keeps the rate; `cosine` falls to 0 (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983,
    one cycle); `onecycle` is torch's OneCycleLR with the rate as its peak (https://arxiv.org/abs/1708.07120).
    """
    if name == "constant":
        return LambdaLR(optimizer, _unchanged)
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=num_steps)
    if name == "onecycle":
        peak = optimizer.param_groups[0]["lr"]
        # One step more than is trained: OneCycleLR refuses to be stepped after its last one.
        # Momentum is a parameter of its own here, so it is not cycled along.
        return OneCycleLR(optimizer, max_lr=peak, total_steps=num_steps + 1, cycle_momentum=False)
    raise ValueError(f"unknown lr_schedule {name!r}")


def _unchanged(_step: int) -> float:
    return 1.0
