"""Small disks that can be filled up, for tests of what becomes of a search then."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A folder with a file system of its own in memory; skips the test where this user may mount none."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs the right to mount a tmpfs: {error}")
        try:
            yield Path(folder)
        finally:
            # Lazily: a process of the test may have a file open still.
            subprocess.run(["umount", "--lazy", folder], check=True)


def remount(disk: Path, options: str) -> None:
    """Change a disk that is in use: `size=64m`, `ro` or `rw`."""
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)
