"""Times the tutorial's loop and ours in turn, on the same number of images, for one model and batch size."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks.benchmark_images import CIFAR10_TRAINING_IMAGES
from benchmarks.loop_processes import LoopProcess, call_all, timed_training
from tune_cifar.trial.batches import num_used_images
from tune_cifar.trial.config import TrialConfig

FEW_BATCHES = {"cpu": 8, "cuda": 60}
"""Steps from which the speed of the tutorial's loop is guessed, after as many to warm up."""

TUTORIAL_SHARE = 0.5
"""The share of a case's time that the tutorial's loop may take; where that is too little it gets fewer images."""


@dataclass(frozen=True)
class Crew:
    """All processes of the benchmark. Those together on a GPU share it in turns, those under MPS side by side.

    On a CPU the one that is measured alone is one of those together, and `many_threads` has a thread on each core if
    there are several; on a GPU the one that is measured alone has longer epochs.
    """

    tutorial: LoopProcess
    alone: LoopProcess
    many_threads: LoopProcess | None
    together: Sequence[LoopProcess]
    under_mps: Sequence[LoopProcess]
    device_type: str

    def counts_together(self) -> list[int]:
        """How many of ours run at once: as many as there are cores; on a GPU also fewer, to see what sharing brings."""
        most = len(self.together)
        if self.device_type == "cpu":
            return [most] if most > 1 else []
        return [count for count in (1, 2, 4, 8) if count <= most]


@dataclass(frozen=True)
class Measurement:
    """One line of the result: `processes` that each train `num_epochs` epochs of `images_each` images at once."""

    loop: str
    processes: Sequence[LoopProcess]
    images_each: int
    num_epochs: int = 1
    cpu_threads: int = 1
    mps: bool = False

    @property
    def num_images(self) -> int:
        """Images that one run of the measurement trains on, all processes together."""
        return len(self.processes) * self.images_each * self.num_epochs


def time_case(
    config: TrialConfig, crew: Crew, *, num_images: int, repeats: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure one model and batch size within about `seconds`; returns JSON values, raw times included.

    On a CPU every process has epochs of `num_images`. On a GPU, which they share, that is what they train
    together, in shorter epochs, so that all measurements do the same work.
    """
    deadline = perf_counter() + seconds
    num_images = num_used_images(num_images, config.batch_size)
    tutorial = _open_tutorial(config, crew, num_images, seconds * TUTORIAL_SHARE / repeats)
    if tutorial.num_images < num_images:
        say(f"\n{config.model}: the tutorial's loop gets {tutorial.num_images:,} images an epoch, to end in time")
    ours = plan_ours(crew, num_images, config.batch_size)
    _open_and_warm_up(config, ours)
    measurements = [tutorial, *ours]
    times = time_in_turn(measurements, repeats, deadline, say)
    tutorial_speeds = [tutorial.num_images / own for own in times[0]]
    results = [_result(measurement, own, tutorial_speeds) for measurement, own in zip(measurements, times, strict=True)]
    return {
        "model": config.model,
        "batch_size": config.batch_size,
        "measurements": results,
        "headline": _headline(results, crew.device_type),
        "peak_memory_mib": {
            "tutorial": crew.tutorial.call("peak_memory_mib"),
            "ours": crew.alone.call("peak_memory_mib"),
        },
    }


def _open_tutorial(config: TrialConfig, crew: Crew, num_images: int, seconds: float) -> Measurement:
    """Warm up the tutorial's loop and open it for an epoch of at most about `seconds`."""
    few = min(num_images, FEW_BATCHES[crew.device_type] * config.batch_size)
    crew.tutorial.call("open", config, few)
    crew.tutorial.call("train")
    images_per_second = few / timed_training([crew.tutorial], num_epochs=1)
    affordable = num_used_images(max(few, min(num_images, int(images_per_second * seconds))), config.batch_size)
    described = crew.tutorial.call("open", config, affordable)
    return Measurement("tutorial", [crew.tutorial], affordable, cpu_threads=described["cpu_threads"])


def plan_ours(crew: Crew, num_images: int, batch_size: int) -> list[Measurement]:
    """What is measured of ours: one trial alone, on a CPU one with a thread on each core too, and trials at once."""
    measurements = [Measurement("ours", [crew.alone], num_images)]
    if crew.many_threads:
        threads = crew.many_threads.cpu_threads
        measurements.append(Measurement("ours", [crew.many_threads], num_images, cpu_threads=threads))
    counts = crew.counts_together()
    most = max(counts, default=1) if crew.device_type == "cuda" else 1
    for processes, mps in ((crew.together, False), (crew.under_mps, True)):
        for count in counts if processes else ():
            images_each, num_epochs = num_used_images(num_images // most, batch_size), max(1, most // count)
            measurements.append(Measurement("ours", processes[:count], images_each, num_epochs, mps=mps))
    return measurements


def _open_and_warm_up(config: TrialConfig, measurements: Sequence[Measurement]) -> None:
    """Open every process for its number of images and train an epoch, as many at once as share no core."""
    num_images = {process: each.images_each for each in measurements for process in each.processes}
    single = [process for process in num_images if process.cpu_threads == 1]
    # The others by themselves: threads that have to share their cores wait for each other far too long.
    for group in (single, *([process] for process in num_images if process.cpu_threads > 1)):
        for process in group:
            process.start("open", config, num_images[process])
        for process in group:
            process.finish()
        call_all(group, "train")


def time_in_turn(
    measurements: Sequence[Measurement], repeats: int, deadline: float, say: Callable[[str], None]
) -> list[list[float]]:
    """Seconds of each measurement in each repeat, in which every measurement has one turn."""
    times: list[list[float]] = [[] for _ in measurements]
    for repeat in range(repeats):
        start = perf_counter()
        for measurement, own in zip(measurements, times, strict=True):
            own.append(timed_training(measurement.processes, measurement.num_epochs))
        now = perf_counter()
        if repeat + 1 < repeats and now + (now - start) > deadline:
            say(f"  {repeat + 1} of {repeats} repeats, to end in time")
            break
    return times


def _result(measurement: Measurement, seconds: Sequence[float], tutorial_speeds: Sequence[float]) -> dict[str, Any]:
    speeds = [measurement.num_images / own for own in seconds]
    return {
        "loop": measurement.loop,
        "processes": len(measurement.processes),
        "cpu_threads": measurement.cpu_threads,
        "mps": measurement.mps,
        "images_each": measurement.images_each,
        "num_epochs": measurement.num_epochs,
        "num_images": measurement.num_images,
        "seconds": list(seconds),
        "images_per_second": summarise(speeds),
        "seconds_per_45000_images": summarise([CIFAR10_TRAINING_IMAGES / speed for speed in speeds]),
        "ratio": summarise([own / tutorial for own, tutorial in zip(speeds, tutorial_speeds, strict=True)]),
    }


def _headline(results: Sequence[dict[str, Any]], device_type: str) -> dict[str, Any]:
    """What the machine trains with ours: on a CPU with a trial on each core, on a GPU in the fastest way found."""
    if device_type == "cpu":
        return results[-1]
    return max(results[1:], key=lambda result: float(result["images_per_second"]["median"]))


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
