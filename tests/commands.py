"""Runs the project's commands as a user does, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
