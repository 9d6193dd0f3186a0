"""All files of a state take their places, or none: also where a process is killed at any moment in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow.fs import FileSystem, LocalFileSystem

from tune_cifar.runner.state_commit import (
    COMMIT_FILE,
    begin_commit,
    begin_commit_in,
    finish_commit,
    finish_commit_in,
    partial_of,
)

NAMES = ("experiment.json", "searcher.pkl", "trial-1/result.json")

Commit = tuple[Callable[[Path], None], Callable[[Path], None]]


def _in_store(folder: Path) -> tuple[FileSystem, str]:
    return LocalFileSystem(), str(folder)


LOCAL: Commit = (lambda folder: begin_commit(folder, NAMES), finish_commit)
STORE: Commit = (
    lambda folder: begin_commit_in(*_in_store(folder), NAMES),
    lambda folder: finish_commit_in(*_in_store(folder)),
)


@pytest.fixture(params=[LOCAL, STORE], ids=["folder", "bucket"])
def commit(request: pytest.FixtureRequest) -> Commit:
    both: Commit = request.param
    return both


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An old state, and a new one beside it."""
    (tmp_path / "trial-1").mkdir()
    for name in NAMES:
        (tmp_path / name).write_text("old")
        partial_of(tmp_path / name).write_text("new")
    return tmp_path


def _state(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in NAMES}


def test_without_a_commit_the_old_state_stays(folder: Path, commit: Commit) -> None:
    _, finish = commit
    finish(folder)
    assert _state(folder) == {"old"}


def test_a_commit_puts_every_file_into_its_place(folder: Path, commit: Commit) -> None:
    begin, finish = commit
    begin(folder)
    finish(folder)
    assert _state(folder) == {"new"}
    assert sorted(path.name for path in folder.rglob(".*")) == []


@pytest.mark.parametrize("num_done", range(len(NAMES) + 1))
def test_a_commit_that_was_cut_off_is_finished(folder: Path, commit: Commit, num_done: int) -> None:
    begin, finish = commit
    begin(folder)
    for name in NAMES[:num_done]:
        partial_of(folder / name).replace(folder / name)
    finish(folder)
    assert _state(folder) == {"new"}
    finish(folder)
    assert not (folder / COMMIT_FILE).exists()
