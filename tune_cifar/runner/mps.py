"""Starts and stops NVIDIA's MPS daemon, so that trials that share a GPU compute side by side and not in turns.

Needs the standard library alone: this file is also run as a program, which stops the daemon when the search has ended.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
MAX_CLIENTS = 48
"""Programs that share a GPU under one daemon, on GPUs since Volta (https://docs.nvidia.com/deploy/mps/)."""
DEFAULT_PIPE_DIRECTORY = "/tmp/nvidia-mps"  # noqa: S108 - where CUDA looks for a daemon unless told otherwise
TEMPORARY = "/tmp"  # noqa: S108 - NVIDIA's advice; a longer path could exceed the 107 bytes of a socket's name

START_SECONDS = 20.0
PROBE_SECONDS = 120.0
STOP_SECONDS = 30.0
QUIT_COMMAND = "quit -t 10\n"
"""A plain `quit` waits for as long as a program uses the daemon, one that was killed included."""

# A daemon can start and still be of no use: its server, which starts with the first program, can lack the rights or
# the kind of GPU, and CUDA then fails with error 805. So one small program goes before the trials.
_PROBE_CODE = r"""
import sys, torch
try:
    torch.cuda.init()
    for index in range(torch.cuda.device_count()):
        torch.ones(1, device=f"cuda:{index}").item()
except Exception as error:
    sys.exit(str(error).partition("\n")[0].partition(". ")[0])
"""
CUDA_PROBE = (sys.executable, "-c", _PROBE_CODE)


@dataclass(frozen=True)
class MpsStatus:
    """Whether programs that start now share the GPU through a daemon, and a line about it for the user."""

    running: bool
    line: str


def not_running(reason: str) -> MpsStatus:
    """The status where there is no daemon, which is no error: CUDA then gives each program its turn."""
    return MpsStatus(False, f"no MPS daemon ({reason}), so the trials of a GPU take turns on it (time-slicing)")


@contextlib.contextmanager
def mps_daemon(*, say: Callable[[str], None] = print, probe: Sequence[str] = CUDA_PROBE) -> Iterator[MpsStatus]:
    """Make the processes that are started in this context clients of an MPS daemon, through the environment.

    A daemon that is already there is used and left. Else one is started in a folder of its own, tried out with the
    command `probe` (a CUDA program), and stopped at the end of the context or of this process, also when that is
    killed; `say` is told if it does not stop. Where none can be used the status says why and nothing is changed.
    How programs and daemon find each other: https://docs.nvidia.com/deploy/mps/appendix-environment-variables.html
    """
    for pipes in dict.fromkeys((os.environ.get("CUDA_MPS_PIPE_DIRECTORY"), DEFAULT_PIPE_DIRECTORY)):
        if pipes and _answers(Path(pipes)):
            with _environment({"CUDA_MPS_PIPE_DIRECTORY": pipes}):
                yield MpsStatus(True, f"the MPS daemon of {pipes} was running, is used and stays")
            return
    if shutil.which(CONTROL) is None:
        yield not_running(f"{CONTROL} is not installed")
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_guarded_folder(say))
        problem = _start(folder) or _try_out(folder, probe)
        if problem:
            stack.close()
            yield not_running(problem)
            return
        stack.enter_context(_environment(_client_variables(folder)))
        yield MpsStatus(True, "MPS daemon started, stopped at the end")


def _client_variables(folder: Path) -> dict[str, str]:
    return {"CUDA_MPS_PIPE_DIRECTORY": str(folder / "pipe"), "CUDA_MPS_LOG_DIRECTORY": str(folder / "log")}


def _daemon_environment(folder: Path) -> dict[str, str]:
    # 2 is the protocol of the commands here; the variable wins over any flag.
    # https://docs.nvidia.com/deploy/mps/mpsv3-interface.html
    environment = {**os.environ, **_client_variables(folder), "CUDA_MPS_PROTOCOL_VERSION": "2"}
    # A daemon that is shown GPUs "2,3" renumbers them to 0 and 1, and a client that asks for 2 or 3, as Ray's workers
    # do, then fails. Without the variable it serves every GPU by its own number; with UUIDs there is nothing to mix up.
    if not environment.get("CUDA_VISIBLE_DEVICES", "").startswith(("GPU-", "MIG-")):
        environment.pop("CUDA_VISIBLE_DEVICES", None)
    return environment


