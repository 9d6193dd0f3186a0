"""Memory of a process that runs one trial after another, as a search's workers do: it must not grow."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.our_loop import benchmark_dataset
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageSplit
from tune_cifar.trial.training import TrainingRun
from tune_cifar.trial.workbench import Workbench

MEBIBYTE = 2**20

MOST_GROWTH_MIB = 64
"""Less than the weights and momentum of one forgotten ResNet18 (85 MiB), more than what an allocator moves about."""


FEWEST_TRIALS = 10
"""An allocator takes the first few trials, of each kind of step, to settle."""


def memory_after_trials(
    configs: Sequence[TrialConfig], num_trials: int, split: ImageSplit, device: torch.device
) -> list[dict[str, float]]:
    """Run trials of one epoch, which take `configs` in turn; returns memory in MiB after each.

    `in_use`: on a GPU all that is taken of it, CUDA's own share included; on a CPU what the process has resident.
    """
    data = benchmark_dataset(split)
    workbench = Workbench(data, device)
    after = []
    for trial in range(num_trials):
        config = replace(configs[trial % len(configs)], epochs=1, lr=1e-3 * (1 + trial), seed=trial)
        for _ in TrainingRun(config, data, device, workbench).epochs():
            pass
        gc.collect()
        after.append(_memory_mib(device))
    return after


def growth_mib(after: Sequence[dict[str, float]]) -> float:
    """How much more is in use after the last trial than after any of the first half."""
    in_use = [row["in_use"] for row in after]
    return in_use[-1] - max(in_use[: (len(in_use) + 1) // 2])


def grows(after: Sequence[dict[str, float]]) -> bool | None:
    """Whether something is kept of trials that are over; None if they are too few to tell."""
    return growth_mib(after) > MOST_GROWTH_MIB if len(after) >= FEWEST_TRIALS else None


def _memory_mib(device: torch.device) -> dict[str, float]:
    if device.type == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        allocated_bytes = torch.cuda.memory_allocated()
        return {"in_use": (total_bytes - free_bytes) / MEBIBYTE, "allocated": allocated_bytes / MEBIBYTE}
    statm = Path("/proc/self/statm")
    if statm.exists():
        return {"in_use": int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE}
    # Without Linux's /proc: the most so far, in bytes on macOS. It grows as well if something is kept.
    return {"in_use": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBIBYTE}
