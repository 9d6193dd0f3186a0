"""Measures what trials that share a GPU train a second and how much of its memory they take, by training some."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

import numpy as np
import torch

from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset, ImageSplit
from tune_cifar.trial.device import prepare_device
from tune_cifar.trial.training import TrainingRun
from tune_cifar.trial.workbench import Workbench

NUM_CLASSES = 10
VALIDATION_IMAGES = 500
"""A whole batch of an evaluation, which can take more memory than a training step; it adds little time."""

ANSWER_SECONDS = 300.0
"""A GPU that takes longer for an epoch of a measurement is stuck."""
EXIT_SECONDS = 10.0


@dataclass(frozen=True)
class Measurement:
    """Trials that trained at the same time: images a second of all together; GPU memory in bytes, 0 without a GPU.

    `reserved_bytes` is what torch held for the largest trial, `used_bytes` is what was used of the whole GPU's
    `total_bytes` while all trials were there: by them, by CUDA for each of them, and by everybody else.
    """

    images_per_second: float
    reserved_bytes: int
    used_bytes: int
    total_bytes: int


class MeasurementError(Exception):
    """A trial could not be measured, such as for want of memory; the text says why."""


class TrialProcesses:
    """Up to `number` trials, each a process of its own with one CPU thread as in a search, to be measured at once.

    A context manager. Before the first `measure` with so many trials, a process holds nothing of the device.
    """

    def __init__(self, number: int, device: torch.device) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Any] = []
        self.processes: list[SpawnProcess] = []
        for _ in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, device), daemon=True)
            with _without_interrupts():
                process.start()
            theirs.close()  # the process then has the only one, and its death ends the pipe
            self.pipes.append(ours)
            self.processes.append(process)

    def __enter__(self) -> TrialProcesses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            if kind is None:
                process.join(EXIT_SECONDS)  # it ends by itself, and CUDA frees what it holds
            process.kill()
            process.join()

    def measure(self, configs: Sequence[TrialConfig], num_trials: int, *, num_images: int) -> Measurement:
        """In each of `num_trials` processes, run trials of `configs` one after another on `num_images` of noise.

        As in a search, such trials share what a process keeps for them. The last one's second epoch is timed, when
        the others of all processes are done; each must have two. Raises `MeasurementError` when
        a trial fails; the processes are then of no more use.
        """
        pipes = self.pipes[:num_trials]
        _ask(pipes, (tuple(configs), num_images))
        seconds = _ask(pipes, "train")
        memory = _ask(pipes, "memory")
        reserved_bytes, used_bytes, total_bytes = (max(column) for column in zip(*memory, strict=True))
        _ask(pipes, "free")
        return Measurement(num_trials * num_images / max(seconds), reserved_bytes, used_bytes, total_bytes)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started here are deaf to Ctrl-C, which the terminal sends to all: each would print a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ask(pipes: list[Any], request: Any) -> list[Any]:
    """Send `request` to all, then wait for the answer of each."""
    answers = []
    try:
        for pipe in pipes:
            pipe.send(request)
        for pipe in pipes:
            if not pipe.poll(ANSWER_SECONDS):
                raise MeasurementError(f"a trial took more than {ANSWER_SECONDS:g} s")
            answers.append(pipe.recv())
    except (EOFError, OSError):
        raise MeasurementError("the process of a trial died") from None
    for answer in answers:
        if isinstance(answer, MeasurementError):
            raise answer
    return answers


def _serve(pipe: Any, device: torch.device) -> None:
    """The process of a trial: does what `measure` asks for, until nobody asks any more."""
    try:
        prepare_device(device, cpu_threads=1)
        while True:
            _serve_measurement(pipe, device)
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        pipe.send(MeasurementError(reason or type(error).__name__))


def _serve_measurement(pipe: Any, device: torch.device) -> None:
    configs, num_images = pipe.recv()
    data = noise_images(num_images)
    workbench = Workbench(data, device)
    for config in configs[:-1]:
        for _ in TrainingRun(config, data, device, workbench).epochs():
            pass
    epochs = TrainingRun(configs[-1], data, device, workbench).epochs()
    next(epochs)  # compiles, captures and fills caches
    pipe.send("ready")
    pipe.recv()
    start = time.perf_counter()
    next(epochs)
    pipe.send(time.perf_counter() - start)
    pipe.recv()
    pipe.send(_memory(device))
    pipe.recv()
    del epochs, workbench
    free_memory(device)
    pipe.send("free")


def _memory(device: torch.device) -> tuple[int, int, int]:
    if device.type != "cuda":
        return 0, 0, 0
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return torch.cuda.max_memory_reserved(device), total_bytes - free_bytes, total_bytes


def free_memory(device: torch.device) -> None:
    """Give what nobody holds any more back to the GPU, and begin its peak anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def noise_images(num_images: int) -> ImageDataset:
    """Noise in the shape of CIFAR-10: what the pixels show does not change the time of a step."""
    random = np.random.RandomState(0)

    def split(size: int) -> ImageSplit:
        pixels = random.randint(0, 256, (size, 32, 32, 3)).astype(np.uint8)
        return ImageSplit(pixels, random.randint(0, NUM_CLASSES, size))

    names = tuple(map(str, range(NUM_CLASSES)))
    return ImageDataset("noise", names, split(num_images), split(VALIDATION_IMAGES), split(1), "")
