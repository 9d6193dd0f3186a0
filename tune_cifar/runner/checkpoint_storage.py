"""Puts a trial's checkpoints into Tune's storage whole or not at all, where Tune itself copies them file by file."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray import tune

from tune_cifar.files import move_into_place

_PREFIX = ".checkpoint-"


def checkpoint_folders(storage: Any) -> Callable[[], contextlib.AbstractContextManager[str | Path]]:
    """What makes a folder for each checkpoint of a trial, whose Ray StorageContext is `storage`.

    To a bucket Tune uploads it itself: an object is there whole or not at all, and a checkpoint once Tune notes it.
    """
    if isinstance(storage.storage_filesystem, LocalFileSystem):
        return CheckpointStorage(storage).new_checkpoint
    return tempfile.TemporaryDirectory


class CheckpointStorage:
    """The folder in storage of one trial, in the trial's own process.

    A checkpoint is written beside its place and renamed to it when it is on the disk (ray 2.60 would copy it there:
    twice the writing, and half a checkpoint where that breaks off). `storage` is Ray's StorageContext of the trial.
    Raises `RuntimeError`, in Ray's words, where this machine does not see the search's folder.
    """

    def __init__(self, storage: Any) -> None:
        storage._check_validation_file()
        self._storage = storage
        self._folder = Path(storage.trial_fs_path)
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(f"{_PREFIX}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        storage.persist_current_checkpoint = self._persist

    @contextlib.contextmanager
    def new_checkpoint(self) -> Iterator[Path]:
        """An empty folder to write a checkpoint to and report it from; whatever is left of it is removed."""
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir=self._folder)
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _persist(self, checkpoint: tune.Checkpoint) -> tune.Checkpoint:
        """What Tune calls to store a checkpoint that is reported."""
        place = Path(self._storage.checkpoint_fs_path)
        # Reported before by a process that was killed before the search had noted it.
        shutil.rmtree(place, ignore_errors=True)
        folder = Path(checkpoint.path)
        folder.chmod(0o755)  # a temporary folder is for its owner alone
        move_into_place(folder, place)
        return tune.Checkpoint(str(place), filesystem=self._storage.storage_filesystem)
