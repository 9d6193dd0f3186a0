"""Records a training step as a CUDA graph, because on 32x32 images the GPU waits for Python to launch its kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch

from tune_cifar.trial.batches import step_sizes
from tune_cifar.trial.program import TrainingProgram

WARM_UP_STEPS = 3
"""Steps before a recording, in which cuDNN and the allocator settle (https://docs.pytorch.org/docs/stable/notes/cuda.html)."""


class StepRecorder(Protocol):
    """Turns a step into something that repeats it."""

    def warm_up(self, step: Callable[[], None]) -> None:
        """Run `step`, so that what happens only the first time is not recorded."""

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return what does `step` again at each call; whether recording also runs it is left open."""


class CudaGraphRecorder:
    """Records with CUDA graphs; all recordings of one recorder share their memory, as they never run side by side."""

    def __init__(self, device: torch.device) -> None:
        self._stream = _recording_stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Callable[[], None]) -> None:
        """Run `step` on a side stream, as a recording needs it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            step()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """Capture `step` without running it."""
        graph = torch.cuda.CUDAGraph()
        # When a capture fails, torch.cuda.graph leaves its stream the current one (torch 2.11, graph.__exit__).
        with torch.cuda.stream(self._stream), torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            step()
        return graph.replay


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings of a process: cuBLAS keeps a workspace for good for each stream that it worked on.

    It is of 32 MiB on Hopper (torch 2.11, CublasHandlePool.cpp), for each thread that launches, of which there are two.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def record_program(program: TrainingProgram, recorder: StepRecorder) -> str:
    """Record the steps of `program` of either size, the last of an epoch being shorter; `reset` it afterwards.

    Returns an empty string, or why steps are run one operation at a time instead.
    """
    replays = {}
    try:
        for num_images in step_sizes(len(program.data), program.config.batch_size):

            def step(num_images: int = num_images) -> None:
                program.plain_step(num_images)

            for _ in range(WARM_UP_STEPS):
                # Each step moves on in the order of images, of which the shortest epoch has one step only.
                program.position.zero_()
                recorder.warm_up(step)
            program.position.zero_()
            replays[num_images] = recorder.record(step)
    except RuntimeError as error:  # CUDA's errors are of this class
        reason = str(error).strip().splitlines()[0]
        return f"CUDA graphs are off, steps run one operation at a time and slower: {reason}"
    program.record(replays)
    return ""
