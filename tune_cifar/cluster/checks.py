"""Finds what keeps machines from becoming a cluster, all of it at once, before anything is changed on any of them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_cifar.cluster.cluster_file import Cluster
from tune_cifar.cluster.logins import Login, ask_all, log_in

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
ENVIRONMENT_BYTES = 10 * 10**9
"""A GPU build of torch unpacked with all else is 7 GB, and uv's downloads lie beside it."""
MOST_CLOCK_SECONDS = 5.0
"""Apart by more, the times of trials on different machines can no longer be compared."""


@dataclass(frozen=True)
class MachineFacts:
    """What one machine said of itself. `clock_seconds` is how far its clock is ahead of this machine's."""

    python: tuple[int, int]
    missing: tuple[str, ...]
    free_bytes: int
    has_environment: bool
    ray: str | None
    taken_ports: Mapping[int, str]
    num_processes: int
    clock_seconds: float
    port: int


@dataclass(frozen=True)
class Findings:
    """The facts of the machines that answered, and all problems, each one line: machine, rule, fix."""

    facts: Mapping[str, MachineFacts]
    problems: tuple[str, ...]


def check_cluster(cluster: Cluster) -> Findings:
    """Look at this machine, log in to all of `cluster`, and let each try to reach every other."""
    problems = _check_here(cluster)
    if problems:
        return Findings({}, tuple(problems))
    with log_in(cluster, cluster.machines) as logins:
        facts, errors = ask_all(logins, _facts)
        problems += [f"{address} {error}" for address, error in errors.items()]
        for address, of_machine in facts.items():
            problems += _check_machine(cluster, address, of_machine)
        problems += _compare(cluster, facts)
        targets = [[address, of_machine.port] for address, of_machine in facts.items()]
        reached, errors = ask_all(
            {address: logins[address] for address in facts}, lambda login: _not_reached(login, targets)
        )
        problems += [f"{address} {error}" for address, error in errors.items()]
        for address, others in reached.items():
            problems += [
                f"{address} cannot reach {other} on port {facts[other].port} ({why}). Open all ports between them."
                for other, why in others.items()
            ]
    return Findings(facts, tuple(problems))


def _check_here(cluster: Cluster) -> list[str]:
    problems = [
        f"this machine has no {program}. Install the package {package}."
        for program, package in (("ssh", "openssh-client"), ("rsync", "rsync"))
        if shutil.which(program) is None
    ]
    if problems or cluster.key is None:
        return problems
    if not cluster.key.is_file():
        return [
            f"{cluster.path}: auth.ssh_private_key: there is no {cluster.key}. Make it: ssh-keygen -f {cluster.key}"
        ]
    opened = subprocess.run(  # noqa: S603
        ["ssh-keygen", "-y", "-P", "", "-f", cluster.key],  # noqa: S607
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if opened.returncode:
        said = " ".join(opened.stderr.split())
        return [
            f"{cluster.path}: auth.ssh_private_key: {cluster.key} cannot be used without a question ({said}). The head "
            "logs in with it, alone: make a key without passphrase for the cluster, and mode 0600."
        ]
    return []


def _facts(login: Login) -> MachineFacts:
    answer: dict[str, Any] = login.ask("facts")
    clock_seconds = login.ask("clock") - time.time()  # asked for by itself, as the first answer waits for the login
    return MachineFacts(
        python=(answer["python"][0], answer["python"][1]),
        missing=tuple(answer["missing"]),
        free_bytes=answer["free_bytes"],
        has_environment=answer["has_environment"],
        ray=answer["ray"],
        taken_ports={int(port): owner for port, owner in answer["taken_ports"].items()},
        num_processes=answer["num_processes"],
        clock_seconds=clock_seconds,
        port=answer["port"],
    )


def _check_machine(cluster: Cluster, address: str, facts: MachineFacts) -> list[str]:
    problems = [f"{address} has no {program}. Install the package {program}." for program in facts.missing]
    if not OLDEST_PYTHON <= facts.python <= NEWEST_PYTHON:
        problems.append(
            f"{address}: Python 3.11 to 3.13 is needed, but {cluster.python} is {_dotted(facts.python)}. "
            "Name another in setup_commands: make PYTHON=python3.12 setup."
        )
    if not facts.has_environment and facts.free_bytes < ENVIRONMENT_BYTES:
        problems.append(
            f"{address}: {ENVIRONMENT_BYTES / 1e9:.0f} GB must be free in the home of {cluster.user} for the "
            f"environment, got {facts.free_bytes / 1e9:.1f} GB. Make room."
        )
    if address == cluster.head:
        problems += [
            f"{address}: port {port} must be free on the head, but {owner} listens there. End it."
            for port, owner in facts.taken_ports.items()
        ]
    return problems


def _compare(cluster: Cluster, facts: Mapping[str, MachineFacts]) -> list[str]:
    """Trials travel between machines as pickles of one Python, and are compared by their times."""
    if cluster.head not in facts:
        return []
    head, problems = facts[cluster.head], []
    for address, other in facts.items():
        if other.python != head.python:
            problems.append(
                f"{address} has Python {_dotted(other.python)} and the head {_dotted(head.python)}: it must be the "
                "same on all. Name one that all have in setup_commands: make PYTHON=python3.12 setup."
            )
        apart = other.clock_seconds - head.clock_seconds
        if abs(apart) > MOST_CLOCK_SECONDS:
            problems.append(
                f"{address}: its clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the head's, at "
                f"most {MOST_CLOCK_SECONDS:g} s will do. Set it, as by: timedatectl set-ntp true"
            )
    return problems


def _not_reached(login: Login, targets: list[list[Any]]) -> dict[str, str]:
    others: dict[str, str] = login.ask("reach", *(target for target in targets if target[0] != login.address))
    return others


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
