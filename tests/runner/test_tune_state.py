from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tune_cifar.errors import UserError
from tune_cifar.results import TrialRecord
from tune_cifar.runner.tune_state import DamagedStateError, check_state, choose_start, note_versions, set_aside
from tune_cifar.trials_file import save_trials

FILES = (
    "experiment_state-2026-01-02_03-04-05.json",
    "searcher-state-2026-01-02_03-04-05.pkl",
    "search_gen_state-2026-01-02_03-04-05.json",
    "callback-states-2026-01-02_03-04-05.pkl",
    "tuner.pkl",
    "versions.json",
)


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """The folder of a search with one epoch of one trial, and with files of the form that Tune's state has."""
    ray = tmp_path / "ray"
    note_versions(ray)
    trial = [json.dumps({"trial_id": "t", "config": {}, "status": "RUNNING"}), json.dumps({"last_result": {}})]
    (ray / FILES[0]).write_text(json.dumps({"trial_data": [trial], "runner_data": {"_session_str": "s"}}))
    for name in FILES[1:5]:
        (ray / name).write_bytes(pickle.dumps({"values": list(range(50)), "name": "x" * 300}, protocol=5))
    row = {"epoch": 1, "val_loss": 1.0, "val_accuracy": 0.5, "logged": [1.0], "reported_at": 1.0}
    save_trials(tmp_path, [TrialRecord(1, "t", {}, "running", [{**row, "epoch_runtime (seconds)": 1.0}])], "running")
    return tmp_path


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _flip_first(content: bytes) -> bytes:
    return bytes([content[0] ^ 0xFF]) + content[1:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "is empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-2],
    "flipped": _flip_first,
    "zeros": lambda content: bytes(len(content)),
    "longer": lambda content: content + b"}.",
}


def test_a_whole_state_is_restored(search: Path) -> None:
    check_state(search / "ray")
    assert choose_start(search, rebuild=False) == "restore"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_nothing_is_changed(search: Path, name: str, damage: str) -> None:
    path = search / "ray" / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    before = _contents(search)
    with pytest.raises(UserError, match="--resume --rebuild") as caught:
        choose_start(search, rebuild=False)
    assert str(path) in str(caught.value)
    assert _contents(search) == before


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(search: Path, name: str) -> None:
    (search / "ray" / name).unlink()
    with pytest.raises(DamagedStateError, match=f"{name.partition('-2026')[0]}.* is missing"):
        check_state(search / "ray")


@pytest.mark.parametrize("package", ["ray", "tune_cifar", "optuna", "python"])
def test_a_state_of_another_version_is_not_taken_up(search: Path, package: str) -> None:
    path = search / "ray" / "versions.json"
    versions = json.loads(path.read_text())
    path.write_text(json.dumps({**versions, package: "0.0.1"}))
    with pytest.raises(UserError, match=rf"was written by {package} 0\.0\.1, not {versions[package]}"):
        choose_start(search, rebuild=False)


def test_a_state_that_is_gone_as_a_whole_is_told(search: Path) -> None:
    for path in (search / "ray").iterdir():
        path.unlink()
    (search / "ray").rmdir()
    with pytest.raises(UserError, match="is gone"):
        choose_start(search, rebuild=False)
    assert choose_start(search, rebuild=True) == "rebuild"


@pytest.mark.parametrize("rebuild", [True, False])
def test_where_nothing_was_trained_the_search_begins_anew(search: Path, rebuild: bool) -> None:
    (search / "ray" / FILES[1]).unlink()
    save_trials(search, [TrialRecord(1, "t", {}, "running")], "running")
    assert choose_start(search, rebuild=rebuild) == "new"
    (search / "trials.json").unlink()
    assert choose_start(search, rebuild=rebuild) == "new"
    (search / "trials.json").write_text("damaged")
    if rebuild:
        assert choose_start(search, rebuild=True) == "rebuild"
    else:
        with pytest.raises(UserError, match="searcher-state"):
            choose_start(search, rebuild=False)


def test_what_is_set_aside_stays_and_trials_stay_in_place(search: Path) -> None:
    ray = search / "ray"
    (ray / "trial-t").mkdir()
    names = {path.name for path in ray.iterdir()}
    first = set_aside(ray)
    note_versions(ray)
    second = set_aside(ray)
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("old-state-1", "old-state-2")
    assert {path.name for path in first.iterdir()} == names - {"trial-t"}
    assert {path.name for path in ray.iterdir()} == {"trial-t", "old-state-1", "old-state-2"}
    assert set_aside(ray) is None
    assert set_aside(search / "nowhere") is None
