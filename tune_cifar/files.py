"""Replaces files as a whole, so that whatever breaks, a crash or a full disk, each reader finds a complete one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; what was written takes the place of `path` if no exception is raised.

    Raises `OSError` where the disk does not take it, and then leaves `path` as it was.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        move_into_place(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are, in the place of what `path` holds; see `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(text.encode())


def move_into_place(source: Path, target: Path) -> None:
    """Rename a file or folder, once all of it is on the disk: a rename may get there before the content it names."""
    for path in [*source.iterdir(), source] if source.is_dir() else [source]:
        sync(path)
    source.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Full, over quota, read-only and broken: whatever is written next fails as well."""


def disk_error(error: BaseException) -> OSError | None:
    """The error of the disk that is, or caused, `error`; None where the disk is not to blame.

    Libraries wrap it: torch's writer raises a RuntimeError while it handles the OSError.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK_ERRORS:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def describe_disk_error(error: OSError, folder: Path) -> str:
    """What the disk of `folder` refused, and how much of it is free."""
    what = f"{error.strerror or error} ({error.filename or folder})"
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return what
    return f"{what}; {usage.free / 1e6:,.0f} MB of {usage.total / 1e6:,.0f} MB are free there"
