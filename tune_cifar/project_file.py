"""Reads tune_cifar.yaml, in which a project says once where the models of all its searches are published."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cifar.errors import show
from tune_cifar.sweep.problems import FileCheck
from tune_cifar.sweep.source import read_source

PROJECT_FILE = Path("tune_cifar.yaml")
"""In the folder that a command is started from."""

_KIND = "project file"
# The keys besides `publish`; each is the flag of that name.
_OPTIONS = ("gradient_project", "storage_provider", "wandb_registry")


@dataclass(frozen=True)
class ProjectConfig:
    """The `publish` targets of a project, and the `options` that some of them need, by the names of their flags."""

    path: Path
    publish: tuple[str, ...]
    options: Mapping[str, str]

    def flags(self, args: argparse.Namespace, target_flag: str) -> list[str]:
        """The words that the command line lacks for the project's targets; a flag that was given goes first."""
        words = [word for target in self.publish for word in (target_flag, target)]
        for name, value in self.options.items():
            words += [] if getattr(args, name) else [f"--{name.replace('_', '-')}", value]
        return words


def load_project(path: Path = PROJECT_FILE) -> ProjectConfig | None:
    """The project's file, None where there is none; raises `UserError` with every problem of it."""
    if not path.exists():
        return None
    source = read_source(path, _KIND, "`publish`")
    check = FileCheck(source)
    check.known_keys(source.data, ("publish", *_OPTIONS), (), _KIND)
    targets = _read_targets(source.data, check)
    texts = {name: check.text(source.data[name], (name,)) for name in _OPTIONS if name in source.data}
    check.raise_problems()
    return ProjectConfig(path, targets, {name: text for name, text in texts.items() if text})


def _read_targets(data: dict[str, Any], check: FileCheck) -> tuple[str, ...]:
    """One target, or a list of them."""
    if "publish" not in data:
        check.problem((), "`publish` is missing. Add a target or a list of them, such as `publish: hf://ORG/NAME`.")
        return ()
    value = data["publish"]
    targets = value if isinstance(value, list) else [value]
    for number, target in enumerate(targets):
        if not isinstance(target, str) or not target:
            place = ("publish", number) if isinstance(value, list) else ("publish",)
            check.problem(place, f"must be a target such as hf://ORG/NAME or models/, got {show(target)}.")
    return tuple(target for target in targets if isinstance(target, str))
