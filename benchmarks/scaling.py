"""Measures where a search stops scaling: Tune's own loop with 1,000 trials on simulated machines.

`python benchmarks/scaling.py` runs the whole driver for real (Tune's controller, the searcher, the scheduler,
trials.json, TensorBoard, W&B offline, Tune's snapshots) on a simulated cluster of 64 machines with 8 GPUs each, one
trial a GPU, and prints how busy the GPUs were kept. Only the actors are simulated: `benchmarks/simulated_actors.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import ray
import torch
import yaml
from ray.tune.execution import tune_controller
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.simulated_actors import Clock, SimulatedActors, Usage
from tune_cifar import search_trials
from tune_cifar.console import SearchConsole
from tune_cifar.request import SearchRequest
from tune_cifar.runner.placement import TrialPlacement
from tune_cifar.runner.ray_session import RaySession
from tune_cifar.runner.resources import NodeResources
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.load import load_sweep
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter
from tune_cifar.trial.data import load_dataset

GPUS_PER_MACHINE = 8
CPUS_PER_MACHINE = 64
EPOCHS = 5
START_SECONDS = 12.0  # a process that imports torch and opens a GPU: benchmarks/startup.py, on two CPU cores
RESET_SECONDS = 0.1


def epochs_of(epoch_seconds: float) -> Any:
    """Learning curves with their best value at lr 0.01; ResNet34 takes 1.8 times as long, as it does on a CPU."""

    def epoch_of(config: dict[str, Any], epoch: int) -> dict[str, Any]:
        noise = np.random.default_rng([epoch, int(config["lr"] * 1e9)])
        seconds = epoch_seconds * (1.8 if config["model"] == "ResNet34" else 1.0) * noise.uniform(0.9, 1.1)
        loss = 1.0 + (math.log10(config["lr"]) + 2) ** 2 + 1 / epoch + noise.normal(0, 0.02)
        steps = 45_000 // config["batch_size"]
        rows = range(50, steps + 1, 50)
        return {
            "epoch": epoch,
            "step": epoch * steps,
            "train_log": tuple((step, epoch - 1 + step / steps, loss) for step in rows),
            "train_loss": loss,
            "val_loss": loss,
            "val_accuracy": 1 / (1 + loss),
            "epoch_runtime (seconds)": seconds,
            "avg epoch runtime (seconds)": seconds,
            "lr": config["lr"],
            "status": "finished" if epoch == EPOCHS else "running",
            "notes": (),
            "done": epoch == EPOCHS,
        }

    return epoch_of


def write_sweep(folder: Path, method: str, num_trials: int) -> Path:
    """The tutorial's space with the learning rates of a real search."""
    path = folder / "sweep.yaml"
    parameters = {
        "model": {"values": ["ResNet18", "ResNet34"]},
        "batch_size": {"values": [32, 128]},
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "epochs": {"value": EPOCHS},
    }
    metric = {"name": "val_loss", "goal": "minimize"}
    sweep = {"method": method, "metric": metric, "parameters": parameters, "run_cap": num_trials}
    path.write_text(yaml.safe_dump(sweep))
    return path


