"""What is done on a machine must touch the cluster's own processes, all of them, and no others."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tune_cifar.cluster import node

WITHOUT_MARK = {"PATH": os.environ["PATH"]}
# A parent with the mark, whose child has none: as a worker of Ray that wrote its title over its environment.
PARENT = "import subprocess, sys; subprocess.run(['env', '-i', 'sleep', '61'])"
# It ends at no SIGTERM.
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(61)"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A mark of this test alone: a cluster that runs on this machine is none of its business."""
    monkeypatch.setattr(node, "MARK", f"TUNE_CIFAR_TEST={os.getpid()}")
    monkeypatch.setattr(node, "GRACE_SECONDS", 1.0)
    yield {**WITHOUT_MARK, "TUNE_CIFAR_TEST": str(os.getpid())}
    for pid in node.cluster_processes():
        os.kill(pid, signal.SIGKILL)


def test_stop_ends_the_marked_processes_their_children_and_no_other(mark: dict[str, str]) -> None:
    with subprocess.Popen(["sleep", "61"], env=WITHOUT_MARK) as other:
        parent = subprocess.Popen([sys.executable, "-c", PARENT], env=mark)
        stubborn = subprocess.Popen([sys.executable, "-c", STUBBORN], env=mark, stdout=subprocess.PIPE)
        assert stubborn.stdout
        assert stubborn.stdout.readline() == b"up\n"
        _wait_until(lambda: any(command == "sleep 61" for command in node.cluster_processes().values()))
        found = node.cluster_processes()
        assert {parent.pid, stubborn.pid} < set(found)
        assert len(found) == 3
        assert node.stop() == (3, [])
        assert (parent.wait(), stubborn.wait()) == (-signal.SIGTERM, -signal.SIGKILL)
        assert other.poll() is None
        other.kill()
    stubborn.stdout.close()
    assert node.stop() == (0, [])


def test_stop_ends_the_connections_that_this_cluster_keeps_open(mark: dict[str, str]) -> None:
    def connection(cluster_name: str) -> subprocess.Popen[bytes]:
        cluster = hashlib.sha256(cluster_name.encode()).hexdigest()[:10]
        title = f"ssh: /tmp/ray_ssh_0123456789/{cluster}/39a41805304a3a2e [mux]"
        return subprocess.Popen(["bash", "-c", f"exec -a '{title}' sleep 61"], env=WITHOUT_MARK)

    with connection("mine") as ours, connection("other") as others:
        _wait_until(lambda: all(b"ssh: " in Path(f"/proc/{made.pid}/cmdline").read_bytes() for made in (ours, others)))
        assert node.stop() == (0, [])
        assert node.stop("mine") == (1, [])
        assert ours.wait() == -signal.SIGTERM
        assert others.poll() is None
        others.kill()


def test_a_port_is_taken_by_another_program_but_not_by_the_cluster(mark: dict[str, str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert node._foreign_listener(port, {}) is None  # bound, and nobody listens yet
        listener.listen()
        owner = node._foreign_listener(port, {})
        assert owner is not None
        assert owner.startswith(f"process {os.getpid()}: ")
        assert node._foreign_listener(port, {os.getpid(): "ray"}) is None


def test_what_a_machine_reaches_is_told(mark: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert node._why_not_reached("127.0.0.1", port) is None
    assert "refused" in (node._why_not_reached("127.0.0.1", port) or "")


def test_rays_notes_on_this_cluster_alone_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    folder = tmp_path / "ray"
    folder.mkdir()
    for name in ("cluster-mine.state", "cluster-other.state"):
        (folder / name).write_text("{}")
    (folder / "ray_current_cluster").write_text("10.0.0.9:6379")
    node.forget("mine", "10.0.0.1:6379")
    assert sorted(path.name for path in folder.iterdir()) == ["cluster-other.state", "ray_current_cluster"]
    node.forget("mine", "10.0.0.9:6379")
    assert [path.name for path in folder.iterdir()] == ["cluster-other.state"]


def test_facts_are_of_this_machine(mark: dict[str, str]) -> None:
    facts = node.facts()
    assert facts["python"] == list(sys.version_info[:2])
    assert facts["num_processes"] == 0
    assert facts["has_environment"] is False  # the test's own home has none


def _wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
