from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
import torch

from tests.disks import small_disk
from tune_cifar.files import describe_disk_error, disk_error, move_into_place, replace_text, replacing


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    replace_text(path, "old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_breaks_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    replace_text(path, "old")
    with contextlib.suppress(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_keeps_its_line_ends_and_is_utf8(tmp_path: Path) -> None:
    replace_text(tmp_path / "page", "ä\r\nb\n")
    assert (tmp_path / "page").read_bytes() == b"\xc3\xa4\r\nb\n"


def test_a_folder_is_moved_with_all_its_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("1")
    move_into_place(source, tmp_path / "target")
    assert (tmp_path / "target" / "a").read_text() == "1"
    assert not source.exists()


def test_a_full_disk_leaves_the_old_file() -> None:
    with small_disk(megabytes=1) as disk:
        path = disk / "file.json"
        replace_text(path, "old")
        with pytest.raises(OSError, match="No space left") as caught:
            replace_text(path, "x" * 2_000_000)
        assert path.read_text() == "old"
        assert list(disk.iterdir()) == [path]
        error = disk_error(caught.value)
        assert error is not None
        assert "No space left on device" in describe_disk_error(error, disk)
        assert "MB of 1 MB are free there" in describe_disk_error(error, disk)


def test_the_disk_is_found_behind_the_error_of_a_library() -> None:
    with small_disk(megabytes=1) as disk, (disk / "x.pth").open("wb") as file:
        with pytest.raises(RuntimeError) as caught:
            torch.save({"w": torch.zeros(1_000_000)}, file)
        error = disk_error(caught.value)
    assert error is not None
    assert error.errno == errno.ENOSPC


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no"), ValueError("no"), OSError("no number")])
def test_other_errors_are_not_the_disks(error: Exception) -> None:
    assert disk_error(error) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_errors_of_the_disk_are_known(code: int) -> None:
    error = OSError(code, os.strerror(code))
    assert disk_error(error) is error
