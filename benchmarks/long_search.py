"""Measures what a long search costs its machine: memory of its processes, and milliseconds of scheduling a trial.

`python benchmarks/long_search.py` runs two searches and looks at them from outside twice a second. `train` trains
200 short trials one after another: does a process grow with the number of trials? `stub` runs 1,000 trials that
report at once: what does each cost besides training, and does that grow with their number?
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import REPOSITORY, describe_machine

SECONDS_BETWEEN_LOOKS = 0.5
WARM_UP_SHARE = 0.25
MIB = 1 << 20


@dataclass(frozen=True)
class Look:
    """A search at one moment: seconds since its start, trials ended, processor time, and resident memory in MiB.

    Processor time is that of the search's own process, which schedules; it tells little of what else the machine does.
    """

    seconds: float
    trials: int
    driver_cpu_seconds: float
    driver_mib: float
    worker_mib: float


def write_sweep(folder: Path, method: str, num_trials: int) -> Path:
    """A sweep file of one-epoch trials that differ in learning rate and momentum."""
    sweep = folder / "sweep.yaml"
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "momentum": {"distribution": "uniform", "min": 0.5, "max": 0.95},
        "batch_size": {"value": 32},
        "epochs": {"value": 1},
    }
    metric = {"name": "val_loss", "goal": "minimize"}
    sweep.write_text(
        yaml.safe_dump({"method": method, "metric": metric, "parameters": parameters, "run_cap": num_trials})
    )
    return sweep


def commands(folder: Path, kind: str, sweep: Path, profile: Path | None) -> list[str]:
    """The command line of a search that trains, or of one that only searches."""
    if kind == "stub":
        extra = ["--profile", str(profile)] if profile else []
        return [
            sys.executable,
            str(REPOSITORY / "benchmarks" / "stub_search.py"),
            str(sweep),
            str(folder / "s"),
            *extra,
        ]
    flags = ["--data", "digits", "--train-images", "64", "--precision", "fp32", "--trials-at-once", "1"]
    flags += ["--wandb", "offline", "--results", str(folder), "--name", "s"]
    return [sys.executable, "-m", "tune_cifar.search", str(sweep), *flags]


def watch(command: Sequence[str], folder: Path) -> list[Look]:
    """Run a search to its end and look at it on the way; raises `RuntimeError` where it fails."""
    looks = []
    output = folder / "output.txt"
    with output.open("wb") as file:
        started = time.monotonic()
        # The memory of the trials is that of this process's descendants, which those of a cluster are not.
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "RAY_ADDRESS": "local"}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                workers = [child.memory_info().rss for child in driver.children(recursive=True) if _trains(child)]
                ended = len(re.findall(rb"^\[\d+/\d+\] finished", output.read_bytes(), re.MULTILINE))
                looks.append(
                    Look(
                        time.monotonic() - started,
                        ended,
                        sum(driver.cpu_times()[:2]),
                        driver.memory_info().rss / MIB,
                        max(workers, default=0) / MIB,
                    )
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise RuntimeError(f"the search ended with {process.returncode}: {output.read_text()[-2000:]}")
    return looks


def _trains(process: psutil.Process) -> bool:
    """Whether it is Ray's process for a trial, which tells so in its command line."""
    with contextlib.suppress(psutil.Error):
        return any("ImplicitFunc" in part for part in process.cmdline()[:1])
    return False


def summarise(looks: Sequence[Look]) -> dict[str, Any]:
    """Peaks, growth a trial after the first quarter of the trials, and milliseconds a trial by tenths of the search.

    The latter by the clock, and of the driver's processor time.
    """
    last = looks[-1].trials
    warm = [look for look in looks if WARM_UP_SHARE * last <= look.trials < last and look.worker_mib]
    trials = [look.trials for look in warm]
    tenths = [tenth * last // 10 for tenth in range(11)]
    reached = [next(look for look in looks if look.trials >= count) for count in tenths]
    reached[0] = max((look for look in looks if look.trials == 0), key=lambda look: look.seconds)
    steps = list(pairwise(reached))
    return {
        "trials": last,
        "seconds": looks[-1].seconds,
        "driver_peak_mib": max(look.driver_mib for look in looks),
        "worker_peak_mib": max(look.worker_mib for look in looks),
        "driver_mib_per_trial": _slope(trials, [look.driver_mib for look in warm]),
        "worker_mib_per_trial": _slope(trials, [look.worker_mib for look in warm]),
        "milliseconds_per_trial": [
            1000 * (after.seconds - before.seconds) / max(1, after.trials - before.trials) for before, after in steps
        ],
        "driver_cpu_milliseconds_per_trial": [
            1000 * (after.driver_cpu_seconds - before.driver_cpu_seconds) / max(1, after.trials - before.trials)
            for before, after in steps
        ],
    }


def _slope(trials: Sequence[int], values: Sequence[float]) -> float | None:
    return float(np.polyfit(trials, values, 1)[0]) if len(set(trials)) > 1 else None


def measure(kind: str, method: str, num_trials: int, profile: Path | None = None) -> dict[str, Any]:
    """Run one search in a folder of its own; returns its summary and every look."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        looks = watch(commands(folder, kind, write_sweep(folder, method, num_trials), profile), folder)
    return {"kind": kind, "method": method, **summarise(looks), "looks": [asdict(look) for look in looks]}


def print_table(figures: Sequence[dict[str, Any]]) -> None:
    """A row a search; milliseconds a trial, by the clock and of the driver's CPU: median of tenths (first, last)."""
    print("| search | trials | driver, peak | growth a trial | worker, peak | growth a trial | ms | CPU ms |")
    print("|---|---|---|---|---|---|---|---|")
    for figure in figures:
        growth = [figure[f"{who}_mib_per_trial"] for who in ("driver", "worker")]
        driver, worker = ("-" if value is None else f"{value:+.3f} MiB" for value in growth)
        both = [figure[f"{which}milliseconds_per_trial"] for which in ("", "driver_cpu_")]
        steps = " | ".join(f"{statistics.median(tenths):.0f} ({tenths[0]:.0f}, {tenths[-1]:.0f})" for tenths in both)
        print(
            f"| {figure['kind']}, {figure['method']} | {figure['trials']} | {figure['driver_peak_mib']:.0f} MiB | "
            f"{driver} | {figure['worker_peak_mib']:.0f} MiB | {worker} | {steps} |"
        )


def main() -> None:
    """Run the searches, print a table, and write every look if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-trials", type=int, default=200, help="0: leave this search out")
    parser.add_argument("--stub-trials", type=int, default=1000, help="0: leave this search out")
    parser.add_argument("--method", choices=["random", "bayes"], default="random")
    parser.add_argument("--profile", type=Path, help="of the stub search's main thread, which it slows down")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    machine = describe_machine(torch.device("cpu"))
    kinds = [("train", args.train_trials, None), ("stub", args.stub_trials, args.profile)]
    figures = [measure(kind, args.method, count, profile) for kind, count, profile in kinds if count]
    print_table(figures)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "figures": figures, "command": sys.argv}, indent=1) + "\n")


if __name__ == "__main__":
    main()
