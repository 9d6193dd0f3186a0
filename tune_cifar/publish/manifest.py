"""Reads and writes manifest.json, which tells what a model file is and how to know that it is whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.files import replace_text
from tune_cifar.saved_json import parse_json
from tune_cifar.trial.config import torchvision_builder_name

MANIFEST_FILE = "manifest.json"

_STEMS = ("imagenet", "cifar")
_FILE_NAME = re.compile(r"[^/\\\0.][^/\\\0]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """What a model file is: how to build the network, how it was trained and scored, and its checksum.

    `other_files` maps the name of each other file that belongs to it to its sha256.
    """

    file: str
    sha256: str
    size_bytes: int
    model: str
    stem: str
    class_names: tuple[str, ...]
    pixel_mean: float
    pixel_std: float
    config: Mapping[str, Any]
    trial_id: str
    epoch: int
    metric: str
    metric_value: float
    scores: Mapping[str, float]
    data: str
    data_fingerprint: str
    versions: Mapping[str, str]
    # Of a published model only, or of newer searches: a manifest without these is read as well.
    data_licence: str = ""
    other_files: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files, the weights first."""
        return (self.file, *self.other_files)

    def sha256_of(self, name: str) -> str | None:
        """The sha256 of the file called `name`; None where it is not a file of this model."""
        return self.sha256 if name == self.file else self.other_files.get(name)


def parse_manifest(text: str | bytes, place: str) -> Manifest:
    """Read the text of a manifest; raises `UserError` that names `place` where it is none.

    A manifest may come from anywhere, so its names are checked to be names of files and not paths.
    """
    try:
        manifest = parse_json(text, Manifest)
        problem = _problem(manifest)
    except ValueError as error:
        problem = str(error)
    if problem:
        raise UserError(f"{place} is not a manifest of this project ({problem}). Move it away to go on without.")
    return manifest


def _problem(manifest: Manifest) -> str | None:
    for name, sha256 in {manifest.file: manifest.sha256, **manifest.other_files}.items():
        if not _FILE_NAME.fullmatch(name) or not _SHA256.fullmatch(sha256):
            return f"{name!r} is no name of a file, or has no sha256"
    if torchvision_builder_name(manifest.model) is None or manifest.stem not in _STEMS:
        return f"the network {manifest.model!r} with stem {manifest.stem!r} is not known"
    return None


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write manifest.json into `folder`, the whole file at once, and return its path."""
    path = folder / MANIFEST_FILE
    replace_text(path, json.dumps(asdict(manifest), indent=2) + "\n")
    return path


def read_manifest(model_file: Path, folder: Path | None = None) -> Manifest | None:
    """The manifest in `folder` (default: beside `model_file`) if there is one and it is of that file.

    Raises `UserError` when the file's size or sha256 is not the manifest's.
    """
    path = (folder or model_file.parent) / MANIFEST_FILE
    if not path.is_file():
        return None
    manifest = parse_manifest(path.read_bytes(), str(path))
    if manifest.sha256_of(model_file.name) is None:
        return None
    problem = difference(model_file, manifest, model_file.name)
    if problem:
        raise UserError(
            f"{model_file} is not the file that {path.name} beside it describes: {problem}. "
            "Copy both again from where they came, or move the manifest away to go on without."
        )
    return manifest


def difference(path: Path, manifest: Manifest, name: str) -> str | None:
    """How the file at `path` differs from what `manifest` says of `name`, in words; None if it does not."""
    size_bytes = path.stat().st_size
    if name == manifest.file and size_bytes != manifest.size_bytes:
        return f"it has {size_bytes} bytes, where the manifest has {manifest.size_bytes}"
    return None if file_sha256(path) == manifest.sha256_of(name) else "its sha256 differs"


def find_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`, whatever it is of; raises `UserError` where there is none."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise UserError(f"There is no model in {folder}: no {MANIFEST_FILE}. Of a search, no trial has finished then.")
    return parse_manifest(path.read_bytes(), str(path))


def add_file(path: Path) -> None:
    """List the file `path` in the manifest beside it."""
    manifest = find_manifest(path.parent)
    others = {**manifest.other_files, path.name: file_sha256(path)}
    write_manifest(replace(manifest, other_files=others), path.parent)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
