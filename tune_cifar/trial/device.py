"""Chooses and sets up the processor of a trial, here so that every command chooses alike and can say why."""

from __future__ import annotations

import torch

from tune_cifar.trial.memory import keep_freed_memory


def choose_device() -> torch.device:
    """The GPU if this process can see one (Ray shows a trial only its own), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_device(device: torch.device) -> str:
    """The device in words for the first lines of a run."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def prepare_device(device: torch.device, *, cpu_threads: int) -> None:
    """Fix what changes results from run to run: the number of CPU threads and cuDNN's choice of algorithms.

    Sums in another number of threads differ in their last bits, so a trial and its repetition need the same.
    """
    torch.set_num_threads(cpu_threads)
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        # By default cuDNN rounds the inputs of fp32 convolutions to the 10 bits of TF32, where torch's other products
        # are in fp32 (torch 2.11, torch/backends/cudnn): scores, and trials with `precision: fp32`, are to be in fp32.
        torch.backends.cudnn.allow_tf32 = False
