"""Runs the project's commands as a user does, each in a process of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
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
    """The environment of a command: the test's own, with the checkout importable from every folder.

    A search starts its own Ray, and joins none that another test has started on this machine.
    """
    # W&B's client lends its service to child processes by this variable; the one of a test has that test's key.
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    return {"RAY_ADDRESS": "local", **own, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **changes}


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


def run_on_terminal(module: str, *arguments: str | Path, folder: Path, **changes: str) -> tuple[int, str]:
    """Run a command in `folder` on a terminal of its own to its end; returns the exit code and all that it drew."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        command_line(module, *arguments),
        cwd=folder,
        env=environment(**{"TERM": "xterm-256color", "LINES": "50", **changes}),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    drawn = b""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 1.0)[0]:
                drawn += os.read(master, 65536)
    except OSError:  # Linux's way to say that no process has the terminal open any more
        pass
    finally:
        process.kill()
        os.close(master)
    return process.wait(), drawn.decode(errors="replace")


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
