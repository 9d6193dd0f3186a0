"""Finds out when the search's disk is full, read-only or broken, in the trials and here, before it costs a trial."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.experimental import internal_kv
from ray.tune.experiment import Trial

from tune_cifar.files import describe_disk_error

LEAST_FREE_BYTES = 16_000_000
"""Room for what a search that ends still writes: Tune's state, the tables and the report."""

_INTERVAL_SECONDS = 1.0


def tell_of_disk(search_folder: str, error: OSError) -> None:
    """Tell the search, from the process of a trial, that its disk takes no checkpoint; the first word counts."""
    message = describe_disk_error(error, Path(search_folder))
    internal_kv._internal_kv_put(_key(search_folder), message.encode(), overwrite=False)


class StorageWatch(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Looks once a second at the disk of `folder` (Tune's own, of one search) and at what its trials told of it.

    `broke` is called with what the matter is, once a look. Trials tell under the name of Tune's folder in storage,
    `told_under`, where that is not `folder`.
    """

    def __init__(self, folder: Path, broke: Callable[[str], None], told_under: str = "") -> None:
        self.folder = folder
        self._key = _key(told_under or str(folder))
        self._broke = broke
        self._next_look = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a watch belongs to one process."""
        return {}

    def setup(self, *args: Any, **info: Any) -> None:
        """The search begins: what an earlier one told, in a Ray that was there before, is past."""
        internal_kv._internal_kv_del(self._key)

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tune's loop comes by, as it does ten times a second while nothing happens."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _INTERVAL_SECONDS
            told = internal_kv._internal_kv_get(self._key)
            message = told.decode() if told else disk_trouble(self.folder)
            if message:
                self._broke(message)


def disk_trouble(folder: Path) -> str:
    """Why nothing more should be written to the disk of `folder`, or an empty string."""
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return describe_disk_error(error, folder)
    code = 0
    if disk.f_flag & os.ST_RDONLY:
        code = errno.EROFS
    elif disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
        code = errno.ENOSPC
    return describe_disk_error(OSError(code, os.strerror(code)), folder) if code else ""


def _key(search_folder: str) -> bytes:
    return f"tune_cifar/disk/{search_folder}".encode()
