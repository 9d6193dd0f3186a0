"""Keeps Tune's state in the search's folder whole, where Tune writes over the old one with the new one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.train._internal.storage import StorageContext, _FilesystemSyncer

from tune_cifar.files import disk_error, sync

_Version = tuple[int, int]  # time of change in nanoseconds, size in bytes


class WholeStateSyncer(_FilesystemSyncer):  # type: ignore[misc]  # Ray has no types
    """Copies what has changed in Tune's local folder to storage: beside the old files, then renamed all at once.

    Tune (ray 2.60) copies every file of every trial at each snapshot, and opens the old ones for writing, so that a
    full disk takes the old state as well. `error` is that of the disk, once there was one, and `folder` where that is.
    """

    def __init__(self, storage_filesystem: Any, sync_period: float, sync_timeout: float) -> None:
        super().__init__(storage_filesystem=storage_filesystem, sync_period=sync_period, sync_timeout=sync_timeout)
        self.error: OSError | None = None
        self.folder = Path()
        self._copied: dict[Path, _Version] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it into the state of each trial, which needs nothing of it."""
        return {**super().__getstate__(), "error": None, "_copied": {}, "_current_cmd": None}

    def _sync_up_command(
        self, local_path: str, uri: str, exclude: list[str] | None = None
    ) -> tuple[Callable[..., None], dict[str, Any]]:
        return self._copy_changed, {"source": Path(local_path), "target": Path(uri)}

    def _copy_changed(self, source: Path, target: Path) -> None:
        self.folder = target
        partial_files: dict[Path, Path] = {}
        versions: dict[Path, _Version] = {}
        try:
            for path in _files(source):
                status = path.stat()
                version = (status.st_mtime_ns, status.st_size)
                place = target / path.relative_to(source)
                if self._copied.get(path) == version:
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                partial_files[place] = place.with_name(f".{place.name}.partial")
                shutil.copyfile(path, partial_files[place])
                if path.parent == source:  # the state, and not a trial's own log
                    sync(partial_files[place])
                versions[path] = version
            for place, partial in partial_files.items():
                partial.replace(place)
            sync(target)
        except BaseException as error:
            self.error = disk_error(error)
            for partial in partial_files.values():
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
            raise
        self._copied.update(versions)


def keep_state_whole(storage: StorageContext) -> WholeStateSyncer:
    """Give Tune's storage this syncer, unless it has it."""
    if not isinstance(storage.syncer, WholeStateSyncer):
        storage.syncer = WholeStateSyncer(
            storage.storage_filesystem, storage.syncer.sync_period, storage.syncer.sync_timeout
        )
    return storage.syncer


def _files(folder: Path) -> list[Path]:
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
