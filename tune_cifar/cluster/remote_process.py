"""The search's process on the head: the shell line that starts it, and the one that ends it as SIGTERM does here.

Ray's own way to stop a job sends SIGTERM to the children of the search too, W&B's service among them, whose runs are
then left without an end, and SIGKILL three seconds later (ray 2.60, JobSupervisor.run).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tune_cifar.cluster.remote_files import SENT_FOLDER
from tune_cifar.cluster.remote_head import Head, HeadFacts
from tune_cifar.cluster.ssh_tunnel import run_ssh

PID_FILE = "pid"


def start_line(facts: HeadFacts, name: str, command: Sequence[str], columns: int) -> str:
    """The line that runs `command` in the project's folder, its lines `columns` wide, and notes its process id."""
    noted = f"echo $$ > {shlex.quote(f'{SENT_FOLDER}/{name}/{PID_FILE}')}"
    return f"cd {shlex.quote(facts.project)} && {noted} && COLUMNS={columns} exec {shlex.join(command)}"


def terminate(head: Head, facts: HeadFacts, name: str) -> bool:
    """Send SIGTERM to the search called `name`; returns whether its process was found."""
    pid_file = shlex.quote(f"{facts.project}/{SENT_FOLDER}/{name}/{PID_FILE}")
    # Another process may have that id by now.
    script = (
        f"pid=$(cat {pid_file}) && words=$(tr '\\0' ' ' < /proc/$pid/cmdline) && "
        f"case $words in *'-m tune_cifar.search '*'--name {name} '*) kill -TERM $pid;; *) false;; esac"
    )
    return run_ssh(head.login, f"sh -c {shlex.quote(script)}").returncode == 0
