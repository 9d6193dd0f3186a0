"""Logins by ssh to the machines of a cluster, in which `node.py` answers questions; one connection a machine."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tune_cifar.cluster import node
from tune_cifar.cluster.cluster_file import Cluster

CONNECT_SECONDS = 10
ANSWER_SECONDS = 60.0

_OPTIONS = (
    "BatchMode=yes",  # a question would wait for an answer that nobody gives
    "StrictHostKeyChecking=accept-new",
    f"ConnectTimeout={CONNECT_SECONDS}",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
)
_SSH_FAILED = 255
_NO_SUCH_PROGRAM = 127
_READ_PROGRAM = "import json, sys; exec(compile(json.loads(sys.stdin.readline()), 'node.py', 'exec'))"

Answer = TypeVar("Answer")


class LoginError(Exception):
    """A machine that could not be asked: what came instead of an answer, and the fix."""


def ssh_command(cluster: Cluster, address: str, command: str) -> list[str]:
    """The command line that runs the bash `command` on the machine at `address`, as after a login there."""
    ssh = ["ssh", *_identity(cluster), *(f"-o{option}" for option in _OPTIONS)]
    if address != cluster.head and cluster.head_from_here != cluster.head:
        # From outside of the machines' network only the head can be reached, and the others through it.
        ssh.append(f"-oProxyCommand={shlex.join([*ssh, '-W', '%h:%p', cluster.login(cluster.head)])}")
    return [*ssh, cluster.login(address), f"bash -lc {shlex.quote(command)}"]


def _identity(cluster: Cluster) -> list[str]:
    return ["-i", str(cluster.key), "-oIdentitiesOnly=yes"] if cluster.key else []


class Login:
    """A connection to one machine, with `node.py` at its other end."""

    def __init__(self, cluster: Cluster, address: str) -> None:
        self.cluster, self.address = cluster, address
        command = f"exec {shlex.quote(cluster.python)} -u -c {shlex.quote(_READ_PROGRAM)}"
        self._process = subprocess.Popen(  # noqa: S603
            ssh_command(cluster, address, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the command that asks, which then closes its logins
        )
        self._write(Path(node.__file__).read_text())

    def ask(self, request: str, *arguments: Any) -> Any:
        """The machine's answer; raises `LoginError` if there is none within a minute."""
        timer = threading.Timer(ANSWER_SECONDS, self._process.kill)
        timer.start()
        try:
            self._write([request, *arguments])
            for line in self._process.stdout or ():
                if line.startswith(node.ANSWER):  # else it is a greeting that the login shell prints
                    return json.loads(line.removeprefix(node.ANSWER))
        finally:
            timer.cancel()
        raise LoginError(self._why())

    def close(self) -> None:
        """End the connection."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()

    def _write(self, value: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells it better
            print(json.dumps(value), file=self._process.stdin, flush=True)

    def _why(self) -> str:
        said = " ".join(self._process.stderr.read().split()) if self._process.stderr else ""
        code = self._process.wait()
        login, python = self.cluster.login(self.address), self.cluster.python
        if code == _NO_SUCH_PROGRAM:
            return f"has no {python}. Install Python 3.11 to 3.13, or name the one it has in setup_commands: " + (
                "make PYTHON=python3.12 setup."
            )
        if code != _SSH_FAILED:
            return f"gave no answer within {ANSWER_SECONDS:g} s: {said or 'nothing was printed'}."
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said or "Host key verification failed" in said:
            return (
                "has another host key than at the last login. If the machine was installed anew, forget the old one "
                f"with: ssh-keygen -R {self.address}"
            )
        if "Permission denied" in said:
            key = f" -i {self.cluster.key}.pub" if self.cluster.key else ""
            return f"does not take the login without a question. Let it in with: ssh-copy-id{key} {login}"
        return f"cannot be reached by ssh ({said}). Is the address right, the machine on, and its sshd running?"


@contextlib.contextmanager
def log_in(cluster: Cluster, addresses: Sequence[str]) -> Iterator[dict[str, Login]]:
    """Connections to all of these machines, made at once and closed at the end."""
    logins: dict[str, Login] = {}
    try:
        for address in addresses:
            logins[address] = Login(cluster, address)
        yield logins
    finally:
        for login in logins.values():
            login.close()


def ask_all(
    logins: Mapping[str, Login], question: Callable[[Login], Answer]
) -> tuple[dict[str, Answer], dict[str, LoginError]]:
    """Every machine's answer to `question`, asked at the same time, and the machines without one, with the reason."""
    answers, errors = {}, {}
    with ThreadPoolExecutor(max_workers=max(1, len(logins))) as pool:
        for address, future in [(address, pool.submit(question, login)) for address, login in logins.items()]:
            try:
                answers[address] = future.result()
            except LoginError as error:
                errors[address] = error
    return answers, errors
