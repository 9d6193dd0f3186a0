"""What the cluster file says about Paperspace, checked as a whole before the first machine costs money."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from tune_cifar.cluster.paperspace.node_names import PART_RULE, is_part
from tune_cifar.errors import UserError

KEY_VARIABLE = "PAPERSPACE_API_KEY"
# What Ray itself reads or writes in the provider's section.
_OF_RAY = frozenset(
    {
        "type",
        "module",
        "_config_cache_path",
        "use_internal_ips",
        "use_external_head_ip",
        "disable_node_updaters",
        "disable_launch_config_check",
        "foreground_node_launch",
        "worker_liveness_check",
    }
)
_PUBLIC_KEY = re.compile(r"((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[\w@.-]+ [A-Za-z0-9+/=]+)(?: .*)?")
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]*")
Model = TypeVar("Model", bound=BaseModel)


class ProviderSettings(BaseModel):
    """The section `provider`, less what is Ray's own.

    `ssh_public_key` is the key's one line, which `ray up` reads from `auth.ssh_private_key` with `.pub`;
    `api_key_file` is where the head finds the key to the API.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    network_id: str
    ssh_public_key: str
    ssh_user: str = "paperspace"
    api_key_file: Path | None = None
    auto_shutdown_hours: int = Field(default=24, ge=1)
    ready_minutes: float = Field(default=15.0, gt=0)

    @field_validator("ssh_public_key")
    @classmethod
    def _one_key(cls, text: str) -> str:
        match = _PUBLIC_KEY.fullmatch(text.strip())
        if not match:
            raise ValueError("must be one line of a public SSH key (ssh-ed25519 AAAA…)")
        return match[1]

    @field_validator("ssh_user")
    @classmethod
    def _login(cls, text: str) -> str:
        if not _USER_NAME.fullmatch(text):
            raise ValueError("must be a Linux login")
        return text


class NodeSettings(BaseModel):
    """A `node_config`, in the API's own words.

    A static address is not offered: it stays rented when its machine is gone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    machine_type: str
    template_id: str
    disk_size: int = Field(ge=1)
    public_ip_type: Literal["dynamic", "none"] = "dynamic"
    enable_nvlink: bool = False


def read_provider(section: Mapping[str, Any]) -> ProviderSettings:
    """The settings in the section `provider`; raises `UserError` with every problem."""
    own = {name: value for name, value in section.items() if name not in _OF_RAY}
    return _validated(ProviderSettings, own, "provider")


def read_node(section: Mapping[str, Any], place: str = "node_config") -> NodeSettings:
    """The settings in a `node_config`; raises `UserError` with every problem."""
    return _validated(NodeSettings, dict(section), place)


def check_cluster(config: Mapping[str, Any], provider: Mapping[str, Any]) -> None:
    """Raise one `UserError` with everything wrong in a whole cluster file whose `provider` is filled in."""
    problems: list[str] = []
    for check in (lambda: read_provider(provider), lambda: read_api_key(provider.get("api_key_file"))):
        problems.extend(_problems_of(check))
    names = {
        "cluster_name": config["cluster_name"],
        **{f"available_node_types.{name}": name for name in _types(config)},
    }
    for place, name in names.items():
        if not is_part(name):
            problems.append(f"{place}: {name!r} becomes a part of machine names, so it may have only {PART_RULE}")
    for name, node_type in _types(config).items():
        place = f"available_node_types.{name}.node_config"
        problems.extend(_problems_of(lambda node=node_type, place=place: read_node(node["node_config"], place)))
    problems.extend(_about_the_heads_key(config, provider))
    if problems:
        raise UserError("the cluster file cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))


def read_api_key(file: str | Path | None) -> str:
    """The key: PAPERSPACE_API_KEY, else what the private `file` holds, as on the head.

    Ray would hand a variable of the head on to every trial, so there the key waits in a file that only the autoscaler
    reads. Raises `UserError` when there is no key, or when others may read the file.
    """
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return key
    path = Path(file).expanduser() if file else None
    if path is None or not path.is_file():
        where = f", nor is there a file {path}" if path else ""
        raise UserError(f"{KEY_VARIABLE} is not set{where}: set it to a key of your team (console.paperspace.com).")
    _check_private(path)
    if not (key := path.read_text().strip()):
        raise UserError(f"{path} is empty: it must hold the key to Paperspace's API.")
    return key


def _about_the_heads_key(config: Mapping[str, Any], provider: Mapping[str, Any]) -> Iterable[str]:
    """The head creates the workers, so it needs the key, in a private file."""
    file = provider.get("api_key_file")
    if not file:
        if config.get("max_workers"):
            yield "provider.api_key_file: missing, but the head creates the workers and needs the key for that"
        return
    if file not in config.get("file_mounts", {}):
        yield f"file_mounts: must bring provider.api_key_file to the head: {file}: {file}"
    elif not (path := Path(config["file_mounts"][file]).expanduser()).is_file():
        yield f'file_mounts.{file}: {path} is missing: (umask 077; printf %s "${KEY_VARIABLE}" > {path})'
    else:
        yield from _problems_of(lambda: _check_private(path))


def _check_private(path: Path) -> None:
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"{path} can be read by others: chmod 600 {path}")


def _types(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(config.get("available_node_types", {}))


def _problems_of(check: Any) -> list[str]:
    try:
        check()
    except UserError as error:
        return str(error).splitlines()
    return []


def _validated(model: type[Model], section: dict[str, Any], place: str) -> Model:
    try:
        return model.model_validate(section)
    except ValidationError as error:
        raise UserError("\n".join(_describe(problem, place) for problem in error.errors())) from None


def _describe(problem: Any, place: str) -> str:
    where = ".".join([place, *map(str, problem["loc"])])
    if problem["type"] == "missing":
        return f"{where}: missing"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}, got {problem['input']!r}"