def seconds_to_wait(num_futures: int, repeats: int = 20) -> float:
    """What Ray needs to find one ready future among `num_futures` and to read a result of an epoch's size."""
    result = epochs_of(1.0)({"lr": 0.01, "model": "ResNet18", "batch_size": 32}, 1)

    @ray.remote(num_cpus=0)
    class Trial:
        def train(self) -> dict[str, Any]:
            return result

        def sleep(self) -> None:
            time.sleep(3600)

    busy, quick = Trial.remote(), Trial.remote()
    waiting = [busy.sleep.remote() for _ in range(num_futures - 1)]
    ray.get(quick.train.remote())
    taken = []
    for _ in range(repeats):
        ready = quick.train.remote()
        time.sleep(0.02)  # it is there before it is waited for: an idle driver's waiting costs nobody anything
        start = time.perf_counter()
        found, _ = ray.wait([*waiting, ready], num_returns=1)
        ray.get(found)
        taken.append(time.perf_counter() - start)
    for actor in (busy, quick):
        ray.kill(actor)
    return sorted(taken)[repeats // 2]


def simulate(args: argparse.Namespace) -> dict[str, Any]:
    """One search; returns its figures."""
    clock = Clock()
    slots = args.machines * GPUS_PER_MACHINE
    machines = (NodeResources(CPUS_PER_MACHINE, GPUS_PER_MACHINE),) * args.machines
    actors: list[SimulatedActors] = []

    @contextlib.contextmanager
    def session(**_: Any) -> Iterator[RaySession]:
        ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        event_seconds.append(seconds_to_wait(slots))
        try:
            with patch("time.time", clock.time), patch("time.monotonic", clock.monotonic):
                yield RaySession(machines, "simulated machines")
        finally:
            ray.shutdown()

    event_seconds: list[float] = []

    def manager(**_: Any) -> SimulatedActors:
        actors.append(
            SimulatedActors(
                clock,
                epochs_of(args.epoch_seconds),
                start_seconds=START_SECONDS,
                reset_seconds=RESET_SECONDS,
                event_seconds=event_seconds[0],
            )
        )
        return actors[0]

    settings = SearchSettings(
        data="digits",
        train_images=20,
        count=None,
        seed=0,
        cpus_per_trial=None,
        gpus_per_trial=None,
        trials_at_once=None,
        precision="fp32",
        wandb_project="benchmark",
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(tune_controller, "RayActorManager", manager),
        patch.object(search_trials, "ray_session", session),
        patch.object(TrialPlacement, "on_trial_start"),  # asks Ray for the node of an actor that is not there
    ):
        config = load_sweep(write_sweep(Path(folder), args.method, args.trials), check_parameter, EPOCH_METRICS)
        console = SearchConsole(quiet=True)
        request = SearchRequest(config, settings, Path(folder) / "search", "offline", resume=False, console=console)
        start_seconds = time.process_time()
        outcome, _ = search_trials.run_trials(request, load_dataset("digits", train_images=20), "offline", "")
        driver_cpu_seconds = time.process_time() - start_seconds
    return {
        "trials": len(outcome.trials),
        "finished": sum(trial.status == "finished" for trial in outcome.trials),
        **figures(actors[0].usage, slots),
        "driver_cpu_seconds": driver_cpu_seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "wait_ms": event_seconds[0] * 1000,
    }


def figures(usage: Usage, slots: int) -> dict[str, float]:
    """How busy the slots were: in all, and from when each had a trial until no trial was left to start."""
    end = max(until for _, until in usage.spans)
    filled = usage.trial_starts[min(slots, len(usage.trial_starts)) - 1]
    last_start = usage.trial_starts[-1]

    def busy(begin: float, until: float) -> float:
        inside = sum(max(min(stop, until) - max(start, begin), 0.0) for start, stop in usage.spans)
        return inside / (slots * (until - begin)) if until > begin else math.nan

    return {
        "seconds": end,
        "filled_seconds": filled,
        "busy_while_trials_are_left": busy(filled, last_start),
        "busy_in_all": busy(0.0, end),
        "driver_load": usage.driver_seconds / end,
        "driver_ms_per_event": 1000 * usage.driver_seconds / usage.num_events,
        "events": usage.num_events,
    }


def main() -> None:
    """Run each case in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=64)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epoch-seconds", type=float, nargs="+", default=[5.0, 20.0, 60.0])
    parser.add_argument("--methods", nargs="+", default=["random", "bayes"])
    parser.add_argument("--json", type=Path, help="also write all figures there")
    parser.add_argument("--one", metavar="METHOD", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        args.method, args.epoch_seconds = args.one, args.epoch_seconds[0]
        print(json.dumps(simulate(args)))
        return
    cases = []
    for method in args.methods:
        for epoch_seconds in args.epoch_seconds:
            size = ["--machines", str(args.machines), "--trials", str(args.trials)]
            command = [sys.executable, __file__, "--one", method, "--epoch-seconds", str(epoch_seconds), *size]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            case = {"method": method, "epoch_seconds": epoch_seconds, **json.loads(done.stdout.splitlines()[-1])}
            cases.append(case)
            print(case, file=sys.stderr)
    if args.json:
        args.json.write_text(
            json.dumps({"machine": describe_machine(torch.device("cpu")), "cases": cases}, indent=2) + "\n"
        )
    table = Table(title=f"{args.trials} trials of {EPOCHS} epochs on {args.machines} machines with 8 GPUs")
    columns = ["method", "epoch_seconds", "seconds", "filled_seconds", "busy_while_trials_are_left", "busy_in_all"]
    columns += ["driver_load", "driver_ms_per_event", "peak_mib"]
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for case in cases:
        table.add_row(*(f"{case[name]:.3g}" if isinstance(case[name], float) else str(case[name]) for name in columns))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
