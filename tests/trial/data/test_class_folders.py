from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tune_cifar.errors import UserError
from tune_cifar.trial.data.class_folders import is_class_folders, load_class_folders


@pytest.fixture
def folder(tmp_path: Path, encode_image: Callable[..., bytes]) -> Path:
    """Classes cat and dog with 3 training and 2 test images each; image k of a class is made of seed k."""
    for part, num_images in (("train", 3), ("test", 2)):
        for class_name in ("dog", "cat"):
            (tmp_path / part / class_name).mkdir(parents=True)
            for number in range(num_images):
                path = tmp_path / part / class_name / f"{number}.PNG"
                path.write_bytes(encode_image(seed=number + 10 * (class_name == "dog")))
    return tmp_path


def test_classes_and_files_are_read_in_order_of_name(folder: Path) -> None:
    source = load_class_folders(folder)
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [0, 0, 1, 1]
    expected = np.random.default_rng(11).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(source.train.images[4], expected)


def test_hidden_and_other_files_are_left_alone(folder: Path) -> None:
    (folder / "train" / "cat" / "._0.png").write_bytes(b"no image")
    (folder / "train" / "cat" / "notes.txt").write_text("no image")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "list.csv").write_text("no class")
    assert len(load_class_folders(folder).train) == 6


def test_different_classes_are_named(folder: Path) -> None:
    (folder / "test" / "dog").rename(folder / "test" / "frog")
    with pytest.raises(UserError, match="only in train: dog\n  only in test: frog"):
        load_class_folders(folder)


def test_missing_part_is_named(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    assert is_class_folders(folder)
    with pytest.raises(UserError, match="folder test is missing"):
        load_class_folders(folder)


def test_part_without_classes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="train: there is no folder of a class"):
        load_class_folders(tmp_path)


def test_class_without_images_is_named(folder: Path) -> None:
    (folder / "train" / "bird").mkdir()
    (folder / "test" / "bird").mkdir()
    with pytest.raises(UserError, match="train/bird: there is no image in it"):
        load_class_folders(folder)


def test_what_is_no_file_is_named(folder: Path) -> None:
    os.mkfifo(folder / "test" / "dog" / "2.png")
    with pytest.raises(UserError, match=r"test/dog/2\.png: it has the name of an image and is no file"):
        load_class_folders(folder)


def test_unfit_image_is_named(folder: Path, encode_image: Callable[..., bytes]) -> None:
    (folder / "test" / "dog" / "1.PNG").write_bytes(encode_image(size=(64, 64)))
    with pytest.raises(UserError, match=r"test/dog/1\.PNG: .*it is 64x64"):
        load_class_folders(folder)
