"""Compares a trial of this project with the tutorial's training loop, in turns in one run, on a CPU or a GPU.

`python benchmarks/trial.py` needs neither Ray nor W&B. It prints images a second, seconds an epoch, the ratio to the
tutorial's loop with its spread, where the time goes, and what all trials at once bring; and writes all of it as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a plain checkout is enough

try:
    import torch

    from benchmarks.benchmark_images import CIFAR10_TRAINING_IMAGES, real_images, write_images
    from benchmarks.loop_processes import LoopName, LoopProcess
    from benchmarks.machine import describe_machine, machine_kind
    from benchmarks.successive_trials import grows, growth_mib
    from benchmarks.trial_report import print_case, print_machine, print_memory, print_shares, print_summary
    from benchmarks.trial_timing import Crew, time_case
    from tune_cifar.command import positive_float, positive_int, run_command
    from tune_cifar.errors import UserError
    from tune_cifar.runner.gpu_measurement import noise_images
    from tune_cifar.runner.mps import mps_daemon
    from tune_cifar.runner.resources import this_machine
    from tune_cifar.trial.config import MODELS, TrialConfig, torchvision_builder_name
    from tune_cifar.trial.device import choose_device
except ModuleNotFoundError as missing:
    package = str(missing.name).partition(".")[0]
    sys.exit(f"error: {package} is missing. This needs: pip install torch torchvision (with numpy and pillow).")

RESULTS = Path(__file__).resolve().parent / "results"
DEFAULT_IMAGES = {"cpu": 2048, "cuda": CIFAR10_TRAINING_IMAGES}
DEFAULT_MINUTES = {"cpu": 20.0, "cuda": 7.5}
TIMING_SHARE = 0.85
"""The share of the minutes that is for timing; the rest is for profiles and the memory of successive trials."""

MOST_AT_ONCE_ON_GPU = 8
PROFILED_STEPS = {"cpu": 6, "cuda": 60}
STEPS_OF_A_SHORT_TRIAL = 2


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write what `arguments` ask for; returns the exit code."""
    args = _parse(arguments)
    deadline = perf_counter() + args.budget_minutes * 60 * TIMING_SHARE
    configs = [TrialConfig(model=model, batch_size=size) for model in args.models for size in args.batch_sizes]
    machine = describe_machine(args.device)
    print_machine(machine)
    _say(f"{args.images:,} images an epoch, of {args.data or 'noise, since no --data is given'}")
    result: dict[str, Any] = {
        "benchmark": "trial",
        "command": shlex.join(["python", "benchmarks/trial.py", *arguments]),
        "machine": machine,
        "images": {"source": args.data or "noise", "num_images": args.images},
        "configs": [config.as_dict() for config in configs],
    }
    path = args.json or RESULTS / f"trial-{machine_kind(machine)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, real_images(args.data, args.images) if args.data else noise_images(args.images).train)
        with _crew(folder, args.device) as (crew, mps_line):
            result["mps"] = mps_line
            result["cases"] = []
            for number, config in enumerate(configs):
                seconds = max(1.0, (deadline - perf_counter()) / (len(configs) - number))
                case = time_case(config, crew, num_images=args.images, repeats=args.repeats, seconds=seconds, say=_say)
                print_case(case)
                result["cases"].append(case)
                _write(result, path)  # the minutes so far must not be lost by what comes after
            for config, case in zip(configs, result["cases"], strict=True):
                case["time_shares"] = _time_shares(config, crew, args.images)
            print_shares(result["cases"])
        result["memory_after_trials"] = _memory_after_trials(configs, args, folder)
    print_memory(result["memory_after_trials"])
    print_summary(result["cases"])
    _write(result, path)
    print(f"\nAll figures: {path}")
    return 0


