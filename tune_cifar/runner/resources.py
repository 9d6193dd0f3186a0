"""Decides how many trials run at once and what each gets, from what the machines really have."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from tune_cifar.errors import UserError


@dataclass(frozen=True)
class NodeResources:
    """CPU cores and GPUs of one machine."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class TrialSlots:
    """What each trial gets, how many run at once, and the reason in words."""

    cpus_per_trial: float
    gpus_per_trial: float
    trials_at_once: int
    reason: str

    @property
    def cpu_threads(self) -> int:
        """Threads of one trial: its whole cores, at least one."""
        return max(1, int(self.cpus_per_trial))


def plan_slots(
    nodes: Sequence[NodeResources],
    *,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    trials_at_once: int | None = None,
) -> TrialSlots:
    """One trial for each GPU, else one for each core with one thread, unless told otherwise.

    A step of these networks on 32x32 images is too small to keep several threads busy;
    `benchmarks/trial.py` compares the two ways on the machine at hand.
    Raises `UserError` when no machine can hold a single trial.
    """
    total_gpus = sum(node.gpus for node in nodes)
    total_cpus = sum(node.cpus for node in nodes)
    gpus = gpus_per_trial if gpus_per_trial is not None else (1.0 if total_gpus else 0.0)
    cpus = cpus_per_trial if cpus_per_trial is not None else 1.0
    slots = sum(_slots_of(node, cpus, gpus) for node in nodes)
    if slots == 0:
        raise UserError(
            f"No machine can hold a trial of {cpus:g} CPU cores and {gpus:g} GPUs: there are "
            f"{total_cpus:g} cores and {total_gpus:g} GPUs on {len(nodes)} machine(s). "
            "Lower --cpus-per-trial or --gpus-per-trial."
        )
    have = f"{total_gpus:g} GPU(s) and {total_cpus:g} CPU core(s) on {len(nodes)} machine(s)"
    if trials_at_once is None:
        return TrialSlots(cpus, gpus, slots, have)
    if trials_at_once > slots:
        raise UserError(
            f"--trials-at-once {trials_at_once} does not fit: {have} hold {slots} trial(s) of "
            f"{cpus:g} core(s) and {gpus:g} GPU(s). Lower it, or lower --cpus-per-trial or --gpus-per-trial."
        )
    return TrialSlots(cpus, gpus, trials_at_once, f"{have}, --trials-at-once {trials_at_once}")


def _slots_of(node: NodeResources, cpus: float, gpus: float) -> int:
    # 1e-9: three trials of a third of a GPU are three, in spite of rounding.
    by_cpu = math.floor(node.cpus / cpus + 1e-9)
    if not gpus:
        return by_cpu
    if gpus >= 1:
        return min(by_cpu, math.floor(node.gpus / gpus))
    # A fraction lives on one GPU: 0.4 puts two trials on each.
    return min(by_cpu, math.floor(node.gpus) * math.floor(1 / gpus + 1e-9))


def this_machine() -> NodeResources:
    """This machine's cores (that the process may use) and GPUs, without starting Ray."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return NodeResources(cpus=cores, gpus=torch.cuda.device_count())
