"""Decides in which W&B project the runs are, of which user or team, before W&B's client is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from tune_cifar.errors import UserError, show
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.schema import SweepConfig

DEFAULT_PROJECT = "tune-cifar"


def choose_place(
    config: SweepConfig, project: str | None, entity: str | None, environment: Mapping[str, str] = os.environ
) -> dict[str, str | None]:
    """The settings `wandb_project` and `wandb_entity` of a new search, from flags, else the file, else the environment.

    `project` and `entity` are the flags. Without any the project is `tune-cifar`, and the entity is left to W&B's
    server, which knows whose the key is. Raises `UserError`, naming the place, for what W&B would refuse.
    """
    projects = {
        "--wandb-project": project,
        f"project in {config.path}": config.project,
        "WANDB_PROJECT": environment.get("WANDB_PROJECT") or None,
    }
    entities = {
        "--wandb-entity": entity,
        f"entity in {config.path}": config.entity,
        "WANDB_ENTITY": environment.get("WANDB_ENTITY") or None,
    }
    project_place, project = _first(projects)
    entity_place, entity = _first(entities)
    if project is not None:
        check_project(project, project_place)
    if entity is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", entity):
        raise UserError(
            f"{entity_place} must be a W&B user or team, of letters, digits, '_' and '-', got {show(entity)}."
        )
    return {"wandb_project": project or DEFAULT_PROJECT, "wandb_entity": entity}


def in_place(config: SweepConfig, settings: SearchSettings) -> SweepConfig:
    """The sweep with the project and the entity that its search was started with."""
    return replace(
        config,
        project=settings.wandb_project or config.project or DEFAULT_PROJECT,  # a search of an earlier version has none
        entity=settings.wandb_entity or config.entity,
    )


def describe_place(config: SweepConfig) -> str:
    """Where the runs of a sweep that is `in_place` are, in words."""
    return f"project {config.project} of {config.entity or 'your default entity'}"


def _first(values: Mapping[str, str | None]) -> tuple[str, str | None]:
    """The first value that is given, and its place."""
    return next(((place, value) for place, value in values.items() if value is not None), ("", None))


def check_project(project: str, place: str = "The W&B project") -> None:
    """Raise `UserError` for a project's name that W&B refuses; `place` says where it stands."""
    if not 1 <= len(project) <= 128 or re.search(r"[/\\#?%:]", project):
        raise UserError(f"{place} must be 1 to 128 characters without / \\ # ? % :, got {show(project)}.")
