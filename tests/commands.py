"""Runs the project's commands as a user does, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tune_cifar.command import run_command

REPOSITORY = Path(__file__).parent.parent
TIMEOUT_SECONDS = 240


def command_line(module: str, *arguments: str | Path) -> list[str]:
    """The command `python -m tune_cifar.<module> <arguments>`; a warning from our own code is an error."""
    strict = ["-W", "error:::tune_cifar"]
    return [sys.executable, *strict, "-m", f"tune_cifar.{module}", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a command: the test's own, with the checkout importable from every folder."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **changes}


def run(module: str, *arguments: str | Path, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` to its end."""
    return subprocess.run(
        command_line(module, *arguments),
        cwd=folder,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def run_here(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Run a command in this process, which saves importing torch and Ray again; returns its exit code."""
    handler = signal.getsignal(signal.SIGTERM)
    argv, sys.argv = sys.argv, ["python -m tune_cifar", *arguments]
    try:
        return run_command(main)
    except SystemExit as end:  # argparse's own errors
        return int(end.code or 0)
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
