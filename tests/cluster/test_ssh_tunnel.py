from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.loopback_sshd import loopback_sshd, why_no_sshd
from tests.commands import environment
from tune_cifar.cluster.ssh_tunnel import SshError, SshLogin, SshTunnel, run_ssh, ssh_tunnel
from tune_cifar.errors import UserError

WAIT_SECONDS = 60
HEAD = SshLogin("head")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if reason := why_no_sshd():
        pytest.skip(reason)
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as folder:
        yield folder


@pytest.fixture(autouse=True)
def _ssh_of_the_test(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs), prepend=":")


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_SECONDS)
        yield listener


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(port: int, server: socket.socket) -> bool:
    """Whether bytes sent to the port arrive at the server."""
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as client:
        client.sendall(b"ping")
        accepted, _ = server.accept()
        with accepted:
            return accepted.recv(4) == b"ping"


def tunnels_of(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children(recursive=True) if "-L" in child.cmdline()]


def test_a_tunnel_leads_to_the_other_machines_loopback_until_it_is_closed(server: socket.socket) -> None:
    with ssh_tunnel(HEAD, server.getsockname()[1]) as tunnel:
        assert answers(tunnel.port, server)
        port = tunnel.port
    wait_until(lambda: not tunnel.is_open)
    assert tunnels_of(os.getpid()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)


def test_a_broken_tunnel_is_opened_again(server: socket.socket) -> None:
    with ssh_tunnel(HEAD, server.getsockname()[1]) as tunnel:
        tunnels_of(os.getpid())[0].kill()
        wait_until(lambda: not tunnel.is_open)
        tunnel.open()
        assert answers(tunnel.port, server)


def test_a_tunnel_ends_with_its_process_even_if_that_is_killed(server: socket.socket) -> None:
    program = (
        "import sys, time\n"
        "from tune_cifar.cluster.ssh_tunnel import SshLogin, SshTunnel\n"
        "tunnel = SshTunnel(SshLogin('head'), int(sys.argv[1]))\n"
        "tunnel.open()\nprint('open', flush=True)\ntime.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(server.getsockname()[1])]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        (ssh,) = tunnels_of(process.pid)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not ssh.is_running() or ssh.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("locked", "Permission denied.*ssh-copy-id locked"),
        ("stranger", "host key is not known here yet.*logging in once: ssh stranger"),
        ("off", "Connection refused.*sshd running"),
        ("nowhere.invalid", "Could not resolve hostname.*name from ~/.ssh/config"),
    ],
)
def test_a_login_that_fails_says_why_and_what_to_do(host: str, message: str) -> None:
    login = SshLogin(host)
    with pytest.raises(SshError, match=message):
        run_ssh(login, "true")
    with pytest.raises(SshError, match=message):
        SshTunnel(login, 1).open()


def test_without_ssh_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install openssh-client"):
        run_ssh(HEAD, "true")
    with pytest.raises(UserError, match="install openssh-client"):
        SshTunnel(HEAD, 1).open()


def test_a_command_gets_its_input_and_gives_its_code() -> None:
    answer = run_ssh(HEAD, "cat; exit 3", "text")
    assert (answer.stdout, answer.returncode) == ("text", 3)
