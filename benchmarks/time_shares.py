"""Where the time of a training step goes, by torch's profiler. The profiler slows what it watches, on a CPU by page
faults too, so these are shares to look at and no timings."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

LOADER = "data loading"
BETWEEN = "launch and idle"
OTHER = "other"

# In this order: the first that matches counts. CPU operations carry names of torch's, kernels those of their makers.
CPU_OPERATIONS = {
    "optimizer": r"^Optimizer\.",
    LOADER: r"DataLoader|^aten::(index_select|index|randperm|div_|sub_)$",
    "convolution backward": r"ConvolutionBackward|convolution_backward",
    "convolution forward": r"^aten::(conv2d|_?convolution|mkldnn_convolution|cudnn_convolution)$",
    "matrix products": r"Addmm|MmBackward|^aten::(linear|matmul|addmm|mm|bmm)$|WholeMapProduct",
    "batch norm": r"batch_?norm",
    "elementwise and pooling": r"relu|threshold|pool|MeanBackward|AddBackward|AccumulateGrad|CopyBackward"
    r"|softmax|nll_loss|NllLoss|cross_entropy|^aten::(add|add_|mean|to|copy_|clone|contiguous|permute|view|reshape)$",
}
GPU_KERNELS = {
    "optimizer": r"multi_tensor_apply|fused_sgd",
    LOADER: r"Memcpy HtoD|index_?select|randperm|gather",
    "convolution backward": r"dgrad|wgrad|bwd_data|bwd_filter|backward_(data|filter)",
    "convolution forward": r"fprop|conv(?!ert)|winograd|implicit_gemm",
    "batch norm": r"\bbn_|batch_?norm|bnorm|norm_fwd|norm_bwd",
    "matrix products": r"gemm|gemv|cutlass|nvjet|splitK",
    "elementwise and pooling": r"elementwise|pool|reduce|softmax|nll_loss|Memcpy|Memset|nchw|nhwc|convert|cat",
}
CATEGORIES = (*CPU_OPERATIONS, OTHER, BETWEEN)


def measure_time_shares(train: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Profile one call of `train`, which leaves nothing running; shares of its wall time by category add up to 1.

    On a GPU the time of its kernels is counted, and as data loading also the time for which Python waits for the
    loader; on a CPU that of the operations of the main thread. `graph_launches` counts CUDA graphs.
    """
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities, acc_events=True) as profiler:  # the default warns in torch 2.11
        start = perf_counter()
        train()
        wall_us = (perf_counter() - start) * 1e6
    events = list(profiler.events())
    count = _count_gpu_time if device.type == "cuda" else _count_cpu_time
    microseconds, unknown = count(events)
    idle_us = max(0.0, wall_us - sum(microseconds.values()))
    if device.type == "cuda":
        waited_us = min(idle_us, sum(event.cpu_time_total for event in events if "DataLoader" in event.name))
        microseconds[LOADER] += waited_us
        idle_us -= waited_us
    microseconds[BETWEEN] = idle_us
    total_us = sum(microseconds.values())
    return {
        "shares": {category: microseconds[category] / total_us for category in CATEGORIES},
        "largest_others": {
            name: unknown[name] / total_us for name in sorted(unknown, key=lambda name: -unknown[name])[:8]
        },
        "graph_launches": sum(event.name == "cudaGraphLaunch" for event in events),
    }


def _count_gpu_time(events: list[Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of kernels by category, and by name of those in no category."""
    microseconds: dict[str, float] = defaultdict(float)
    unknown: dict[str, float] = defaultdict(float)
    for event in events:
        # What Python marks is shown a second time on the GPU's time line, around the kernels it launched.
        is_mark = event.name.startswith(("aten::", "autograd::", "Optimizer.", "ProfilerStep", "enumerate("))
        if event.device_type != DeviceType.CUDA or is_mark:
            continue
        category = category_of(event.name, GPU_KERNELS)
        microseconds[category] += event.time_range.elapsed_us()
        if category == OTHER:
            unknown[event.name[:120]] += event.time_range.elapsed_us()
    return microseconds, unknown


def _count_cpu_time(events: list[Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Microseconds of operations by category, and by name of those in no category.

    An operation belongs where the outermost known one around it does: a copy inside a convolution to the convolution.
    """
    microseconds: dict[str, float] = defaultdict(float)
    unknown: dict[str, float] = defaultdict(float)
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        category = OTHER
        around = event
        while around is not None:
            known = category_of(around.name, CPU_OPERATIONS)
            category = category if known == OTHER else known
            around = around.cpu_parent
        microseconds[category] += event.self_cpu_time_total
        if category == OTHER:
            unknown[event.name[:120]] += event.self_cpu_time_total
    return microseconds, unknown


def category_of(name: str, patterns: dict[str, str]) -> str:
    """The category of the operation or kernel `name`."""
    matches = (category for category, pattern in patterns.items() if re.search(pattern, name, re.IGNORECASE))
    return next(matches, OTHER)