def _start(folder: Path) -> str | None:
    """Start the daemon in `folder`; returns what went wrong."""
    output_path = folder / "start.txt"
    try:
        with output_path.open("w") as output:  # not a pipe, which a daemon could hold open
            done = subprocess.run(  # noqa: S603
                [CONTROL, "-d"],
                env=_daemon_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=START_SECONDS,
                check=False,
                start_new_session=True,  # else Ctrl-C in the terminal could reach the daemon before the trials end
            )
    except OSError as error:
        return f"{CONTROL} cannot be run: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{CONTROL} -d took more than {START_SECONDS:g} s"
    if done.returncode:
        return f"{CONTROL} -d failed: {_last_line(output_path.read_text(errors='replace')) or done.returncode}"
    if not _wait(lambda: _answers(folder / "pipe"), START_SECONDS):
        return f"it did not answer within {START_SECONDS:g} s"
    return None


def _try_out(folder: Path, probe: Sequence[str]) -> str | None:
    """Run `probe` as a client of the daemon in `folder`; returns what went wrong."""
    try:
        done = subprocess.run(  # noqa: S603
            probe,
            env={**os.environ, **_client_variables(folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        if done.returncode:
            return f"a test program failed under it: {_last_line(done.stderr) or done.returncode}"
        servers = subprocess.run(  # noqa: S603
            [CONTROL],
            env=_daemon_environment(folder),
            input="get_server_list\n",
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return f"{Path(late.cmd[0]).name} hung under it"
    # The first program that connects makes the daemon start a server, which stays. CUDA says nothing when a program
    # does not find the daemon.
    if not any(line.strip().isdigit() for line in servers.stdout.splitlines()):
        return "a test program did not connect to it"
    return None


@contextlib.contextmanager
def _guarded_folder(say: Callable[[str], None]) -> Iterator[Path]:
    """A folder for a daemon, with a process that stops the daemon and removes the folder when the context ends.

    That process waits for the end of its input, so it does its work also when this one is killed.
    """
    folder = Path(tempfile.mkdtemp(prefix="tune-cifar-mps-", dir=TEMPORARY))  # of mode 0700
    for name in ("pipe", "log"):
        (folder / name).mkdir(mode=0o700)
    guard = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", __file__, str(folder), str(STOP_SECONDS)],
        env=_daemon_environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield folder
    finally:
        guard.communicate()
        if guard.returncode:
            command = f"echo quit | CUDA_MPS_PIPE_DIRECTORY={folder / 'pipe'} {CONTROL}"
            say(f"the MPS daemon did not stop within {STOP_SECONDS:g} s; end it by: {command}")


def _guard(folder: Path, stop_seconds: float) -> int:
    """Wait for the end of the input, stop the daemon in `folder` and remove the folder; returns the exit code."""
    sys.stdin.buffer.read()
    end_seconds = time.monotonic() + stop_seconds
    if _answers(folder / "pipe"):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([CONTROL], input=QUIT_COMMAND.encode(), timeout=stop_seconds, check=False)  # noqa: S603
    if not _wait(lambda: not _answers(folder / "pipe"), end_seconds - time.monotonic()):
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _answers(pipes: Path) -> bool:
    """Whether a daemon listens in the directory `pipes`, asked as CUDA asks; its files can outlive it.

    A trace of CUDA's own first calls: https://github.com/NVIDIA/cuda-checkpoint/issues/10
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(pipes / "control"))
        except OSError:
            return False
    return True


def _wait(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    end_seconds = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > end_seconds:
            return False
        time.sleep(0.05)
    return True


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for this context."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


if __name__ == "__main__":
    sys.exit(_guard(Path(sys.argv[1]), float(sys.argv[2])))
