"""`python -m tune_cifar.cluster up|down|check [cluster.yaml]`: machines that you have, as one Ray cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tune_cifar.cluster.cluster_file import DEFAULT_FILE, load_cluster
from tune_cifar.cluster.launch import JOIN_SECONDS, check, down, up
from tune_cifar.command import positive_float, run_command


def main(arguments: Sequence[str]) -> int:
    """Check the machines of the cluster file, start Ray on them, or stop it."""
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.cluster", description="Machines that you have, as one Ray cluster."
    )
    parser.add_argument(
        "action",
        choices=("up", "down", "check"),
        help="check the machines and start Ray on them; stop it on all of them; only check",
    )
    parser.add_argument("file", type=Path, nargs="?", default=DEFAULT_FILE, help="the cluster's file (cluster.yaml)")
    parser.add_argument(
        "--join-seconds",
        type=positive_float,
        default=JOIN_SECONDS,
        metavar="S",
        help=f"up: how long to wait for the workers ({JOIN_SECONDS:g})",
    )
    args = parser.parse_args(arguments)
    cluster, console = load_cluster(args.file), Console(highlight=False)
    if args.action == "up":
        return up(cluster, console, join_seconds=args.join_seconds)
    if args.action == "down":
        return down(cluster, console)
    check(cluster, console)
    console.print(f"ready    {len(cluster.machines)} machine(s) can become a cluster: make cluster-up")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
