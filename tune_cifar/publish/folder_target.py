"""Publishes into a folder: the whole model appears there at once or not at all."""

from __future__ import annotations

import glob
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.manifest import file_sha256
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import PublishError
from tune_cifar.publish.target import Receipt, Say


@dataclass(frozen=True)
class FolderTarget:
    """`FOLDER`: the model becomes FOLDER/<name>/ with its files."""

    text: str
    folder: Path

    def check(self) -> None:
        """The folder, or the nearest one above it that exists, must be one that can be written."""
        nearest = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise UserError(f"{self.text}: {nearest} is a file, and the model needs a folder.")
        if not os.access(nearest, os.W_OK):
            raise UserError(f"{self.text}: {nearest} cannot be written.")

    def describe(self, name: str) -> str:
        """The folder that would be made."""
        return f"to {self.folder / name}/"

    def publish(self, bundle: Bundle, *, again: bool, recorded: PublishedModel | None, say: Say) -> Receipt:
        """Copy under a temporary name, compare the checksums and rename."""
        place = self.folder / bundle.name
        receipt = Receipt(uri=place.absolute().as_uri(), id=bundle.name)
        if holds_bundle(place, bundle) and not again:
            return Receipt(receipt.uri, receipt.id, existed=True)
        if place.exists() and not again:
            raise PublishError(f"{place} holds something else under that name; --again replaces it")
        partial = self.folder / f".{bundle.name}.partial-{platform.node()}-{os.getpid()}"
        try:
            _remove_abandoned(self.folder, bundle.name)
            partial.mkdir(parents=True)
            for file in bundle.files:
                _copy(file.path, partial / file.name)
            if not holds_bundle(partial, bundle):
                raise PublishError(f"what was written into {self.folder} reads back as something else")
            _swap_in(partial, place)
        except OSError as error:
            raise PublishError(f"{error.filename or place}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return receipt


def holds_bundle(folder: Path, bundle: Bundle) -> bool:
    """Whether `folder` has every file of `bundle`, byte for byte."""
    return all(
        (folder / file.name).is_file() and file_sha256(folder / file.name) == file.sha256 for file in bundle.files
    )


def _remove_abandoned(folder: Path, name: str) -> None:
    """Remove what processes of this machine that were killed left of the model called `name`."""
    start = f".{name}.partial-{platform.node()}-"
    for left in folder.glob(f"{glob.escape(start)}*"):
        pid = left.name.removeprefix(start)
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # there, and another user's
    return True


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("xb") as copy:
        shutil.copyfileobj(original, copy)
        copy.flush()
        # Renaming before the bytes are on disk could leave an empty file after a power cut.
        os.fsync(copy.fileno())


def _swap_in(partial: Path, place: Path) -> None:
    """Rename `partial` to `place`; a model that was there is removed after, since no folder is renamed onto another."""
    old = partial.with_name(f"{partial.name}-old")
    if place.exists():
        place.rename(old)
    partial.rename(place)
    shutil.rmtree(old, ignore_errors=True)