def _write(result: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n")


def _say(line: str) -> None:
    print(line, flush=True)


@contextlib.contextmanager
def _crew(folder: Path, device: torch.device) -> Iterator[tuple[Crew, str | None]]:
    """Start all processes, the MPS daemon too where there is a GPU; yields them and a line about the daemon."""
    num_cores = int(this_machine().cpus)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's profiler tells of itself on stderr
    shared_gpu = device.type == "cuda"
    num_together = min(num_cores, MOST_AT_ONCE_ON_GPU) if shared_gpu else num_cores
    with contextlib.ExitStack() as stack:

        def start(loop: LoopName, count: int, cpu_threads: int = 1) -> list[LoopProcess]:
            return [stack.enter_context(LoopProcess(loop, folder, device, cpu_threads)) for _ in range(count)]

        with _without_mps(folder):
            (tutorial,) = start("tutorial", 1)
            together = start("ours", num_together)
            alone = start("ours", 1)[0] if shared_gpu else together[0]
            many_threads = start("ours", 1, num_cores)[0] if num_cores > 1 and not shared_gpu else None
        under_mps, mps_line = [], None
        if shared_gpu:
            # Entered before the processes are started and so left after they have ended.
            mps = stack.enter_context(mps_daemon(say=_say))
            mps_line = mps.line
            _say(mps_line)
            under_mps = start("ours", num_together) if mps.running else []
        yield Crew(tutorial, alone, many_threads, together, under_mps, device.type), mps_line


@contextlib.contextmanager
def _without_mps(folder: Path) -> Iterator[None]:
    """Processes started in this context find no MPS daemon, also where one is running: they look in an empty place."""
    before = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
    os.environ["CUDA_MPS_PIPE_DIRECTORY"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_MPS_PIPE_DIRECTORY"]
        else:
            os.environ["CUDA_MPS_PIPE_DIRECTORY"] = before


def _time_shares(config: TrialConfig, crew: Crew, num_images: int) -> dict[str, Any]:
    """Where the time of either loop goes, one process at a time."""
    few = min(num_images, PROFILED_STEPS[crew.device_type] * config.batch_size)
    shares = {}
    for loop, process in (("tutorial", crew.tutorial), ("ours", crew.alone)):
        described = process.call("open", config, few)
        process.call("train")
        shares[loop] = {**process.call("time_shares"), "ran_with": described}
    return shares


def _memory_after_trials(configs: Sequence[TrialConfig], args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run trials one after another in a fresh process, when all others have ended."""
    num_images = min(args.images, STEPS_OF_A_SHORT_TRIAL * max(args.batch_sizes))
    with LoopProcess("ours", folder, args.device) as process:
        after = process.call("memory_after_trials", configs, args.successive_trials, num_images)
    return {"num_images": num_images, "mib": after, "growth_mib": growth_mib(after), "grows": grows(after)}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks/trial.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    parser.add_argument("--models", nargs="+", default=["ResNet18", "ResNet34"], metavar="MODEL")
    parser.add_argument("--batch-sizes", nargs="+", type=positive_int, default=[32, 128], metavar="N")
    parser.add_argument("--images", type=positive_int, metavar="N", help="an epoch; default: 2048, on a GPU 45000")
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="turns of each loop; default: 5")
    parser.add_argument("--budget-minutes", type=positive_float, metavar="X", help="default: 20, on a GPU 7.5")
    parser.add_argument("--successive-trials", type=positive_int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--data", metavar="PATH", help="train on these images, see `tune_cifar.train`; default: noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/trial-MACHINE.json")
    args = parser.parse_args(arguments)
    args.device = torch.device(args.device) if args.device else choose_device()
    if args.device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU that it can use here.")
    args.images = args.images or DEFAULT_IMAGES[args.device.type]
    args.budget_minutes = args.budget_minutes or DEFAULT_MINUTES[args.device.type]
    for model in args.models:
        if torchvision_builder_name(model) is None:
            raise UserError(f"--models {model}: not a torchvision ResNet; known: {', '.join(MODELS)}.")
    args.models = [torchvision_builder_name(model) for model in args.models]
    if args.images < max(args.batch_sizes):
        raise UserError(f"--images {args.images}: fewer than a batch of {max(args.batch_sizes)}.")
    return args


if __name__ == "__main__":
    sys.exit(run_command(main))
