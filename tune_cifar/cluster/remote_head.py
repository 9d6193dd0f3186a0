"""Reads `--address` and learns about the head of that cluster by ssh, before anything is sent to it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version_tuple

from tune_cifar.cluster import remote_probe
from tune_cifar.cluster.cluster_file import DEFAULT_FILE, load_cluster
from tune_cifar.cluster.ssh_tunnel import SshLogin, run_ssh
from tune_cifar.errors import UserError

DASHBOARD_PORT = 8265
"""Ray's own choice (https://docs.ray.io/en/latest/ray-core/configure.html), where its job server listens too."""

_ADDRESS = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>\w[\w.-]*)(?::(?P<port>\d{1,5}))?", re.ASCII)
_FOLDER = re.compile(r"(~/|/)?[\w.+-]+(/[\w.+-]+)*/?", re.ASCII)
_NO_PROJECT = 66
# The login shell may be any; in `sh` this means the same everywhere.
_PROBE = (
    f'cd "$HOME/tune_cifar" 2>/dev/null && [ -x .venv/bin/python ] || exit {_NO_PROJECT}; exec .venv/bin/python - "$@"'
)


@dataclass(frozen=True)
class Head:
    """The head of a cluster: what the user calls it, how ssh logs in there, and its dashboard's port."""

    address: str
    login: SshLogin
    dashboard_port: int


@dataclass(frozen=True)
class HeadFacts:
    """What the head says of itself: its project, versions (None: not installed), and the folder of the search."""

    project: str
    python: str
    ray: str | None
    tune_cifar: str | None
    folder: str
    folder_exists: bool
    token: str | None

    def __repr__(self) -> str:
        return f"HeadFacts({self.project!r})"  # not the token


def parse_address(text: str) -> Head:
    """Read [USER@]HOST[:DASHBOARD_PORT]; HOST may be a name of ~/.ssh/config.

    User and key come from cluster.yaml in this folder if HOST is its head. Raises `UserError`.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"] or DASHBOARD_PORT) > 65535:
        raise UserError(f"--address must be [USER@]HOST or a name from ~/.ssh/config, got {text!r}.")
    host, user, key = match["host"], match["user"], None
    if DEFAULT_FILE.is_file():
        cluster = load_cluster(DEFAULT_FILE)
        if host in (cluster.head, cluster.head_from_here):
            host, user, key = cluster.head_from_here, user or cluster.user, cluster.key
    login = SshLogin(f"{user}@{host}" if user else host, key)
    return Head(text, login, int(match["port"] or DASHBOARD_PORT))


def ask_head(head: Head, name: str, results: str) -> HeadFacts:
    """Log in and ask; `results` is the head's folder of results, seen from the project there if it is relative.

    Raises `UserError` when that login fails, the project is not installed there, or its version differs from ours.
    """
    if not _FOLDER.fullmatch(results):
        raise UserError(
            f"--remote-results must be a folder on {head.address} of letters, digits and . _ + - /, got {results!r}."
        )
    program = Path(remote_probe.__file__).read_text()
    command = f"sh -c {shlex.quote(_PROBE)} sh {shlex.quote(name)} {shlex.quote(results)}"
    answer = run_ssh(head.login, command, program)
    if answer.returncode == _NO_PROJECT:
        raise UserError(
            f"The project is not installed in ~/tune_cifar on {head.address}. "
            "`make cluster-up` does that, or a clone of it there and `make setup` in it."
        )
    try:
        # A login shell may print a greeting first.
        facts = HeadFacts(**json.loads(answer.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        said = " ".join((answer.stderr or answer.stdout).split())[-300:]
        raise UserError(f"The Python of ~/tune_cifar on {head.address} does not work: {said or 'no answer'}.") from None
    _check_versions(head, facts)
    return facts


def _check_versions(head: Head, facts: HeadFacts) -> None:
    """What is checked here must mean the same there, and Ray promises its protocols within one version only."""
    there = {"Python": facts.python, "ray": facts.ray, "tune-cifar": facts.tune_cifar}
    here = {
        "Python": ".".join(python_version_tuple()[:2]),
        "ray": version("ray"),
        "tune-cifar": version("tune-cifar"),
    }
    differing = [
        f"{what} is {there[what] or 'missing'} there and {here[what]} here"
        for what in here
        if there[what] != here[what]
    ]
    if differing:
        raise UserError(
            f"{head.address} runs other versions than this machine: {'; '.join(differing)}. Install the same on both."
        )
