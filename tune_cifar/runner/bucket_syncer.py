"""Writes Tune's state into a bucket, where Tune itself would upload every file again at each snapshot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray.train._internal.storage import StorageContext, _FilesystemSyncer

from tune_cifar.runner.given_up import GivenUpCheckpoints
from tune_cifar.runner.state_commit import begin_commit_in, finish_commit_in, partial_name
from tune_cifar.scrubbing import scrub


class BucketSyncer(_FilesystemSyncer):  # type: ignore[misc]  # Ray has no types
    """Uploads what has changed in Tune's local folder: the trials' own files, then the state, all of it or none.

    Tune (ray 2.60) uploads every file of every trial at each snapshot, which grows with the search. What goes wrong
    does not end the search: `say` gets one line, and the next snapshot tries again.
    """

    def __init__(self, storage: StorageContext, say: Callable[[str], None], given_up: GivenUpCheckpoints) -> None:
        periods = {"sync_period": storage.syncer.sync_period, "sync_timeout": storage.syncer.sync_timeout}
        super().__init__(storage_filesystem=storage.storage_filesystem, **periods)
        self._say: Callable[[str], None] | None = say
        self._given_up: GivenUpCheckpoints | None = given_up
        self._copied: dict[Path, tuple[int, int]] = {}  # time of change in nanoseconds, size in bytes
        self._fails = False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it into the state of each trial, which needs nothing of it."""
        return {**super().__getstate__(), "_say": None, "_given_up": None, "_copied": {}, "_current_cmd": None}

    def _sync_up_command(
        self, local_path: str, uri: str, exclude: list[str] | None = None
    ) -> tuple[Callable[..., None], dict[str, Any]]:
        given_up = self._given_up.take() if self._given_up else []
        return self._upload_changed, {"source": Path(local_path), "target": uri, "given_up": given_up}

    def _upload_changed(self, source: Path, target: str, given_up: list[tuple[Any, str]]) -> None:
        try:
            self._upload(source, target)
        except OSError as error:
            if self._given_up:
                self._given_up.put_back(given_up)
            if self._say and not self._fails:
                message = f"Ray's state could not be written to {target} and is tried again"
                self._say(f"warning  {message}: {scrub(str(error))}")
            self._fails = True
            raise
        self._fails = False
        GivenUpCheckpoints.delete(given_up)

    def _upload(self, source: Path, target: str) -> None:
        store = self.storage_filesystem
        finish_commit_in(store, target)
        state: dict[str, tuple[Path, tuple[int, int]]] = {}
        for path in [Path(parent, name) for parent, _, names in os.walk(source, topdown=False) for name in names]:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if self._copied.get(path) == version:
                continue
            name = path.relative_to(source).as_posix()
            is_state = path.parent == source
            place = f"{target}/{partial_name(name) if is_state else name}"
            pyarrow.fs.copy_files(str(path), place, destination_filesystem=store, use_threads=False)
            if is_state:
                state[name] = path, version
            else:
                self._copied[path] = version
        if state:
            begin_commit_in(store, target, list(state))
            finish_commit_in(store, target)
            self._copied |= dict(state.values())


def keep_state_in_bucket(
    storage: StorageContext, say: Callable[[str], None], given_up: GivenUpCheckpoints
) -> BucketSyncer:
    """Give Tune's storage this syncer, unless it has it."""
    if not isinstance(storage.syncer, BucketSyncer):
        storage.syncer = BucketSyncer(storage, say, given_up)
    return storage.syncer
