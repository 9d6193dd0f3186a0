"""A checkpoint that Tune gives up is there until a state that does not name it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
import pytest
from ray import tune
from ray.train._internal.checkpoint_manager import _CheckpointManager
from ray.train._internal.session import _TrainingResult

from tune_cifar.runner.bucket_syncer import BucketSyncer
from tune_cifar.runner.given_up import GivenUpCheckpoints
from tune_cifar.runner.whole_state import WholeStateSyncer

LOCAL = pyarrow.fs.LocalFileSystem()


@pytest.fixture
def given_up() -> GivenUpCheckpoints:
    return GivenUpCheckpoints()


@pytest.fixture(params=["folder", "bucket"])
def syncer(request: pytest.FixtureRequest, given_up: GivenUpCheckpoints) -> Any:
    if request.param == "folder":
        return WholeStateSyncer(LOCAL, sync_period=300, sync_timeout=1800, given_up=given_up)
    periods = SimpleNamespace(sync_period=300, sync_timeout=1800)
    return BucketSyncer(SimpleNamespace(syncer=periods, storage_filesystem=LOCAL), lambda line: None, given_up)  # type: ignore[arg-type]


@pytest.fixture
def register(tmp_path: Path) -> Callable[[int, float], Path]:
    """Tune's own bookkeeping of a trial, of which it keeps the best checkpoint and the last."""
    config = tune.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="loss", checkpoint_score_order="min")
    manager = _CheckpointManager(config)

    def new(number: int, loss: float) -> Path:
        folder = tmp_path / "trial" / f"checkpoint_{number}"
        folder.mkdir(parents=True)
        manager.register_checkpoint(_TrainingResult(tune.Checkpoint(str(folder), LOCAL), {"loss": loss}))
        return folder

    return new


@pytest.fixture
def local(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "experiment_state.json").write_text("1")
    return folder


def test_it_is_deleted_once_the_next_state_is_written(
    syncer: Any, given_up: GivenUpCheckpoints, register: Callable[[int, float], Path], local: Path, tmp_path: Path
) -> None:
    (tmp_path / "ray").mkdir()  # which a bucket does not need
    with given_up.kept():
        first = register(1, 3.0)
        second = register(2, 2.0)
        assert first.exists()
        syncer.sync_up(str(local), str(tmp_path / "ray"))
        third = register(3, 1.0)  # while that is written
        syncer.wait()
        assert (first.exists(), second.exists(), third.exists()) == (False, True, True)
        syncer.sync_up(str(local), str(tmp_path / "ray"))
        syncer.wait()
    assert (second.exists(), third.exists()) == (False, True)


def test_it_stays_while_no_state_can_be_written(
    syncer: Any, given_up: GivenUpCheckpoints, register: Callable[[int, float], Path], local: Path, tmp_path: Path
) -> None:
    (tmp_path / "ray").write_text("in the way")
    with given_up.kept():
        first = register(1, 2.0)
        register(2, 1.0)
        syncer.sync_up(str(local), str(tmp_path / "ray"))
        with pytest.raises(OSError, match="ray"):
            syncer.wait()
        assert first.exists()
        (tmp_path / "ray").unlink()
        (tmp_path / "ray").mkdir()
        syncer.sync_up(str(local), str(tmp_path / "ray"))
        syncer.wait()
    assert not first.exists()


def test_tune_deletes_again_by_itself_after_the_search(
    given_up: GivenUpCheckpoints, register: Callable[[int, float], Path]
) -> None:
    with given_up.kept():
        pass
    first = register(1, 2.0)
    register(2, 1.0)
    assert not first.exists()
