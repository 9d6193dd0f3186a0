"""What the tests of MPS share: the stand-in for NVIDIA's program, its clients and its daemon."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil

CONTROL_NAME = "nvidia-cuda-mps-control"

_CLIENT_CODE = """
import os, socket
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    connection.connect(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "") + "/control")
    connection.send(b"client")
    connection.recv(1000)
except OSError:
    pass  # CUDA then goes on without the daemon
"""
CLIENT = (sys.executable, "-c", _CLIENT_CODE)
"""A program that does what CUDA does when it starts."""


def install(folder: Path) -> None:
    """Put the stand-in into `folder`, to be added to PATH."""
    folder.mkdir(parents=True)
    script = folder / CONTROL_NAME
    source = (Path(__file__).parent / "fake_mps_control.py").read_text()
    script.write_text(f"#!{sys.executable} -IS\n{source}")
    script.chmod(0o755)


def pipes() -> Path:
    """Where a program started now looks for the daemon."""
    return Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])


def daemon_of(pipe_directory: Path) -> psutil.Process:
    """The daemon that listens there."""
    return psutil.Process(int((pipe_directory / f"{CONTROL_NAME}.pid").read_text()))


def is_gone(daemon: psutil.Process, timeout_seconds: float = 10) -> bool:
    """Whether the daemon ends in time. Nobody may be there to collect it, so a zombie counts."""
    end_seconds = time.monotonic() + timeout_seconds
    while time.monotonic() < end_seconds:
        if not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False
