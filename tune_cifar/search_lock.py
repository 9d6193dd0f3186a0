"""Lets one process at a time run the search of a folder, and tells searches of one machine of each other.

Two in one folder would write over each other's state and trials.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tune_cifar.errors import UserError

LOCK_FILE = ".lock"


class SearchLock:
    """A lock on the search in `folder`, which the kernel releases when this process ends, however it ends.

    As a context manager it is taken at once where the folder exists, and by `take` when a new search has made it.
    Who only reads needs none. Other machines see it where the filesystem passes locks on, as NFS does on Linux
    (https://man7.org/linux/man-pages/man2/flock.2.html).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def __enter__(self) -> SearchLock:
        if self.folder.is_dir():
            self.take()
        return self

    def take(self) -> None:
        """Take the lock; raises `UserError` that names the process which has it, or where there can be no lock."""
        path = self.folder / LOCK_FILE
        descriptor = -1
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f"{self.folder} belongs to a search that is running: {_holder(path)}. Wait for its end, or stop it "
                "(kill and its number), and try again; or start another search under another --name."
            ) from None
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise UserError(
                f"{path} cannot be locked ({error.strerror}), and without a lock two searches could write here at "
                "once. Choose a folder for --results on a disk that has locks and can be written."
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._descriptor = descriptor

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def running_here(cache: Path) -> Iterator[bool]:
    """While the context lasts this user's other searches on this machine know of this one; gives whether there is one.

    It is known by a lock on a file in `cache`, the user's own folder. Where there can be none, nobody knows.
    """
    descriptor, others = -1, False
    with contextlib.suppress(OSError):  # it is about one line of advice, for which no search should end
        cache.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(cache / f"running-on-{socket.gethostname()}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            others = True
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield others
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _holder(path: Path) -> str:
    return path.read_text(errors="replace").strip() or "it has just started"
