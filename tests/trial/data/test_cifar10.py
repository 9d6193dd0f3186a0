from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tune_cifar.errors import UserError
from tune_cifar.trial.data.cifar10 import OFFICIAL_RELEASE, find_cifar10_folder, load_cifar10_folder

if TYPE_CHECKING:
    from tests.trial.data.conftest import SmallRelease


def test_official_release_is_complete() -> None:
    # The checksum that https://www.cs.toronto.edu/~kriz/cifar.html gives for the Python version.
    assert OFFICIAL_RELEASE.archive_md5 == "c58f30108f718f92721af3b95e74349a"
    assert list(OFFICIAL_RELEASE.train_md5) == [f"data_batch_{number}" for number in range(1, 6)]
    assert list(OFFICIAL_RELEASE.test_md5) == ["test_batch"]


def test_batches_are_read_in_order(small_release: SmallRelease) -> None:
    source = load_cifar10_folder(small_release.folder, small_release.release)
    assert source.class_names == ("cat", "dog")
    np.testing.assert_array_equal(source.train.images, small_release.train_images)
    assert source.train.labels.tolist() == small_release.train_labels
    assert source.train.images.flags.c_contiguous
    assert (source.train.images.dtype, source.train.labels.dtype) == (np.uint8, np.int64)
    assert len(source.test) == 6


def test_every_bad_file_is_named(small_release: SmallRelease) -> None:
    folder = small_release.folder
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").write_bytes(b"cut")
    (folder / "batches.meta").unlink()
    (folder / "batches.meta").mkdir()
    with pytest.raises(UserError) as caught:
        load_cifar10_folder(folder, small_release.release)
    message = str(caught.value)
    assert "data_batch_2: missing" in message
    assert f"test_batch: corrupt, its md5 is {hashlib.md5(b'cut', usedforsecurity=False).hexdigest()}" in message
    assert "batches.meta: not a file" in message
    assert "data_batch_1" not in message


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_unchecked_bytes_are_never_unpickled(small_release: SmallRelease, tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    (small_release.folder / "data_batch_3").write_bytes(trap)
    with pytest.raises(UserError, match="data_batch_3: corrupt"):
        load_cifar10_folder(small_release.folder, small_release.release)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)  # noqa: S301 - the trap would have sprung
    assert (tmp_path / "sprung").exists()


def test_folder_is_found_by_itself_by_its_parent_and_renamed(small_release: SmallRelease) -> None:
    folder = small_release.folder
    assert find_cifar10_folder(folder) == folder
    assert find_cifar10_folder(folder.parent) == folder
    renamed = folder.rename(folder.with_name("renamed"))
    assert find_cifar10_folder(renamed) == renamed
    assert find_cifar10_folder(renamed.parent) is None
