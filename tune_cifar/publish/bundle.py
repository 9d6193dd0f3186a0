"""Gathers the files of a published model in one folder, checked against the manifest before anything is sent."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.publish.best_model import MANIFEST_FILE, Manifest, data_licence, file_sha256, read_manifest
from tune_cifar.publish.card import model_card
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
    """Raise `UserError` where the package that writes .safetensors files is missing."""
    if find_spec("safetensors") is None:
        raise UserError("Publishing a model needs safetensors: pip install 'tune-cifar[publish]'.")


def make_bundle(best_folder: Path, staging: Path) -> Bundle:
    """Copy the model of `best_folder` (results/NAME/best) into `staging` and write the other files beside it.

    The files are the same bytes each time, so that publishing twice is noticed. Raises `UserError` when there is
    no model or its sha256 is not the manifest's; `best_folder` is only read.
    """
    check_safetensors()
    from safetensors.torch import save_file

    source = _model_file(best_folder)
    staging.mkdir(parents=True, exist_ok=True)
    weights_file = staging / source.name
    shutil.copyfile(source, weights_file)
    shutil.copyfile(best_folder / MANIFEST_FILE, staging / MANIFEST_FILE)
    # The copy is checked and not the original: it is the copy that will be sent.
    manifest = read_manifest(weights_file)
    if manifest is None:
        raise UserError(f"{best_folder / MANIFEST_FILE} describes another file than {source.name}.")
    manifest = replace(manifest, data_licence=manifest.data_licence or data_licence(manifest.data))
    name = weights_file.stem
    safetensors_file = staging / f"{name}.safetensors"
    save_file(load_weights(weights_file), safetensors_file, metadata={"format": "pt"})
    card_file = staging / CARD_FILE
    card_file.write_text(model_card(manifest, name))
    others = {file.name: file_sha256(file) for file in (safetensors_file, card_file)}
    manifest = replace(manifest, other_files=others)
    manifest_file = staging / MANIFEST_FILE
    manifest_file.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    paths = (weights_file, safetensors_file, card_file, manifest_file)
    return Bundle(name, manifest, tuple(_bundle_file(path) for path in paths))


def _model_file(best_folder: Path) -> Path:
    manifest_file = best_folder / MANIFEST_FILE
    if not manifest_file.is_file():
        raise UserError(f"There is no model to publish in {best_folder}: no trial of that search has finished.")
    try:
        name = str(json.loads(manifest_file.read_text())["file"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{manifest_file} is not a manifest of this project ({error}).") from None
    model_file = best_folder / name
    if Path(name).name != name or not model_file.is_file():
        raise UserError(f"{manifest_file} names {name}, which is not in {best_folder}.")
    return model_file


def _bundle_file(path: Path) -> BundleFile:
    return BundleFile(path.name, path, file_sha256(path), path.stat().st_size)
