"""Puts the files of Tune's state into their places all or none: a list of them is written before they are renamed.

The files are written beside their places first. Once the list is there the new state counts, and a process that is
killed while it renames them has left all that the next one needs to go on with it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tune_cifar.files import replace_text, sync

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

COMMIT_FILE = ".snapshot-commit"


def partial_of(place: Path) -> Path:
    """Where a file is written before it takes its place."""
    return place.with_name(f".{place.name}.partial")


def partial_name(name: str) -> str:
    """As `partial_of`, of a name in a bucket."""
    return PurePosixPath(name).with_name(f".{PurePosixPath(name).name}.partial").as_posix()


def begin_commit(folder: Path, names: Sequence[str]) -> None:
    """Have the files of these names, all written beside their places, count from now on."""
    replace_text(folder / COMMIT_FILE, json.dumps(names))


def finish_commit(folder: Path) -> None:
    """Put the files of a state that counts into their places, also those of a process that ended while it did so."""
    commit = folder / COMMIT_FILE
    try:
        names: Sequence[str] = json.loads(commit.read_bytes())
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # it is in its place
            partial_of(folder / name).replace(folder / name)
    sync(folder)
    commit.unlink()


def begin_commit_in(store: FileSystem, folder: str, names: Sequence[str]) -> None:
    """As `begin_commit`, in a folder of a bucket."""
    with store.open_output_stream(f"{folder}/{COMMIT_FILE}") as stream:
        stream.write(json.dumps(names).encode())


def finish_commit_in(store: FileSystem, folder: str) -> None:
    """As `finish_commit`, in a folder of a bucket, where a rename is a copy."""
    try:
        with store.open_input_stream(f"{folder}/{COMMIT_FILE}") as stream:
            names: Sequence[str] = json.loads(stream.read())
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # it is in its place
            store.move(f"{folder}/{partial_name(name)}", f"{folder}/{name}")
    store.delete_file(f"{folder}/{COMMIT_FILE}")
