"""The course of the learning rate over a run, as a function of the step so that a resumed run needs no state of it."""

from __future__ import annotations

import math
from collections.abc import Callable

LearningRate = Callable[[int], float]
"""The learning rate of a training step, which are counted from 0."""

# OneCycleLR's own shape: the rate starts at a 25th of its peak, rises over the first 30%, and ends 10,000 times lower.
_START_DIVISOR = 25.0
_END_DIVISOR = 1e4
_RISING_SHARE = 0.3


def learning_rate_schedule(name: str, *, lr: float, num_steps: int) -> LearningRate:
    """The rate of each of `num_steps` training steps.

    `constant` keeps `lr`; `cosine` falls to 0 (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983,
    one cycle); `onecycle` is torch's OneCycleLR with `lr` as its peak (https://arxiv.org/abs/1708.07120) and
    leaves the momentum alone, which is a parameter of its own here.
    """
    if name == "constant":
        return lambda _step: lr
    if name == "cosine":
        return lambda step: _cosine(lr, 0.0, step / num_steps)
    if name == "onecycle":
        return lambda step: _one_cycle(lr, step, num_steps)
    raise ValueError(f"unknown lr_schedule {name!r}")


def _one_cycle(peak: float, step: int, num_steps: int) -> float:
    start, peak_step = peak / _START_DIVISOR, _RISING_SHARE * (num_steps + 1) - 1
    if step <= peak_step:
        return _cosine(start, peak, step / peak_step)
    return _cosine(peak, start / _END_DIVISOR, (step - peak_step) / (num_steps - peak_step))


def _cosine(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine; `share` is how much of the way is done, 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
