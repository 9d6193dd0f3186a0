"""Keeps what was published where: published.json in the search's folder, and the same list in summary.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.files import replace_text
from tune_cifar.report.tables import SUMMARY_FILE
from tune_cifar.saved_json import read_json

PUBLISHED_FILE = "published.json"


@dataclass(frozen=True)
class PublishedModel:
    """One model at one target: `uri` is where it is, `id` what the target calls it, `when` the time in UTC."""

    target: str
    name: str
    uri: str
    sha256: str
    when: str
    id: str


def now_utc() -> str:
    """The time for `PublishedModel.when`, such as `2026-11-23T16:30:00+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_published(folder: Path) -> list[PublishedModel]:
    """What published.json of a search's folder lists, oldest first; raises `UserError` if it cannot be read."""
    path = folder / PUBLISHED_FILE
    if not path.is_file():
        return []
    try:
        models = read_json(path, list[PublishedModel])
        for model in models:
            datetime.fromisoformat(model.when)
        return models
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a list of published models ({error}). Move it away to go on.") from None


def add_published(folder: Path, model: PublishedModel) -> None:
    """Add `model` to published.json and summary.json; the same file at the same place replaces its older entry."""
    kept = [entry for entry in read_published(folder) if _place(entry) != _place(model)]
    _write(folder / PUBLISHED_FILE, [*kept, model])
    repeat_in_summary(folder)


def repeat_in_summary(folder: Path) -> None:
    """Write the list of published.json into summary.json as `published`."""
    path = folder / SUMMARY_FILE
    try:
        summary = read_json(path, dict[str, Any])
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}). Without it, no model of the search is published.") from None
    summary["published"] = [asdict(model) for model in read_published(folder)]
    replace_text(path, json.dumps(summary, indent=2) + "\n")


def _place(model: PublishedModel) -> tuple[str, ...]:
    return (model.target, model.uri, model.sha256, model.id)


def _write(path: Path, models: Sequence[PublishedModel]) -> None:
    replace_text(path, json.dumps([asdict(model) for model in models], indent=2) + "\n")
