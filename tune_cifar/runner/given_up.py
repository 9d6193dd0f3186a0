"""Keeps checkpoints that Tune has given up until no state in storage names them any more.

Tune (ray 2.60) keeps the best checkpoint of a trial and the last one. It deletes others when a new one arrives, and
writes its state afterwards: a search that is killed in between goes on from a state that names what is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ray.train._internal import checkpoint_manager
from ray.train._internal.storage import _delete_fs_path

_Checkpoint = tuple[Any, str]  # a pyarrow filesystem and a path there


class GivenUpCheckpoints:
    """What Tune wanted to delete since the last state was written. Used from the search's own thread but for `delete`.

    A syncer takes them when it begins to write a state, which names none of them, and deletes them when that is there.
    """

    def __init__(self) -> None:
        self._checkpoints: list[_Checkpoint] = []

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """While the context lasts Tune deletes no checkpoint itself."""
        checkpoint_manager._delete_fs_path = lambda fs, fs_path: self._checkpoints.append((fs, fs_path))
        try:
            yield
        finally:
            checkpoint_manager._delete_fs_path = _delete_fs_path

    def take(self) -> list[_Checkpoint]:
        """All that were given up, which are the caller's from now on."""
        taken, self._checkpoints = self._checkpoints, []
        return taken

    def put_back(self, checkpoints: list[_Checkpoint]) -> None:
        """Keep them on: the state was not written."""
        self._checkpoints = checkpoints + self._checkpoints

    @staticmethod
    def delete(checkpoints: list[_Checkpoint]) -> None:
        """Delete them; what cannot be deleted is left to Ray's log."""
        for filesystem, path in checkpoints:
            with contextlib.suppress(FileNotFoundError):
                _delete_fs_path(filesystem, path)
