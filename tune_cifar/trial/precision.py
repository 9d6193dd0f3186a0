"""Chooses the number format of a trial's matrix products, here so that every command chooses alike and says why."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch

PrecisionName = Literal["fp32", "bf16"]

BF16_CAPABILITY = (8, 0)
"""The first generation of NVIDIA GPUs that multiplies bf16 at speed is Ampere, compute capability 8.0."""


@dataclass(frozen=True)
class Precision:
    """The format and the reason for it in words."""

    name: PrecisionName
    reason: str

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """Where the forward pass runs: weights stay fp32, products are in the chosen format.

        No cache of cast weights: each is used once a step, and a captured CUDA graph must cast them anew.
        """
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def choose_precision(choice: str, device: torch.device) -> Precision:
    """Resolve "auto": bf16 where the device multiplies it faster than fp32, else fp32; "fp32" and "bf16" are kept."""
    if choice == "fp32":
        return Precision("fp32", "as asked")
    if choice == "bf16":
        return Precision("bf16", "as asked")
    if choice != "auto":
        raise ValueError(f"unknown precision {choice!r}")
    fast, reason = _gpu_support(device) if device.type == "cuda" else _cpu_support()
    return Precision("bf16" if fast else "fp32", reason)


def _gpu_support(device: torch.device) -> tuple[bool, str]:
    capability = torch.cuda.get_device_capability(device)
    return capability >= BF16_CAPABILITY, f"the GPU has compute capability {capability[0]}.{capability[1]}"


def _cpu_support() -> tuple[bool, str]:
    features = cpu_bf16_features()
    if features:
        return True, f"the CPU has {' and '.join(features)}"
    return False, "the CPU has neither avx512_bf16 nor amx"


def cpu_bf16_features() -> list[str]:
    """The instructions for bf16 products that this CPU has."""
    # Private names, the only ones there are (torch 2.10 to 2.15); without them the answer is fp32, which always works.
    checks = {"avx512_bf16": "_is_avx512_bf16_supported", "amx": "_is_amx_tile_supported"}
    return [feature for feature, check in checks.items() if getattr(torch.cpu, check, bool)()]
