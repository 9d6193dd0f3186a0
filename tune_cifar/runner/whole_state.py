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
from tune_cifar.runner.given_up import GivenUpCheckpoints
from tune_cifar.runner.state_commit import begin_commit, finish_commit, partial_of

_Version = tuple[int, int]  # time of change in nanoseconds, size in bytes


class WholeStateSyncer(_FilesystemSyncer):  # type: ignore[misc]  # Ray has no types
    """Copies what has changed in Tune's local folder to storage: beside the old files, then renamed, all or none.

    Tune (ray 2.60) copies every file of every trial at each snapshot, and opens the old ones for writing, so that a
    full disk takes the old state as well, and a search that is killed leaves a searcher that knows more trials than
    there are. `error` is that of the disk, once there was one, and `folder` where that is.
    """

    def __init__(
        self, storage_filesystem: Any, sync_period: float, sync_timeout: float, given_up: GivenUpCheckpoints
    ) -> None:
        super().__init__(storage_filesystem=storage_filesystem, sync_period=sync_period, sync_timeout=sync_timeout)
        self.error: OSError | None = None
        self.folder = Path()
        self._copied: dict[Path, _Version] = {}
        self._given_up: GivenUpCheckpoints | None = given_up

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it into the state of each trial, which needs nothing of it."""
        return {**super().__getstate__(), "error": None, "_copied": {}, "_current_cmd": None, "_given_up": None}

    def _sync_up_command(
        self, local_path: str, uri: str, exclude: list[str] | None = None
    ) -> tuple[Callable[..., None], dict[str, Any]]:
        given_up = self._given_up.take() if self._given_up else []
        return self._copy_changed, {"source": Path(local_path), "target": Path(uri), "given_up": given_up}

    def _copy_changed(self, source: Path, target: Path, given_up: list[tuple[Any, str]]) -> None:
        self.folder = target
        try:
            target.mkdir(parents=True, exist_ok=True)
            finish_commit(target)
            self._copied |= self._copy(source, target)
        except BaseException as error:
            self.error = disk_error(error)
            if self._given_up:
                self._given_up.put_back(given_up)
            raise
        GivenUpCheckpoints.delete(given_up)

    def _copy(self, source: Path, target: Path) -> dict[Path, _Version]:
        versions: dict[Path, _Version] = {}
        places: list[Path] = []
        try:
            for path in _files(source):
                status = path.stat()
                version = (status.st_mtime_ns, status.st_size)
                if self._copied.get(path) == version:
                    continue
                place = target / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                places.append(place)
                shutil.copyfile(path, partial_of(place))
                if path.parent == source:  # the state, and not a trial's own log
                    sync(partial_of(place))
                versions[path] = version
            begin_commit(target, [str(place.relative_to(target)) for place in places])
        except BaseException:
            for place in places:
                with contextlib.suppress(OSError):
                    partial_of(place).unlink(missing_ok=True)
            raise
        finish_commit(target)
        return versions


def keep_state_whole(storage: StorageContext, given_up: GivenUpCheckpoints) -> WholeStateSyncer:
    """Give Tune's storage this syncer, unless it has it."""
    if not isinstance(storage.syncer, WholeStateSyncer):
        storage.syncer = WholeStateSyncer(
            storage.storage_filesystem, storage.syncer.sync_period, storage.syncer.sync_timeout, given_up
        )
    return storage.syncer


def _files(folder: Path) -> list[Path]:
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
