from __future__ import annotations

import os
import platform
import resource
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.publish.conftest import NAME
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.folder_target import FolderTarget, holds_bundle
from tune_cifar.publish.retry import PublishError


def _target(folder: Path) -> FolderTarget:
    return FolderTarget(str(folder), folder)


def _publish(folder: Path, bundle: Bundle, *, again: bool = False) -> bool:
    receipt = _target(folder).publish(bundle, again=again, recorded=None, say=lambda line: None)
    assert receipt.uri == (folder / NAME).as_uri()
    return receipt.existed


def test_the_whole_model_arrives_and_nothing_else(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "models" / "ours"
    assert not _publish(folder, bundle)
    assert holds_bundle(folder / NAME, bundle)
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_a_second_time_writes_nothing(tmp_path: Path, bundle: Bundle) -> None:
    _publish(tmp_path / "models", bundle)
    before = (tmp_path / "models" / NAME / "manifest.json").stat()
    assert _publish(tmp_path / "models", bundle)
    assert (tmp_path / "models" / NAME / "manifest.json").stat() == before
    assert not _publish(tmp_path / "models", bundle, again=True)
    assert (tmp_path / "models" / NAME / "manifest.json").stat().st_ino != before.st_ino


def test_another_model_of_that_name_is_kept(tmp_path: Path, bundle: Bundle) -> None:
    place = tmp_path / "models" / NAME
    place.mkdir(parents=True)
    (place / f"{NAME}.pth").write_text("precious")
    with pytest.raises(PublishError, match="--again replaces it"):
        _publish(tmp_path / "models", bundle)
    assert (place / f"{NAME}.pth").read_text() == "precious"
    assert [path.name for path in (tmp_path / "models").iterdir()] == [NAME]
    assert not _publish(tmp_path / "models", bundle, again=True)
    assert holds_bundle(place, bundle)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [NAME]


def test_a_failure_leaves_nothing(tmp_path: Path, bundle: Bundle) -> None:
    gone = replace(bundle.files[1], path=tmp_path / "gone.safetensors")
    broken = replace(bundle, files=(bundle.files[0], gone, *bundle.files[2:]))
    with pytest.raises(PublishError, match=r"gone\.safetensors: No such file"):
        _publish(tmp_path / "models", broken)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, resnet_bundle: Bundle) -> None:
    # A limit on the size of files fails in the middle of one, as a full disk does.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, hard))
    try:
        with pytest.raises(PublishError, match="File too large"):
            _publish(tmp_path / "models", resnet_bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "models").iterdir()) == []


def test_what_a_killed_publish_left_is_taken_away(tmp_path: Path, bundle: Bundle) -> None:
    folder = tmp_path / "models"
    killed = subprocess.Popen(["true"])
    killed.wait()
    left, *others = (
        folder / f".{NAME}.partial-{owner}"
        for owner in (f"{platform.node()}-{killed.pid}", f"{platform.node()}-{os.getppid()}", f"other-{killed.pid}")
    )
    for place in (left, *others):
        place.mkdir(parents=True)
        (place / f"{NAME}.pth").write_text("half")
    _publish(folder, bundle)
    assert set(folder.iterdir()) == {folder / NAME, *others}  # what a living process or another machine writes is kept


def test_what_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        _target(tmp_path / "file" / "models").check()
    _target(tmp_path / "not" / "yet" / "there").check()
