from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.loopback_sshd import loopback_sshd, why_no_sshd
from tune_cifar.cluster.remote_head import Head, HeadFacts
from tune_cifar.cluster.remote_process import start_line, terminate
from tune_cifar.cluster.ssh_tunnel import SshLogin

HEAD = Head("head", SshLogin("head"), 8265)
# In the place of Python: a program that says how wide its lines are, and how it ends.
PROGRAM = "#!/bin/sh\ntrap 'echo ended; exit 143' TERM\necho $COLUMNS\nwhile :; do sleep 0.1; done\n"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if reason := why_no_sshd():
        pytest.skip(reason)
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as folder:
        yield folder


@pytest.mark.skipif(sys.platform != "linux", reason="the head of a cluster runs Linux")
def test_the_process_that_was_started_is_the_one_that_is_ended(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    project = tmp_path / "my project"
    (project / "results" / ".sent" / "one").mkdir(parents=True)
    program = project / "python"
    program.write_text(PROGRAM)
    program.chmod(0o700)
    facts = HeadFacts(str(project), "3.11", "2", "0", str(project / "results" / "one"), folder_exists=False, token=None)
    assert not terminate(HEAD, facts, "one")  # not started yet

    command = [str(program), "-m", "tune_cifar.search", "--name", "one", "--results", "results"]
    line = start_line(facts, "one", command, 123)
    with subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "123\n"
        pid_file = project / "results" / ".sent" / "one" / "pid"
        assert pid_file.read_text() == f"{process.pid}\n"
        other = project / "results" / ".sent" / "on"
        other.mkdir()
        (other / "pid").write_text(pid_file.read_text())
        assert not terminate(HEAD, facts, "on")  # that id belongs to another search
        assert terminate(HEAD, facts, "one")
        assert process.stdout.read() == "ended\n"
    assert process.returncode == 143
    assert not terminate(HEAD, facts, "one")
