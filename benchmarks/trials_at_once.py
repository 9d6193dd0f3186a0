"""Compares two ways to use a CPU: one trial on all cores, or one trial a core with one thread each.

`python benchmarks/trials_at_once.py` prints training images a second of both, run in turn, and their ratio.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time

import numpy as np
import torch

from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.data import ImageDataset, ImageSplit
from tune_cifar.trial.device import prepare_device
from tune_cifar.trial.training import TrainingRun
from tune_cifar.versions import installed_versions

CPU = torch.device("cpu")


def random_images(num_images: int) -> ImageDataset:
    """Noise in the shape of CIFAR-10: what the pixels show does not change the time of a step."""
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (num_images, 32, 32, 3)).astype(np.uint8)
    split = ImageSplit(pixels, random.randint(0, 10, num_images))
    one = ImageSplit(pixels[:10], np.arange(10))
    return ImageDataset("noise", tuple(map(str, range(10))), split, one, one, "")


def train(config: TrialConfig, num_images: int, cpu_threads: int, barrier: object) -> float:
    """Seconds of one epoch, after a first one that warms up; processes wait for each other in between."""
    prepare_device(CPU, cpu_threads=cpu_threads)
    run = TrainingRun(config, random_images(num_images), CPU)
    epochs = run.epochs()
    next(epochs)
    barrier.wait()  # type: ignore[attr-defined]
    start = time.perf_counter()
    next(epochs)
    return time.perf_counter() - start


def images_per_second(config: TrialConfig, num_images: int, num_processes: int, cpu_threads: int) -> float:
    """Images that all processes together train a second."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(num_processes) as pool:
        barrier = manager.Barrier(num_processes)
        seconds = pool.starmap(train, [(config, num_images, cpu_threads, barrier)] * num_processes)
    return num_processes * num_images / max(seconds)


def main() -> None:
    """Run both ways in turn and print medians, spread and ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=1024)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {installed_versions()}")
    for model, batch_size in (("ResNet18", 128), ("ResNet18", 32), ("ResNet34", 128)):
        config = TrialConfig(model=model, batch_size=batch_size, epochs=2)
        ratios, separate, together = [], [], []
        for _ in range(args.repeats):
            separate.append(images_per_second(config, args.images, cores, 1))
            together.append(images_per_second(config, args.images, 1, cores))
            ratios.append(separate[-1] / together[-1])
        print(
            f"{model} batch {batch_size}: {cores} trials of 1 thread {statistics.median(separate):.0f} images/s, "
            f"1 trial of {cores} threads {statistics.median(together):.0f} images/s, "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {args.repeats} pairs)"
        )


if __name__ == "__main__":
    main()
