"""Prints the result of the benchmark of a trial as plain tables, from the same values as its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.time_shares import CATEGORIES

BUSY_SHARE = 0.25
"""A load average above this share of the cores makes the start of the report say that the machine is busy."""


def print_machine(machine: dict[str, Any]) -> None:
    """What the benchmark runs on, in a few lines."""
    features = f" ({', '.join(machine['cpu_features'])})" if machine["cpu_features"] else ""
    print(f"{machine['cores']} cores of {machine['cpu']}{features}, {machine['memory_gib']} GiB, {machine['system']}")
    if "gpu" in machine:
        print(f"{machine['gpu']}, {machine['gpu_memory_gib']} GiB, driver {machine['gpu_driver']}")
    print(", ".join(f"{package} {version}" for package, version in machine["versions"].items()), flush=True)
    if machine["load_average"] > BUSY_SHARE * machine["cores"]:
        # The threads of one loop wait for each other at every operation, so that one that is held up holds up all.
        print(f"BUSY: load average {machine['load_average']:.1f}. The ratios below favour loops of one thread.")


def print_case(case: dict[str, Any]) -> None:
    """Speed of every measurement of one model and batch size."""
    repeats = len(case["measurements"][0]["seconds"])
    print(f"\n{case_name(case)}: medians of {repeats} turns (least to most); s/epoch is scaled to 45,000 images")
    print(f"  {'':56} {'images/s':>24} {'s/epoch':>8} {'ratio':>22}")
    for measurement in case["measurements"]:
        speed = _spread(measurement["images_per_second"], 0)
        seconds = measurement["seconds_per_45000_images"]["median"]
        ratio = _spread(measurement["ratio"], 2) if measurement["loop"] == "ours" else "1"
        print(f"  {measurement_name(measurement):56} {speed:>24} {seconds:>8.1f} {ratio:>22}")
    peak = case["peak_memory_mib"]
    if peak["ours"] is not None:
        print(f"  most GPU memory of one process: tutorial {peak['tutorial']:.0f} MiB, ours {peak['ours']:.0f} MiB")


def print_shares(cases: Sequence[dict[str, Any]]) -> None:
    """Where the time goes, a column for each loop of each case."""
    print("\nWhere the time of a step goes, in percent; the profiler slows what it watches, so this is indicative only")
    print(f"  {'':24}" + "".join(f"{case_name(case):>20}" for case in cases))
    print(f"  {'':24}" + f"{'tutorial':>12}{'ours':>8}" * len(cases))
    for category in CATEGORIES:
        shares = [[case["time_shares"][loop]["shares"][category] for loop in ("tutorial", "ours")] for case in cases]
        print(f"  {category:24}" + "".join(f"{theirs:>12.1%}{ours:>8.1%}" for theirs, ours in shares))
    for case in cases:
        print(f"  ours, {case_name(case)}: {_ran_with(case['time_shares']['ours'])}")


def _ran_with(shares: dict[str, Any]) -> str:
    ran_with = shares["ran_with"]
    parts = [f"{ran_with['precision']} ({ran_with['precision_reason']})"]
    if shares["graph_launches"]:
        parts.append(f"CUDA graphs, {shares['graph_launches']} launches in the profile")
    return "; ".join([*parts, *ran_with["notes"]])


def print_memory(memory: dict[str, Any]) -> None:
    """Memory of one process after each of many trials."""
    in_use = [row["in_use"] for row in memory["mib"]]
    print(f"\nMemory in use after each of {len(in_use)} trials in one process, in MiB:")
    print("  " + " ".join(f"{mib:.0f}" for mib in in_use))
    verdict = {True: "GROWS", False: "does not grow", None: "too few trials to tell"}[memory["grows"]]
    print(f"  {verdict}: {memory['growth_mib']:+.0f} MiB after the last over the most in the first half")


def print_summary(cases: Sequence[dict[str, Any]]) -> None:
    """The tutorial's loop against ours with all trials at once, a line for each model and batch size."""
    print("\nThe machine trains, in images/s:")
    print(f"  {'':24} {'tutorial':>9} {'ours':>9} {'ratio':>22}  as")
    for case in cases:
        tutorial, best = case["measurements"][0], case["headline"]
        speeds = " ".join(f"{each['images_per_second']['median']:>9,.0f}" for each in (tutorial, best))
        print(f"  {case_name(case):24} {speeds} {_spread(best['ratio'], 2):>22}  {measurement_name(best)}")


def case_name(case: dict[str, Any]) -> str:
    """As in "resnet18/128"."""
    return f"{case['model']}/{case['batch_size']}"


def measurement_name(measurement: dict[str, Any]) -> str:
    """As in "ours, 4 processes of 1 thread, MPS: 2 x 5,625 images"."""
    count, threads = measurement["processes"], measurement["cpu_threads"]
    name = "tutorial's loop" if measurement["loop"] == "tutorial" else f"ours, {count} process{'es' * (count > 1)}"
    mps = ", MPS" if measurement["mps"] else ""
    epochs = f"{measurement['num_epochs']} x " if measurement["num_epochs"] > 1 else ""
    return f"{name} of {threads} thread{'s' * (threads > 1)}{mps}: {epochs}{measurement['images_each']:,} images"


def _spread(values: dict[str, float], digits: int) -> str:
    median, least, most = (f"{values[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return f"{median} ({least} to {most})"
