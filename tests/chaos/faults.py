"""The faults: each hits one process, signal, disk, node or server of the search under test and of nobody else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import psutil

from tests.chaos.search_under_test import SearchUnderTest
from tests.commands import environment
from tests.tracking.wandb_server import WandbServer

Kind = Literal[
    "kill search",
    "kill trial",
    "kill raylet",
    "kill GCS",
    "SIGTERM",
    "SIGINT",
    "SIGINT twice",
    "W&B down",
    "disk full",
    "node lost",
]
LOCAL: tuple[Kind, ...] = (
    "kill search",
    "kill trial",
    "kill raylet",
    "kill GCS",
    "SIGTERM",
    "SIGINT",
    "SIGINT twice",
)
FILLER = "filler"


@dataclass
class Arena:
    """The search under test with what is around it."""

    search: SearchUnderTest
    server: WandbServer | None = None
    cluster: Cluster | None = None

    def strike(self, kind: Kind, random: Random) -> bool:
        """Inject the fault; False where there was nothing to hit."""
        search = self.search
        if kind == "kill search":
            search.signal(signal.SIGKILL)
        elif kind in ("kill trial", "kill raylet", "kill GCS"):
            part = {"kill trial": "ImplicitFunc", "kill raylet": "raylet/raylet", "kill GCS": "gcs_server"}[kind]
            return _kill(search.named(part)[:1])
        elif kind == "SIGTERM":
            search.signal(signal.SIGTERM)
        elif kind in ("SIGINT", "SIGINT twice"):
            search.signal(signal.SIGINT)
            if kind == "SIGINT twice":
                time.sleep(random.uniform(0.1, 3))
                search.signal(signal.SIGINT)
        elif kind == "W&B down":
            assert self.server is not None
            self.server = restart(self.server, random.uniform(2, 10))
        elif kind == "disk full":
            fill(search.results.parent, left_bytes=random.randint(0, 60_000_000))
        else:
            assert self.cluster is not None
            self.cluster.lose_node()
        return True

    def mend(self) -> None:
        """Make room again before the search is resumed."""
        (self.search.results.parent / FILLER).unlink(missing_ok=True)


def _kill(processes: list[psutil.Process]) -> bool:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
            return True
    return False


def restart(server: WandbServer, down_seconds: float) -> WandbServer:
    """Take the server down and put one with all that it knew in its place."""
    server.die()
    time.sleep(down_seconds)
    again = WandbServer(port=server.server_port)
    again.runs, again.sweeps, again.artifact_store = server.runs, server.sweeps, server.artifact_store
    again.__enter__()
    return again


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A disk of its own in `folder`, in memory; raises `PermissionError` where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        raise PermissionError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, *, left_bytes: int) -> None:
    """Write a file that leaves `left_bytes` free, or what is free if that is less."""
    free = shutil.disk_usage(folder).free - left_bytes
    with (folder / FILLER).open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(1, free))


class Cluster:
    """A Ray cluster of a head without cores and two nodes of one core, in a process of its own."""

    def __init__(self, folder: Path, ray_folder: Path) -> None:
        variables = {"HOME": str(folder), "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(ray_folder)}
        variables |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.cluster"],
            env=environment(PYTHONUNBUFFERED="1", **variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.address = self._answer()

    def lose_node(self) -> None:
        """Kill one of the nodes with all that runs on it, and let a new one join."""
        assert self._process.stdin is not None
        self._process.stdin.write("lose\n")
        self._process.stdin.flush()
        self._answer()

    def end(self) -> None:
        """End every process of the cluster."""
        tree = [*psutil.Process(self._process.pid).children(recursive=True), psutil.Process(self._process.pid)]
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.communicate(timeout=60)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("cluster: "):
                return line.removeprefix("cluster: ").strip()
        raise RuntimeError("the cluster ended by itself")
