"""Says what a measurement was made on, because a figure without its machine and versions cannot be compared."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import PIL
import torch

from tune_cifar.runner.resources import this_machine
from tune_cifar.versions import installed_versions

REPOSITORY = Path(__file__).resolve().parent.parent
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The processor, GPU, versions, commit, date and how busy the machine was, as JSON values."""
    machine = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()}",
        **_cpu(),
        "cores": int(this_machine().cpus),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": os.getloadavg()[0],
        "versions": {**installed_versions(), "pillow": PIL.__version__},
        "commit": _output("git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["gpus"] = torch.cuda.device_count()
        machine["gpu_memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        machine["gpu_driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        machine["versions"] |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return machine


def machine_kind(machine: dict[str, Any]) -> str:
    """A short name for files: the GPU, or the number of cores."""
    name = machine.get("gpu") or f"cpu {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cpu() -> dict[str, Any]:
    """Model and the instructions that decide how fast it trains; as far as Linux tells."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cpu_features": [feature for feature in CPU_FEATURES if feature in known],
    }


def _output(program: str, *arguments: str) -> str | None:
    """What a program prints, or None where it is missing or fails."""
    if shutil.which(program) is None:
        return None
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None
