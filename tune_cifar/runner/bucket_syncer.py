"""Writes Tune's state into a bucket, where Tune itself would upload every file again at each snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray.train._internal.storage import StorageContext, _FilesystemSyncer

from tune_cifar.scrubbing import scrub


class BucketSyncer(_FilesystemSyncer):  # type: ignore[misc]  # Ray has no types
    """Uploads what has changed in Tune's local folder, the state after the trials' own files.

    Tune (ray 2.60) uploads every file of every trial at each snapshot, which grows with the search. What goes wrong
    does not end the search: `say` gets one line, and the next snapshot tries again.
    """

    def __init__(self, storage: StorageContext, say: Callable[[str], None]) -> None:
        periods = {"sync_period": storage.syncer.sync_period, "sync_timeout": storage.syncer.sync_timeout}
        super().__init__(storage_filesystem=storage.storage_filesystem, **periods)
        self._say: Callable[[str], None] | None = say
        self._copied: dict[Path, tuple[int, int]] = {}  # time of change in nanoseconds, size in bytes
        self._fails = False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it into the state of each trial, which needs nothing of it."""
        return {**super().__getstate__(), "_say": None, "_copied": {}, "_current_cmd": None}

    def _sync_up_command(
        self, local_path: str, uri: str, exclude: list[str] | None = None
    ) -> tuple[Callable[..., None], dict[str, Any]]:
        return self._upload_changed, {"source": Path(local_path), "target": uri}

    def _upload_changed(self, source: Path, target: str) -> None:
        paths = [Path(parent, name) for parent, _, names in os.walk(source, topdown=False) for name in names]
        try:
            for path in paths:
                status = path.stat()
                version = (status.st_mtime_ns, status.st_size)
                if self._copied.get(path) == version:
                    continue
                place = f"{target}/{path.relative_to(source).as_posix()}"
                pyarrow.fs.copy_files(
                    str(path), place, destination_filesystem=self.storage_filesystem, use_threads=False
                )
                self._copied[path] = version
        except OSError as error:
            if self._say and not self._fails:
                message = f"Ray's state could not be written to {target} and is tried again"
                self._say(f"warning  {message}: {scrub(str(error))}")
            self._fails = True
            raise
        self._fails = False


def keep_state_in_bucket(storage: StorageContext, say: Callable[[str], None]) -> None:
    """Give Tune's storage this syncer, unless it has it."""
    if not isinstance(storage.syncer, BucketSyncer):
        storage.syncer = BucketSyncer(storage, say)
