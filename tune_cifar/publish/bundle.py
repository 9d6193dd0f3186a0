"""Gathers the files of a published model in one folder, checked against the manifest before anything is sent."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.publish.best_model import data_licence
from tune_cifar.publish.card import model_card
from tune_cifar.publish.manifest import (
    MANIFEST_FILE,
    Manifest,
    difference,
    file_sha256,
    find_manifest,
    write_manifest,
)
from tune_cifar.trial.checkpoint import load_weights

CARD_FILE = "README.md"


@dataclass(frozen=True)
class BundleFile:
    """A file that is published; `path` is its copy on this machine."""

    name: str
    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Bundle:
    """A model to publish: the tutorial's `name`, its files (the manifest last) and what the manifest says."""

    name: str
    manifest: Manifest
    files: tuple[BundleFile, ...]

    @property
    def weights(self) -> BundleFile:
        """The .pth file, whose sha256 stands for the model."""
        return self.files[0]

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.size_bytes for file in self.files)


def check_safetensors() -> None:
    """Raise `UserError` where the package for .safetensors files is missing."""
    if find_spec("safetensors") is None:
        raise UserError("A .safetensors file needs the package of that name: pip install 'tune-cifar[publish]'.")


def make_bundle(best_folder: Path, staging: Path) -> Bundle:
    """Copy the model of `best_folder` (results/NAME/best) into `staging` and write the other files beside it.

    Files that the manifest lists beside the weights, such as an exported .onnx, are taken along. The files are the
    same bytes each time, so that publishing twice is noticed. Raises `UserError` when there is no model or a sha256
    is not the manifest's; `best_folder` is only read.
    """
    check_safetensors()
    from safetensors.torch import save

    staging.mkdir(parents=True, exist_ok=True)
    manifest = find_manifest(best_folder)
    weights_file, *along = (_copy(best_folder / name, manifest, staging) for name in manifest.files)
    manifest = replace(manifest, data_licence=manifest.data_licence or data_licence(manifest.data))
    name = weights_file.stem
    safetensors_file = staging / f"{name}.safetensors"
    try:
        tensors = save(load_weights(weights_file), metadata={"format": "pt"})
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{best_folder / manifest.file} does not hold the weights of a network: {error}.") from None
    # Not the library's own writing to a file, which tells of a full disk by an error without its number.
    safetensors_file.write_bytes(tensors)
    card_file = staging / CARD_FILE
    card_file.write_text(model_card(manifest, name))
    others = (safetensors_file, card_file, *along)
    manifest = replace(manifest, other_files={file.name: file_sha256(file) for file in others})
    paths = (weights_file, *others, write_manifest(manifest, staging))
    return Bundle(name, manifest, tuple(_bundle_file(path) for path in paths))


def _copy(source: Path, manifest: Manifest, staging: Path) -> Path:
    """Copy a file of the model; the copy is checked and not the original, since it is the copy that will be sent."""
    copy = staging / source.name
    try:
        shutil.copyfile(source, copy)
    except FileNotFoundError:
        raise UserError(f"{source.parent / MANIFEST_FILE} lists {source.name}, which is not there.") from None
    problem = difference(copy, manifest, source.name)
    if problem:
        raise UserError(f"{source} is not the file that {MANIFEST_FILE} beside it describes: {problem}.")
    return copy


def _bundle_file(path: Path) -> BundleFile:
    return BundleFile(path.name, path, file_sha256(path), path.stat().st_size)
