from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tune_cifar.errors import UserError
from tune_cifar.trial.data import load_dataset

if TYPE_CHECKING:
    from tests.trial.data.conftest import SmallRelease

REPOSITORY = Path(__file__).parents[3]
JPEG_CIFAR10 = Path(os.environ.get("TUNE_CIFAR_DATA") or REPOSITORY.parent / "shared" / "data" / "cifar10-jpeg")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.skipif(not JPEG_CIFAR10.is_dir(), reason="CIFAR-10 as parquet is missing; TUNE_CIFAR_DATA names it")
def test_real_cifar10_is_loaded_and_split() -> None:
    dataset = load_dataset(str(JPEG_CIFAR10))
    assert dataset.name == JPEG_CIFAR10.resolve().name
    assert dataset.class_names[:3] == ("airplane", "automobile", "bird")
    for split, per_class in ((dataset.train, 4500), (dataset.validation, 500), (dataset.test, 1000)):
        assert np.bincount(split.labels).tolist() == [per_class] * 10
        assert split.images.shape == (len(split), 32, 32, 3)
        assert split.images.flags.c_contiguous
    # The channels' means of the training images, 0.4914, 0.4822 and 0.4465, are in wide use (as in
    # https://github.com/kuangliu/pytorch-cifar); wrong channels or order would miss them.
    np.testing.assert_allclose(dataset.train.images.mean(axis=(0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=2e-3)


def test_digits_are_loaded_twice_alike_and_cut() -> None:
    whole, again, cut = load_dataset("digits"), load_dataset("digits"), load_dataset("digits", train_images=100)
    assert (whole.name, len(whole.train), len(whole.validation), len(whole.test)) == ("digits", 1294, 144, 359)
    assert whole.fingerprint == again.fingerprint == cut.fingerprint
    assert whole.fingerprint.startswith("sha256:")
    np.testing.assert_array_equal(whole.validation.images, cut.validation.images)
    assert len(cut.train) == 100


def test_folder_of_classes_has_its_own_name(
    tmp_path: Path, encode_image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pets"
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (folder / place).mkdir(parents=True)
        for number in range(2):
            (folder / place / f"{number}.png").write_bytes(encode_image(seed=number))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    datasets = [load_dataset(source) for source in (str(folder), ".", "~/pets", "../pets/")]
    assert {dataset.name for dataset in datasets} == {"pets"}
    assert len({dataset.fingerprint for dataset in datasets}) == 1


def test_official_files_are_checked(small_release: SmallRelease) -> None:
    for source in (small_release.folder, small_release.folder.parent):
        with pytest.raises(UserError, match="data_batch_1: corrupt"):
            load_dataset(str(source))


@pytest.mark.parametrize("source", ["", " ", "cifar-10", "no/such/folder", "a\0b"])
def test_unknown_source_names_the_known_ones(source: str) -> None:
    with pytest.raises(UserError, match=r"neither a known dataset \(cifar10, digits\) nor a folder(.|\n)*train/CLASS"):
        load_dataset(source)


def test_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"train\.parquet: data must be a folder, this is a file"):
        load_dataset(str(path))


def test_unknown_layout_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no known layout of data; found in it: nothing, it is empty"):
        load_dataset(str(tmp_path))
    for number in range(7):
        (tmp_path / f"{number}.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"found in it: 0\.npy, 1\.npy, 2\.npy, 3\.npy, 4\.npy, …\. Known"):
        load_dataset(str(tmp_path))


def test_unreadable_files_and_names_are_an_error(tmp_path: Path) -> None:
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "loop.png").symlink_to("loop.png")
    with pytest.raises(UserError, match=r"train/cat/loop\.png: cannot be used as data: Too many levels of symbolic"):
        load_dataset(str(tmp_path))
    with pytest.raises(UserError, match="cannot be used as data: File name too long"):
        load_dataset("x" * 5000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o000)
    with pytest.raises(UserError, match="Permission denied"):
        load_dataset(str(tmp_path / "closed"))


def test_unknown_home_is_an_error() -> None:
    with pytest.raises(UserError, match="home folder is not known"):
        load_dataset("~no-such-user-anywhere/data")


@pytest.mark.usefixtures("no_network")
def test_cache_folder_is_taken_from_argument_environment_and_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TUNE_CIFAR_CACHE", raising=False)
    with pytest.raises(UserError, match=f"CIFAR-10 is not in {tmp_path}/home/.cache/tune_cifar and could not be"):
        load_dataset("cifar10")
    monkeypatch.setenv("TUNE_CIFAR_CACHE", str(tmp_path / "variable"))
    with pytest.raises(UserError, match=f"CIFAR-10 is not in {tmp_path}/variable and"):
        load_dataset("cifar10")
    with pytest.raises(UserError, match=f"CIFAR-10 is not in {tmp_path}/argument and"):
        load_dataset("cifar10", cache_folder=tmp_path / "argument")


def test_cache_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file/cache: cannot be used as data: Not a directory"):
        load_dataset("cifar10", cache_folder=tmp_path / "file" / "cache")
