"""Reads cluster.yaml, the launcher's own file, for what this package needs of it: which machines, and the login."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tune_cifar.cluster.node import HEAD_PORTS
from tune_cifar.errors import UserError

DEFAULT_FILE = Path("cluster.yaml")


@dataclass(frozen=True)
class Cluster:
    """The machines of a cluster by address, the login that all of them take, and the Python they are set up with."""

    path: Path
    name: str
    head: str
    workers: tuple[str, ...]
    user: str
    key: Path | None
    head_from_here: str
    python: str

    @property
    def machines(self) -> tuple[str, ...]:
        """All addresses, the head's first."""
        return (self.head, *self.workers)

    @property
    def gcs_address(self) -> str:
        """Where Ray's control service listens, by which all others join."""
        return f"{self.head}:{HEAD_PORTS[0]}"

    def login(self, address: str) -> str:
        """USER@ADDRESS, with the address at which this machine reaches it."""
        return f"{self.user}@{self.head_from_here if address == self.head else address}"


def load_cluster(path: Path) -> Cluster:
    """Read and check the cluster file at `path`; raises `UserError` with every problem: key, rule, value, fix."""
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Name the cluster's file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} must be a mapping of keys, as in Ray's cluster files, got {type(data).__name__}.")
    problems: list[str] = []
    provider, auth = (_section(data, name, problems) for name in ("provider", "auth"))
    if provider.get("type") != "local":
        problems.append(f"provider.type must be local (machines that you have), got {provider.get('type')!r}.")
    head, user = _text(provider, "provider", "head_ip", problems), _text(auth, "auth", "ssh_user", problems)
    name = _text(data, "", "cluster_name", problems)
    workers = provider.get("worker_ips")
    if not isinstance(workers, list) or not all(isinstance(worker, str) and worker for worker in workers):
        problems.append(
            f"provider.worker_ips must be a list of addresses, got {workers!r}. Alone, a machine needs none."
        )
        workers = []
    addresses = [head, *workers]
    if twice := sorted({address for address in addresses if addresses.count(address) > 1}):
        problems.append(
            f"provider: {', '.join(twice)} stands there twice. Name each machine once, the head not in worker_ips."
        )
    for key in ("min_workers", "max_workers"):
        if key in data and data[key] != len(workers):
            problems.append(f"{key} must be the number of worker_ips, {len(workers)}, got {data[key]!r}. Remove it.")
    key_file = auth.get("ssh_private_key")
    if problems:
        raise UserError("\n".join([f"{path} has {len(problems)} problem(s):", *problems]))
    return Cluster(
        path=path,
        name=name,
        head=head,
        workers=tuple(workers),
        user=user,
        key=Path(key_file).expanduser() if key_file else None,
        head_from_here=provider.get("external_head_ip") or head,
        python=_python(data.get("setup_commands")),
    )


def _section(data: dict[str, Any], name: str, problems: list[str]) -> dict[str, Any]:
    section = data.get(name)
    if isinstance(section, dict):
        return section
    problems.append(f"{name} must be a mapping of keys, got {section!r}.")
    return {}


def _text(section: dict[str, Any], place: str, key: str, problems: list[str]) -> str:
    value = section.get(key)
    if isinstance(value, str) and value:
        return value
    problems.append(f"{place}{'.' if place else ''}{key} must be text, got {value!r}.")
    return ""


def _python(setup_commands: Any) -> str:
    """The Python of `make PYTHON=… setup`, else make's own choice."""
    commands = setup_commands if isinstance(setup_commands, list) else []
    named = [match[1] for command in commands if (match := re.search(r"\bPYTHON=(\S+)", str(command)))]
    return named[0] if named else "python3"
