"""Processes that hold a training loop each and train when told to, so that loops take turns or run side by side."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch

from benchmarks.benchmark_images import read_images
from benchmarks.our_loop import OurLoop
from benchmarks.successive_trials import MEBIBYTE, memory_after_trials
from benchmarks.time_shares import measure_time_shares
from benchmarks.tutorial_loop import TutorialLoop
from tune_cifar.runner.gpu_measurement import free_memory
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.device import prepare_device

LoopName = Literal["tutorial", "ours"]
SECONDS_TO_END = 20


class LoopHost:
    """What runs inside such a process: one loop at a time.

    Ours has `cpu_threads`; the tutorial's loop leaves their number to torch.
    """

    def __init__(self, name: LoopName, folder: Path, device: torch.device, cpu_threads: int) -> None:
        if name == "ours":
            prepare_device(device, cpu_threads=cpu_threads)
        self.name = name
        self.folder = folder
        self.device = device
        self.loop: TutorialLoop | OurLoop | None = None

    def open(self, config: TrialConfig, num_images: int) -> dict[str, object]:
        """Build the loop for epochs of `num_images`, in place of the last one; says what it runs with."""
        self.close()
        make_loop = TutorialLoop if self.name == "tutorial" else OurLoop
        self.loop = make_loop(config, read_images(self.folder, num_images), self.device)
        return self.loop.describe()

    def train(self, num_epochs: int = 1) -> None:
        """Train so many epochs, until the device is done with them."""
        assert self.loop is not None  # noqa: S101
        for _ in range(num_epochs):
            self.loop.train()

    def time_shares(self) -> dict[str, Any]:
        """Where the time of an epoch goes; see `measure_time_shares`."""
        assert self.loop is not None  # noqa: S101
        return measure_time_shares(self.loop.steps_to_profile(), self.device)

    def peak_memory_mib(self) -> float | None:
        """The most GPU memory that torch has reserved since `open`, None on a CPU."""
        return torch.cuda.max_memory_reserved() / MEBIBYTE if self.device.type == "cuda" else None

    def memory_after_trials(
        self, configs: Sequence[TrialConfig], num_trials: int, num_images: int
    ) -> list[dict[str, float]]:
        """Run trials one after another; see `successive_trials.memory_after_trials`."""
        self.close()
        return memory_after_trials(configs, num_trials, read_images(self.folder, num_images), self.device)

    def close(self) -> None:
        """Let go of the loop and its memory."""
        self.loop = None
        free_memory(self.device)


class LoopProcess:
    """A process with a `LoopHost`, whose methods are called by name; as a context it ends the process."""

    def __init__(self, name: LoopName, folder: Path, device: torch.device, cpu_threads: int = 1) -> None:
        self.cpu_threads = cpu_threads
        # Spawned: a forked process cannot use CUDA, and would take over the threads' state of its parent.
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        arguments = (other_end, multiprocessing.get_start_method(), name, folder, device, cpu_threads)
        self._process = context.Process(target=_serve, args=arguments)
        self._process.start()
        other_end.close()

    def __enter__(self) -> LoopProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(SECONDS_TO_END)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def start(self, method: str, *args: object) -> None:
        """Begin a call; `finish` waits for its end."""
        self._connection.send((method, args))

    def finish(self) -> Any:
        """The value of the call that was begun; raises `RuntimeError` with the process's own traceback."""
        try:
            done, value = self._connection.recv()
        except EOFError:
            self._process.join(SECONDS_TO_END)
            raise RuntimeError(f"a process of the benchmark ended by itself: {self._process.exitcode}") from None
        if not done:
            raise RuntimeError(f"a process of the benchmark failed:\n{value}")
        return value

    def call(self, method: str, *args: object) -> Any:
        """Begin a call and wait for its end."""
        self.start(method, *args)
        return self.finish()


def _serve(
    connection: Connection, start_method: str, name: LoopName, folder: Path, device: torch.device, cpu_threads: int
) -> None:
    """Do what the other end asks for until it closes."""
    # Else the loader's workers would be spawned too, as this process is: each epoch would begin with two imports of
    # torch, which takes seconds, and not as the tutorial's does.
    multiprocessing.set_start_method(start_method, force=True)
    host = LoopHost(name, folder, device, cpu_threads)
    while True:
        try:
            method, args = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            answer = True, getattr(host, method)(*args)
        except Exception:  # whatever it is, the parent shows it
            answer = False, traceback.format_exc()
        connection.send(answer)


def call_all(processes: Sequence[LoopProcess], method: str, *args: object) -> list[Any]:
    """Call the same in all processes at the same time."""
    for process in processes:
        process.start(method, *args)
    return [process.finish() for process in processes]


def timed_training(processes: Sequence[LoopProcess], num_epochs: int) -> float:
    """Seconds from a common start until the last of `processes` has trained its epochs.

    All of them wait for their next call when it begins, so that this is a barrier.
    """
    start = perf_counter()
    call_all(processes, "train", num_epochs)
    return perf_counter() - start
