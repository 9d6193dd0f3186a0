"""What is looked at and done on a machine of a cluster; only the standard library, as it is sent there by ssh.

The machine may have neither this package nor its environment yet, and its Python may be too old for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

PROJECT = "~/tune_cifar"
MARK = "TUNE_CIFAR_CLUSTER=yes"
"""Stands in the environment of every process of a cluster, and tells them from any other Ray on the machine."""

HEAD_PORTS = (6379, 8265)
"""Ray's control service and its dashboard listen here on the head."""

ANSWER = "tune_cifar "
"""Begins each line of an answer: a login shell may print lines of its own."""

REACH_SECONDS = 5.0
GRACE_SECONDS = 5.0  # Ray's control service and autoscaler, told at the same time, end at no SIGTERM (ray 2.60)
KILL_SECONDS = 5.0
_SOCKET_LISTENS = "0A"  # https://docs.kernel.org/networking/proc_net_tcp.html


def facts() -> dict[str, object]:
    """What a set-up needs to know of this machine, as JSON can hold it."""
    home = Path.home()
    project = Path(PROJECT).expanduser()
    rays = sorted(path.name.split("-")[1] for path in project.glob(".venv/lib/python3.*/site-packages/ray-*.dist-info"))
    ours = cluster_processes()
    return {
        "python": list(sys.version_info[:2]),
        "missing": [program for program in ("make", "rsync") if shutil.which(program) is None],
        "free_bytes": shutil.disk_usage(home).free,
        "has_environment": (project / ".venv" / "ready").exists(),
        "ray": rays[-1].rsplit(".dist", 1)[0] if rays else None,
        "taken_ports": {port: owner for port in HEAD_PORTS if (owner := _foreign_listener(port, ours))},
        "num_processes": len(ours),
    }


def cluster_processes() -> dict[int, str]:
    """Id and command line of every process of the cluster on this machine."""
    parents, marked = {}, []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or of another user
            continue
        if status[0] == "Z":
            continue
        parents[int(folder.name)] = int(status[1])
        if MARK.encode() in environment:
            marked.append(int(folder.name))
    # A worker writes its title over its environment; it is a child of a process that has the mark.
    ours = set(marked)
    for pid in parents:
        line = [pid]
        while line[-1] in parents and line[-1] not in ours:
            line.append(parents[line[-1]])
        if line[-1] in ours:
            ours.update(line)
    return {pid: _command(pid) for pid in sorted(ours)}


def stop(cluster_name: str | None = None) -> tuple[int, list[str]]:
    """End the cluster's processes here; returns how many there were, and the command lines of those that are left.

    With its name also the connections that its autoscaler keeps open to the workers.
    """
    first = {**cluster_processes(), **(_kept_connections(cluster_name) if cluster_name else {})}
    # Workers lose their parent when Ray ends, and their marks with it: they are looked for by their ids.
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        for pid in _alive(first):
            _send(pid, number)
        while _alive(first) and time.monotonic() < deadline:
            time.sleep(0.1)
    left = {**_alive(first), **cluster_processes()}
    return len(first), [f"{pid} {command}" for pid, command in left.items()]


def forget(cluster_name: str, address: str) -> None:
    """Remove Ray's notes on the cluster, which it would believe: which machines it set up, and where to join it.

    The places are those of ray 2.60, `get_state_path` of the launcher and `write_ray_address` of `ray start`.
    """
    folder = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray")  # noqa: S108
    (folder / f"cluster-{cluster_name}.state").unlink(missing_ok=True)
    join = folder / "ray_current_cluster"
    if join.exists() and join.read_text().strip() in (address, _resolved(address)):
        join.unlink()


def main() -> None:
    """Answer the requests on the standard input, one JSON list a line, with one JSON value a line."""
    listener = socket.socket()
    listener.bind(("", 0))
    listener.listen(64)
    for line in sys.stdin:
        request, *arguments = json.loads(line)
        if request == "facts":
            answer: object = {**facts(), "port": listener.getsockname()[1]}
        elif request == "clock":
            answer = time.time()
        elif request == "reach":
            answer = {address: why for address, port in arguments if (why := _why_not_reached(address, port))}
        elif request == "stop":
            answer = stop(*arguments)
        else:
            forget(*arguments)
            answer = None
        print(ANSWER + json.dumps(answer), flush=True)  # noqa: T201


def _resolved(address: str) -> str | None:
    """`HOST:PORT` with the host as a number, as Ray notes it; None where the name is not known."""
    host, _, port = address.partition(":")
    try:
        return f"{socket.gethostbyname(host)}:{port}"
    except OSError:
        return None


def _why_not_reached(address: str, port: int) -> str | None:
    try:
        socket.create_connection((address, port), timeout=REACH_SECONDS).close()
    except OSError as error:
        return str(error)
    return None


def _foreign_listener(port: int, ours: dict[int, str]) -> str | None:
    """The command that listens at `port`, unless nobody does, or the cluster."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net", table)
        rows = [row.split() for row in path.read_text().splitlines()[1:]] if path.exists() else []
        inodes |= {row[9] for row in rows if row[3] == _SOCKET_LISTENS and int(row[1].rpartition(":")[2], 16) == port}
    if not inodes:
        return None
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and sockets & _open_files(folder):
            pid = int(folder.name)
            return None if pid in ours else f"process {pid}: {_command(pid)}"
    return "a process of another user"


def _open_files(folder: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # ended or closed meanwhile, or of another user
        for link in (folder / "fd").iterdir():
            found.add(str(link.readlink()))
    return found


def _kept_connections(cluster_name: str) -> dict[int, str]:
    """What ssh leaves running for 10 s after a command of Ray's launcher or autoscaler, so that the next is quick.

    It is nobody's child and writes its title, which names its socket, over its environment: only that tells whose it
    is (`SSHCommandRunner` of ray 2.60).
    """
    cluster = hashlib.sha256(cluster_name.encode()).hexdigest()[:10]
    title = re.compile(rf"ssh: \S*/ray_ssh_[0-9a-f]+/{cluster}/\S+ \[mux\]")
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # ended meanwhile
            if folder.name.isdigit() and folder.stat().st_uid == os.geteuid():
                command = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                if title.match(command):
                    found[int(folder.name)] = command
    return found


def _alive(processes: dict[int, str]) -> dict[int, str]:
    alive = {}
    for pid, command in processes.items():
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if status != "Z":
            alive[pid] = command
    return alive


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:120]
    except OSError:
        return "ended"


if __name__ == "__main__":
    main()
