"""Chooses the reader for what the user named as data: a known dataset or a folder of a known layout."""

from __future__ import annotations

import os
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.trial.data.cifar10 import find_cifar10_folder, load_cifar10_folder
from tune_cifar.trial.data.class_folders import is_class_folders, load_class_folders
from tune_cifar.trial.data.dataset import ImageDataset, SourceImages, build_dataset
from tune_cifar.trial.data.digits import load_digits_images
from tune_cifar.trial.data.layouts import LAYOUTS


def load_dataset(source: str, *, train_images: int | None = None, cache_folder: Path | None = None) -> ImageDataset:
    """Load `source`: `cifar10` (downloaded once), `digits` (scikit-learn's) or the path of a folder.

    A tenth of the training images, fixed and stratified, becomes the validation part; `train_images` keeps a
    fixed stratified subset of the others and leaves validation and test whole. `cache_folder` holds the
    download; without it that is `$TUNE_CIFAR_CACHE` or else `~/.cache/tune_cifar`. A folder that is called
    like a known dataset is written `./digits`. Raises `UserError` for whatever is wrong with the data.
    """
    try:
        name, images = _load_source(source, cache_folder)
    except OSError as error:
        place = error.filename or source
        raise UserError(f"{place}: cannot be used as data: {error.strerror or error}.") from error
    return build_dataset(name, images, train_images=train_images)


def _load_source(source: str, cache_folder: Path | None) -> tuple[str, SourceImages]:
    if source == "digits":
        return source, load_digits_images()
    if source == "cifar10":
        # Imported where it is needed, as below: training on other data then needs no rich, filelock or pyarrow.
        from tune_cifar.trial.data.download import fetch_cifar10

        return source, load_cifar10_folder(fetch_cifar10(cache_folder or default_cache_folder()))
    folder = _existing_folder(source)
    cifar10_folder = find_cifar10_folder(folder)
    if cifar10_folder:
        return "cifar10", load_cifar10_folder(cifar10_folder)
    from tune_cifar.trial.data.parquet import find_parquet_files, load_parquet

    name = folder.resolve().name
    if find_parquet_files(folder):
        return name, load_parquet(folder)
    if is_class_folders(folder):
        return name, load_class_folders(folder)
    entries = sorted(entry.name for entry in folder.iterdir())
    found = f"{', '.join(entries[:5])}{', …' if len(entries) > 5 else ''}" if entries else "nothing, it is empty"
    raise UserError(f"{folder}: no known layout of data; found in it: {found}. Known layouts:\n{LAYOUTS}")


def _existing_folder(source: str) -> Path:
    folder = _expanded(source)
    if not source.strip() or not folder.exists():
        raise UserError(
            f"data: {source!r} is neither a known dataset (cifar10, digits) nor a folder. "
            f"Layouts of a folder:\n{LAYOUTS}"
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: data must be a folder, this is a file. Layouts of a folder:\n{LAYOUTS}")
    return folder


def default_cache_folder() -> Path:
    """Where what was fetched is kept: `$TUNE_CIFAR_CACHE` or else `~/.cache/tune_cifar`."""
    return _expanded(os.environ.get("TUNE_CIFAR_CACHE") or "~/.cache/tune_cifar")


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # no such user, or a user without a home folder, as in some containers
        raise UserError(f"{path}: the home folder is not known; give the path in full.") from error
