from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pyarrow.fs
import pytest

from tests.disks import remount, small_disk
from tune_cifar.runner import whole_state
from tune_cifar.runner.given_up import GivenUpCheckpoints
from tune_cifar.runner.state_commit import finish_commit
from tune_cifar.runner.whole_state import WholeStateSyncer


@pytest.fixture
def syncer() -> WholeStateSyncer:
    return WholeStateSyncer(
        pyarrow.fs.LocalFileSystem(), sync_period=300, sync_timeout=1800, given_up=GivenUpCheckpoints()
    )


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Tune's local folder: its state, and a trial's log."""
    folder = tmp_path / "local"
    (folder / "trial-1").mkdir(parents=True)
    (folder / "experiment_state.json").write_text("state 1")
    (folder / "trial-1" / "result.json").write_text("1\n")
    return folder


def _sync(syncer: WholeStateSyncer, source: Path, target: Path) -> None:
    syncer.sync_up(str(source), str(target))
    syncer.wait()


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_everything_gets_there(syncer: WholeStateSyncer, local: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    _sync(syncer, local, target)
    assert _contents(target) == _contents(local)


def test_only_what_has_changed_is_copied_again(syncer: WholeStateSyncer, local: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    _sync(syncer, local, target)
    untouched = (target / "trial-1" / "result.json").stat().st_ino
    (local / "experiment_state.json").write_text("state 2")
    _sync(syncer, local, target)
    assert _contents(target) == _contents(local)
    assert (target / "trial-1" / "result.json").stat().st_ino == untouched


def test_a_full_disk_leaves_the_old_state_whole(syncer: WholeStateSyncer, local: Path) -> None:
    with small_disk(megabytes=1) as disk:
        target = disk / "ray"
        _sync(syncer, local, target)
        (local / "experiment_state.json").write_text("state 2")
        (local / "searcher.pkl").write_text("x" * 2_000_000)
        with pytest.raises(OSError, match="No space left"):
            _sync(syncer, local, target)
        assert _contents(target) == {"experiment_state.json": "state 1", "trial-1/result.json": "1\n"}
        assert syncer.error is not None
        assert (syncer.error.errno, syncer.folder) == (errno.ENOSPC, target)
        remount(disk, "size=4m")
        _sync(syncer, local, target)
        assert _contents(target) == _contents(local)


def test_a_read_only_disk_keeps_the_old_state(syncer: WholeStateSyncer, local: Path) -> None:
    with small_disk(megabytes=1) as disk:
        _sync(syncer, local, disk)
        before = _contents(disk)
        (local / "experiment_state.json").write_text("state 2")
        remount(disk, "ro")
        with pytest.raises(OSError, match="Read-only file system"):
            _sync(syncer, local, disk)
        assert _contents(disk) == before
        assert syncer.error is not None


def test_it_pickles_into_the_state_of_a_trial_without_what_it_knows(
    syncer: WholeStateSyncer, local: Path, tmp_path: Path
) -> None:
    _sync(syncer, local, tmp_path / "target")
    copy = pickle.loads(pickle.dumps(syncer))  # noqa: S301
    assert (copy.error, copy._copied, copy._current_cmd) == (None, {}, None)


def test_a_search_killed_while_it_renames_leaves_the_new_state(
    syncer: WholeStateSyncer, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    _sync(syncer, local, target)
    (local / "experiment_state.json").write_text("state 2")
    (local / "searcher.pkl").write_text("searcher 2")
    with monkeypatch.context() as patch:
        patch.setattr(whole_state, "finish_commit", lambda folder: None)
        _sync(syncer, local, target)
    assert (target / "experiment_state.json").read_text() == "state 1"
    finish_commit(target)
    assert _contents(target) == _contents(local)
