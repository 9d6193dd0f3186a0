"""Runs ssh: single commands, and a tunnel from a port of this machine to one that only the other machine can reach."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tune_cifar.errors import UserError

ANSWER_SECONDS = 120
_OPTIONS = (
    "BatchMode=yes",  # a question would wait for an answer that nobody gives
    "ConnectTimeout=15",
    "ServerAliveInterval=5",  # a connection that is silently gone ends after three of these
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
)
_SSH_FAILED = 255
_PORT_ATTEMPTS = 5
_OPEN = "tunnel-open"
_CLOSE_SECONDS = 5


class SshError(UserError):
    """ssh could not log in; the text says why and what to do."""


@dataclass(frozen=True)
class SshLogin:
    """[USER@]HOST as ssh takes it, and the private key to log in with where ssh would not find it by itself."""

    destination: str
    key: Path | None = None

    @property
    def command(self) -> list[str]:
        """`ssh` with the options of every connection, to be followed by the destination."""
        identity = ["-i", str(self.key)] if self.key else []
        return ["ssh", *identity, *(f"-o{option}" for option in _OPTIONS)]


def run_ssh(login: SshLogin, command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run the shell `command` there with `text` as its input; raises `SshError` when there is no login."""
    try:
        answer = subprocess.run(  # noqa: S603 - no shell of this machine
            [*login.command, "-T", login.destination, command],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise _no_ssh() from None
    except subprocess.TimeoutExpired:
        raise SshError(f"{login.destination} took the login, but did not answer within {ANSWER_SECONDS} s.") from None
    if answer.returncode == _SSH_FAILED:
        raise ssh_error(login, answer.stderr)
    return answer


def ssh_error(login: SshLogin, said: str) -> SshError:
    """What ssh `said` on its way out, with what to do about it."""
    destination, said = login.destination, " ".join(said.split()) or "ssh gave no reason"
    if "Could not resolve hostname" in said:
        fix = "Is the name right? It must be a host of the network or a name from ~/.ssh/config."
    elif "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
        said = "its host key is not the known one" if "HAS CHANGED" in said else "its host key is not known here yet"
        fix = f"Compare its fingerprint and accept it by logging in once: ssh {destination}"
    elif "Permission denied" in said:
        key = f" -i {login.key}.pub" if login.key else ""
        fix = f"Let this machine's key in: ssh-copy-id{key} {destination} (a key with a passphrase needs ssh-agent)."
    else:
        fix = "Is the address right, the machine on, and its sshd running?"
    return SshError(f"{destination} cannot be reached by ssh: {said.rstrip('.')}. {fix}")


def _no_ssh() -> UserError:
    return UserError("--address needs the program ssh, which is not on this machine: install openssh-client.")


class SshTunnel:
    """A port of this machine, `port`, that leads to `remote_port` of the other machine's loopback while it is open."""

    def __init__(self, login: SshLogin, remote_port: int) -> None:
        self.login = login
        self.port = 0
        self._remote_port = remote_port
        self._process: subprocess.Popen[str] | None = None

    @property
    def is_open(self) -> bool:
        """Whether ssh still runs; it ends some seconds after the connection does."""
        return self._process is not None and self._process.poll() is None

    def open(self) -> None:
        """Open the tunnel, again if it broke; raises `SshError`."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self.close()
            said = self._try(_free_port())
            if said is None:
                return
            self.close()
            # Another program may have taken the port in between.
            if "Address already in use" not in said or attempt == _PORT_ATTEMPTS:
                raise ssh_error(self.login, said)

    def close(self) -> None:
        """Close the tunnel; one that is closed stays so."""
        process, self._process, self.port = self._process, None, 0
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()

    def _try(self, port: int) -> str | None:
        """Open it at that port; returns what ssh said if it gave up, else None."""
        forward = ["-oExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{self._remote_port}"]
        # Not by a connection that others share, which would outlive this one. And not by -N: `cat` ends with its
        # input, so that the tunnel is closed even if this process is killed.
        options = [*self.login.command, "-oControlPath=none", "-T", *forward]
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - no shell of this machine
                    [*options, self.login.destination, f"echo {_OPEN}; exec cat > /dev/null"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    errors="replace",
                    start_new_session=True,  # Ctrl-C is for this process, which then closes the tunnel
                )
            except FileNotFoundError:
                raise _no_ssh() from None
            # A login shell may print a greeting first.
            if any(line.strip() == _OPEN for line in self._process.stdout or ()):
                self.port = port
                return None
            self._process.wait()
            errors.seek(0)
            return errors.read()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def ssh_tunnel(login: SshLogin, remote_port: int) -> Iterator[SshTunnel]:
    """An open tunnel, closed at the end of the block whatever happens in it."""
    tunnel = SshTunnel(login, remote_port)
    try:
        tunnel.open()
        yield tunnel
    finally:
        tunnel.close()
