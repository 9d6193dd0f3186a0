"""A machine that has NVIDIA's MPS program, or rather its stand-in."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.runner import mps_helpers
from tune_cifar.runner import mps


@pytest.fixture
def mps_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short-named folder in which all daemons live; the stand-in is on PATH, no daemon runs."""
    folder = Path(tempfile.mkdtemp(dir=mps.TEMPORARY))  # pytest's own names are too long for a socket
    mps_helpers.install(folder / "bin")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY", "CUDA_VISIBLE_DEVICES", "FAKE_MPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mps, "DEFAULT_PIPE_DIRECTORY", str(folder / "default"))
    monkeypatch.setattr(mps, "TEMPORARY", str(folder))
    yield folder
    for pid_file in folder.rglob(f"{mps_helpers.CONTROL_NAME}.pid"):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(pid_file.read_text())).kill()
    shutil.rmtree(folder)


@pytest.fixture
def dying_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process that multiprocessing starts ends at once: Python imports this file when it starts."""
    code = "import os, sys\nif 'spawn_main' in ' '.join(sys.orig_argv): os._exit(9)\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
