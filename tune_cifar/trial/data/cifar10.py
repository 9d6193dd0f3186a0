"""Reads the official CIFAR-10 files, each checked against its published checksum before it is unpickled."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import CIFAR10

from tune_cifar.errors import UserError
from tune_cifar.trial.data.dataset import ImageSplit, SourceImages
from tune_cifar.trial.data.decoding import IMAGE_SIDE


@dataclass(frozen=True)
class Cifar10Release:
    """The files of CIFAR-10 with their md5 checksums, in the order in which their rows count."""

    url: str
    archive_md5: str
    train_md5: Mapping[str, str]
    test_md5: Mapping[str, str]
    names_md5: Mapping[str, str]

    folder_name = "cifar-10-batches-py"
    """The folder that the archive unpacks to."""

    archive_name = "cifar-10-python.tar.gz"


OFFICIAL_RELEASE = Cifar10Release(
    url=CIFAR10.url,
    archive_md5=CIFAR10.tgz_md5,
    train_md5=dict(CIFAR10.train_list),
    test_md5=dict(CIFAR10.test_list),
    names_md5={CIFAR10.meta["filename"]: CIFAR10.meta["md5"]},
)
"""The release of https://www.cs.toronto.edu/~kriz/cifar.html, by the checksums that torchvision lists."""


def find_cifar10_folder(folder: Path, release: Cifar10Release = OFFICIAL_RELEASE) -> Path | None:
    """Return the folder with the official files, `folder` itself or the one in it, or None."""
    if (folder / release.folder_name).is_dir():
        return folder / release.folder_name
    known = {*release.train_md5, *release.test_md5, *release.names_md5}
    is_it = folder.name == release.folder_name or any((folder / name).exists() for name in known)
    return folder if is_it else None


def load_cifar10_folder(folder: Path, release: Cifar10Release = OFFICIAL_RELEASE) -> SourceImages:
    """Read the official files in `folder`; `UserError` names all that are missing or corrupt.

    The format is described at https://www.cs.toronto.edu/~kriz/cifar.html: a row holds the red, then the
    green, then the blue plane of an image.
    """
    files = {**release.train_md5, **release.test_md5, **release.names_md5}
    problems = []
    contents: dict[str, Any] = {}
    for name, md5 in files.items():
        try:
            contents[name] = _checked_content(folder / name, md5)
        except UserError as error:
            problems.append(f"  {error}")
    if problems:
        raise UserError(
            f"{folder}: some files are not the official ones. Unpack {release.archive_name} again; "
            "if `--data cifar10` made the folder, delete it to have it made again.\n" + "\n".join(problems)
        )
    (names_file,) = release.names_md5
    return SourceImages(
        tuple(contents[names_file]["label_names"]),
        _joined([contents[name] for name in release.train_md5]),
        _joined([contents[name] for name in release.test_md5]),
    )


def _checked_content(path: Path, md5: str) -> Any:
    if path.exists() and not path.is_file():  # of a pipe, reading it would wait for ever
        raise UserError(f"{path.name}: not a file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path.name}: missing") from None
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read: {error.strerror}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UserError(f"{path.name}: corrupt, its md5 is {found} and should be {md5}")
    # The very bytes that were checked, not the file again: it may change meanwhile. Python 2 wrote them.
    return pickle.loads(content, encoding="latin1")  # noqa: S301


def _joined(batches: list[dict[str, Any]]) -> ImageSplit:
    planes = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, IMAGE_SIDE, IMAGE_SIDE)
    labels = np.concatenate([np.asarray(batch["labels"], dtype=np.int64) for batch in batches])
    return ImageSplit(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)
