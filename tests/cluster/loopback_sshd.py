"""An sshd of the test's own on 127.0.0.1, with its own keys, and an `ssh` that knows it by these names:

head      takes the key        locked    does not know the key
stranger  its host key is new  off       nothing listens there
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 30

_SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
SetEnv HOME={home}
"""
_CLIENT = """
Host head locked stranger
  Port {port}
Host off
  Port {free_port}
Host locked
  IdentityFile {folder}/other_key
Host head stranger off
  IdentityFile {folder}/user_key
Host stranger
  UserKnownHostsFile {folder}/nobody
Host head locked stranger off
  HostName 127.0.0.1
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
"""


def why_no_sshd() -> str | None:
    """Why there can be no sshd on this machine, naming the package that is missing; None if there can."""
    for program, package in {"ssh": "openssh-client", "sshd": "openssh-server", "rsync": "rsync"}.items():
        if _program(program) is None:
            return f"needs {program}: install the package {package}"
    return None


@contextlib.contextmanager
def loopback_sshd(folder: Path) -> Iterator[Path]:
    """Run it while the block lasts, with HOME `folder/home` for its logins; gives the folder of `ssh`."""
    if os.geteuid() == 0:
        # Started by root, sshd wants the empty folder that the system's own start makes; shared, so it stays.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    home, programs = folder / "home", folder / "bin"
    home.mkdir(parents=True)
    programs.mkdir()
    for key in ("host_key", "user_key", "other_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
    port, free_port = _free_port(), _free_port()
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "sshd_config").write_text(_SERVER.format(port=port, folder=folder, home=home))
    (folder / "ssh_config").write_text(_CLIENT.format(port=port, free_port=free_port, folder=folder))
    # ssh reads the settings in the home that the system knows of, whatever HOME says.
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {_program("ssh")} -F {folder}/ssh_config "$@"\n')
    (programs / "ssh").chmod(0o700)
    with (folder / "sshd.log").open("wb") as log:
        command = [str(_program("sshd")), "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        _wait_for(port)
        yield programs
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
