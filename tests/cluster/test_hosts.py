"""The hosts must be apart from this machine and from each other, or a test's `ray stop` could end somebody's Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.hosts import hosts, why_no_hosts
from tests.commands import REPOSITORY

if why := why_no_hosts():
    pytest.skip(why, allow_module_level=True)

HOLD = """
import sys, time, pathlib
from tests.cluster.hosts import hosts
with hosts(pathlib.Path(sys.argv[1]), "one") as machines:
    print(machines["one"].init, machines["one"].switch, flush=True)
    time.sleep(61)
"""


def test_hosts_are_apart(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    with (
        hosts(tmp_path / "a", "left", "right", shared=tmp_path / "shared") as pair,
        hosts(tmp_path / "b", "left") as other,
    ):
        left, right = pair["left"], pair["right"]
        assert left.run("hostname; ssh right hostname").stdout.split() == ["left", "right"]
        assert left.processes() == right.processes() == other["left"].processes() == []
        assert f"{os.getpid()}" not in left.run("ls /proc").stdout.split()
        assert left.run("echo there > shared/file; touch /tmp/mine").returncode == 0
        assert right.run("cat shared/file; ls /tmp/mine").stdout == "there\n"
        assert left.run(f"touch {REPOSITORY}/pyproject.toml").returncode != 0
        right.set_link(up=False)
        assert left.run("ssh -o ConnectTimeout=1 right hostname").returncode != 0
        right.set_link(up=True)
        assert left.run("ssh right hostname").stdout == "right\n"
        init = left.init
    assert not Path(f"/proc/{init}").exists()


def test_hosts_die_with_the_test_that_made_them(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "hosts")], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    processes = [Path(f"/proc/{pid}") for pid in holder.stdout.readline().split()]
    assert len(processes) == 2
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    deadline = time.monotonic() + 30
    while any(process.exists() for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)
