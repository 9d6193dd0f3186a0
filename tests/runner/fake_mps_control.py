#!/usr/bin/env python3
"""Stands in for nvidia-cuda-mps-control on a machine without a GPU: its options, files, messages and exit codes.

After https://docs.nvidia.com/deploy/mps/mpsv2-interface.html and public logs of the real one. A CUDA program is a
client that sends "client": the daemon then starts a server, which stays, as NVIDIA's does.
FAKE_MPS sets a fault: "refuses" to start, "deaf" to clients, "stubborn" when told to quit.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

PIPES = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])  # no default: tests keep away from a real daemon
LOGS = Path(os.environ["CUDA_MPS_LOG_DIRECTORY"]) if "CUDA_MPS_LOG_DIRECTORY" in os.environ else PIPES
FAULT = os.environ.get("FAKE_MPS", "")


def ask(message: str) -> str | None:
    """The daemon's answer, or None where there is no daemon."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(str(PIPES / "control"))
        except OSError:
            return None
        connection.send(message.encode())
        return connection.recv(1000).decode()


def start() -> int:
    """`-d`: return as soon as the daemon is on its way, as the real one does."""
    if FAULT == "refuses":
        print("Failed to initialize NVML: Insufficient Permissions")
        return 1
    if ask("get_server_list") is not None:
        print("An instance of this daemon is already running")
        return 1
    if os.fork():
        return 0
    os.setsid()
    serve()
    os._exit(0)


def serve() -> None:
    (PIPES / "control").unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(PIPES / "control"))
    listener.listen()
    pid_file = PIPES / "nvidia-cuda-mps-control.pid"
    pid_file.write_text(f"{os.getpid()}\n")
    log = (LOGS / "control.log").open("a", buffering=1)
    servers = ""
    while True:
        connection, _ = listener.accept()
        message = connection.recv(1000).decode().strip()
        log.write(f"{message}\n")
        if message == "client" and FAULT != "deaf":
            servers = f"{os.getpid()}\n"
        if message:
            connection.send((servers if message == "get_server_list" else "ok").encode() or b"\n")
        connection.close()
        if message.startswith("quit") and FAULT != "stubborn":
            pid_file.unlink()  # the socket's file stays behind
            return


def command_shell() -> int:
    """No option: pass each line of the input on to the daemon."""
    for line in sys.stdin:
        answer = ask(line.strip())
        if answer is None:
            print("Cannot find MPS control daemon process")
            return 1
        print(answer.strip())
    return 0


if __name__ == "__main__":
    sys.exit(start() if sys.argv[1:] == ["-d"] else command_shell())
