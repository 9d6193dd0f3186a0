"""Keeps a search's files in a bucket as well, so that it can go on from another machine."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from tune_cifar.bucket_address import BucketAddress, parse_address
from tune_cifar.command import EXIT_NOT_PUBLISHED
from tune_cifar.errors import UserError
from tune_cifar.files import replace_text
from tune_cifar.publish.retry import RetryPolicy
from tune_cifar.saved_json import read_json
from tune_cifar.scrubbing import scrub
from tune_cifar.settings import SETTINGS_FILE

BUCKET_FILE = "bucket.json"
"""In a search's folder: the bucket that has its checkpoints."""

FETCHED_WEIGHTS = ".best-weights.pth"
"""In a search's folder while it ends: the best weights, from the bucket."""

SECONDS_BETWEEN_COPIES = 60.0


@dataclass(frozen=True)
class BucketResults:
    """The folder of one search in a bucket: what its local folder holds, and Tune's state and checkpoints in `ray/`."""

    target: BucketAddress

    @property
    def uri(self) -> str:
        """`s3://BUCKET/PREFIX/NAME`."""
        return f"{self.target.scheme}://{self.target.path}"

    @property
    def path(self) -> str:
        """`BUCKET/PREFIX/NAME`, as pyarrow's filesystems have it."""
        return self.target.path

    @cached_property
    def store(self) -> Any:
        """The pyarrow filesystem. It holds no key: each process that it is sent to finds its own."""
        self.target.check()
        with self.doing("connecting"):
            return self.target.open_store()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Raise what goes wrong at the store as a `UserError`."""
        try:
            yield
        except OSError as error:  # pyarrow's only class for what goes wrong at a store
            raise UserError(f"{self.uri}: {what} failed: {scrub(str(error))}") from None

    @property
    def as_flags(self) -> str:
        """What a resume on another machine needs to be told."""
        query = "&".join(f"{name}={value}" for name, value in self.target.query.items())
        parent, name = self.uri.rsplit("/", 1)
        return f"--results {shlex.quote(f'{parent}?{query}' if query else parent)} --name {name}"

    def files(self, below: str = "", *, recursive: bool = True) -> list[PurePosixPath]:
        """The files in the folder `below`, seen from the search's own; none where there is no such folder."""
        from pyarrow import fs

        place = f"{self.path}/{below}".rstrip("/")
        selector = fs.FileSelector(place, allow_not_found=True, recursive=recursive)
        with self.doing("listing files"):
            found = [PurePosixPath(info.path) for info in self.store.get_file_info(selector) if info.is_file]
        return [path.relative_to(self.path) for path in found]

    def fetch(self, names: Iterable[PurePosixPath], folder: Path) -> None:
        """Copy files of the bucket into `folder`, each to the same place below it."""
        from pyarrow import fs

        for name in names:
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise UserError(f"{self.uri}/{name}: the name leads out of the folder.")
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.doing(f"fetching {name}"):
                fs.copy_files(f"{self.path}/{name}", str(target), source_filesystem=self.store, use_threads=False)

    def send(self, path: Path, name: str) -> None:
        """Copy one file to the bucket; a reader there sees the old one or all of the new one."""
        from pyarrow import fs

        with self.doing(f"sending {name}"):
            fs.copy_files(str(path), f"{self.path}/{name}", destination_filesystem=self.store, use_threads=False)

    def check_free(self) -> None:
        """Raise `UserError` when there is something under the name of a new search."""
        if self.files():
            name = PurePosixPath(self.path).name
            raise UserError(
                f"{self.uri} has files. Go on with that search by --resume --name {name}, or choose another --name."
            )

    def save_note(self, folder: Path) -> None:
        """Write into the search's folder where its checkpoints are, so that a resume needs its name alone."""
        note = {"uri": self.uri, "options": dict(self.target.query)}
        replace_text(folder / BUCKET_FILE, json.dumps(note, indent=2) + "\n")


@dataclass(frozen=True)
class _Note:
    uri: str
    options: dict[str, str]


