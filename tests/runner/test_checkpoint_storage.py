from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
import torch
from ray import tune

from tests.disks import small_disk
from tune_cifar.files import disk_error
from tune_cifar.runner.checkpoint_storage import CheckpointStorage
from tune_cifar.trial.checkpoint import TrainedTensors, load_checkpoint, write_progress


class Storage:
    """Ray's StorageContext of one trial, as far as it is used."""

    def __init__(self, folder: Path) -> None:
        self.trial_fs_path = str(folder / "trial-1")
        self.checkpoint_fs_path = str(folder / "trial-1" / "checkpoint_000000")
        self.storage_filesystem = pyarrow.fs.LocalFileSystem()
        self.persist_current_checkpoint: Any = None

    def _check_validation_file(self) -> None:
        pass


def _tensors(value: float, num_weights: int = 3) -> TrainedTensors:
    return TrainedTensors({"w": torch.full((num_weights,), value)})


def _report(storage: Storage, checkpoints: CheckpointStorage, tensors: TrainedTensors) -> tune.Checkpoint:
    with checkpoints.new_checkpoint() as folder:
        tensors.write(folder)
        write_progress({"epochs_done": 1}, folder)
        stored = storage.persist_current_checkpoint(tune.Checkpoint.from_directory(folder))
    assert isinstance(stored, tune.Checkpoint)
    return stored


def test_a_checkpoint_is_renamed_into_its_place(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    stored = _report(storage, CheckpointStorage(storage), _tensors(1.0))
    assert stored.path == storage.checkpoint_fs_path
    assert torch.equal(load_checkpoint(Path(stored.path)).tensors.weights["w"], torch.full((3,), 1.0))
    assert [path.name for path in Path(storage.trial_fs_path).iterdir()] == ["checkpoint_000000"]
    assert Path(stored.path).stat().st_mode & 0o777 == 0o755


def test_one_that_was_reported_but_not_noted_is_replaced(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    checkpoints = CheckpointStorage(storage)
    _report(storage, checkpoints, _tensors(1.0))
    stored = _report(storage, checkpoints, _tensors(2.0))
    assert torch.equal(load_checkpoint(Path(stored.path)).tensors.weights["w"], torch.full((3,), 2.0))


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    left = tmp_path / "trial-1" / ".checkpoint-half"
    left.mkdir(parents=True)
    (left / "model.pth").write_text("half")
    CheckpointStorage(storage)
    assert not left.exists()


def test_a_full_disk_leaves_no_part_of_a_checkpoint() -> None:
    with small_disk(megabytes=4) as disk:
        storage = Storage(disk)
        checkpoints = CheckpointStorage(storage)
        with pytest.raises((OSError, RuntimeError)) as caught:
            _report(storage, checkpoints, _tensors(1.0, num_weights=2_000_000))
        error = disk_error(caught.value)
        assert error is not None
        assert error.errno == errno.ENOSPC
        assert list(Path(storage.trial_fs_path).iterdir()) == []
