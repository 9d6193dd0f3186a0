from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import environment
from tune_cifar.errors import UserError
from tune_cifar.search_lock import LOCK_FILE, SearchLock, running_here

HOLD = """
import sys, time
from pathlib import Path
from tune_cifar.search_lock import SearchLock
with SearchLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_process_is_told_of_the_first(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=f"is running: process {holder.pid} on {socket.gethostname()}"),
        SearchLock(tmp_path),
    ):
        pytest.fail("two processes have the lock")


def test_a_process_that_is_killed_leaves_no_lock(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    with SearchLock(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_the_lock_is_free_again_at_the_end(tmp_path: Path) -> None:
    for _ in range(2):
        with SearchLock(tmp_path):
            pass


def test_a_new_search_takes_the_lock_of_the_folder_that_it_makes(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with SearchLock(folder) as lock:
        assert not folder.exists()
        folder.mkdir()
        lock.take()
        with pytest.raises(UserError, match="is running"):
            SearchLock(folder).take()


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match="No locks available"):
        SearchLock(tmp_path).take()


def test_searches_of_one_machine_know_of_each_other(tmp_path: Path) -> None:
    with running_here(tmp_path / "cache") as first, running_here(tmp_path / "cache") as second:
        with running_here(tmp_path / "cache") as third:
            assert (first, second, third) == (False, True, True)
        with running_here(tmp_path / "other") as elsewhere:
            assert not elsewhere
    with running_here(tmp_path / "cache") as later:
        assert not later


def test_where_nobody_can_know_of_a_search_it_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with running_here(tmp_path / "file") as others:
        assert not others