def bucket_of_search(results: BucketAddress, name: str) -> BucketResults:
    """The folder of the search called `name` below `--results s3://BUCKET/PREFIX`."""
    return BucketResults(replace(results, path=f"{results.path}/{name}"))


def bucket_to_resume(results: BucketAddress | None, folder: Path, say: Callable[[str], None]) -> BucketResults | None:
    """The bucket of the search in `folder`, by its own note or by `--results`; None where it has none.

    Where the folder is not there, its files are fetched. Raises `UserError` where it is that of another search.
    """
    noted = _read_note(folder)
    if results is None:
        return noted
    given = bucket_of_search(results, folder.name)
    if not folder.exists():
        _fetch_folder(given, folder, say)
    elif noted is None or noted.uri != given.uri:
        where = f"has its checkpoints in {noted.uri}" if noted else "keeps its checkpoints there"
        raise UserError(
            f"{folder} is another search than {given.uri}: it {where}. Rename that folder, or start the command in "
            "another one, to fetch the files of the bucket."
        )
    return given


def _read_note(folder: Path) -> BucketResults | None:
    path = folder / BUCKET_FILE
    if not path.is_file():
        return None
    try:
        note = read_json(path, _Note)
        query = "&".join(f"{name}={value}" for name, value in note.options.items())
        return BucketResults(parse_address(f"{note.uri}?{query}", RetryPolicy()))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}). Remove it and say where by --results s3://…") from None


def _fetch_folder(bucket: BucketResults, folder: Path, say: Callable[[str], None]) -> None:
    # Tune's own files stay in the bucket.
    names = [name for name in bucket.files() if name.parts[0] != "ray"]
    if PurePosixPath(SETTINGS_FILE) not in names:
        raise UserError(f"{bucket.uri} is not the folder of a search: it lacks {SETTINGS_FILE}.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    bucket.fetch(names, partial)
    bucket.save_note(partial)
    partial.replace(folder)
    say(f"fetched  {len(names)} files of the search from {bucket.uri} to {folder}")


class BucketCopy:
    """Copies what changes in a search's folder to its bucket: the tables once a minute, everything at the end.

    As a context manager it lasts as long as the search. `exit_code` is not 0 where the last copy failed.
    """

    def __init__(self, bucket: BucketResults, folder: Path, say: Callable[[str], None]) -> None:
        self.exit_code = 0
        self._bucket = bucket
        self._folder = folder
        self._say = say
        self._copied: dict[Path, tuple[int, int]] = {}  # time of change in nanoseconds, size in bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._copy_now_and_then, name="bucket copy", daemon=True)

    def __enter__(self) -> BucketCopy:
        self._thread.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        (self._folder / FETCHED_WEIGHTS).unlink(missing_ok=True)
        if not (self._folder / BUCKET_FILE).is_file():
            return  # the search did not come as far as its own folder
        try:
            self._copy(self._folder.rglob("*"))
        except UserError as failure:
            self.exit_code = EXIT_NOT_PUBLISHED
            self._say(f"failed   {failure} All files of the search but its checkpoints are in {self._folder}.")
            return
        self._say(f"bucket   {self._bucket.uri}/, where any machine goes on by --resume {self._bucket.as_flags}")

    def _copy_now_and_then(self) -> None:
        failed = False
        while not self._ended.wait(SECONDS_BETWEEN_COPIES):
            try:
                # Not the folders below: W&B's runs and the like change all the time, and a resume needs none of them.
                self._copy(self._folder.glob("*"))
                failed = False
            except UserError as error:
                if not failed:
                    self._say(f"warning  {error} It is tried again every {SECONDS_BETWEEN_COPIES:.0f} s.")
                failed = True

    def _copy(self, paths: Iterable[Path]) -> None:
        for path in sorted(paths):
            parts = path.relative_to(self._folder).parts
            is_own = parts[0] == BUCKET_FILE or path.suffix == ".partial" or any(part[0] == "." for part in parts)
            if is_own or path.is_symlink() or not path.is_file():
                continue
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if self._copied.get(path) != version:
                self._bucket.send(path, "/".join(parts))
                self._copied[path] = version
