from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.results import TrialRecord
from tune_cifar.runner import trials_writer
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.runner.trials_writer import TrialsWriter
from tune_cifar.trials_file import TRIALS_JSON, load_trials


@pytest.fixture
def log() -> SearchLog:
    log = SearchLog("val_loss")
    log.trials["t1"] = TrialRecord(1, "t1", {"lr": 0.1}, "running")
    return log


def test_a_change_is_written_after_the_step_and_an_idle_step_writes_nothing(tmp_path: Path, log: SearchLog) -> None:
    writer = TrialsWriter(log, tmp_path)
    writer.on_step_end()
    assert not (tmp_path / TRIALS_JSON).exists()
    writer.on_trial_start()
    assert not (tmp_path / TRIALS_JSON).exists()
    writer.on_step_end()
    saved = load_trials(tmp_path)
    assert saved is not None
    assert (saved.state, list(saved.trials)) == ("running", list(log.trials.values()))


@pytest.mark.parametrize("event", ["on_trial_start", "on_trial_result", "on_trial_recover"])
def test_changes_in_quick_succession_are_written_once_and_the_last_one_too(
    tmp_path: Path, log: SearchLog, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    now = 100.0
    monkeypatch.setattr(trials_writer.time, "monotonic", lambda: now)
    writer = TrialsWriter(log, tmp_path)
    writer.on_trial_start()
    writer.on_step_end()
    log.trials["t1"].status = "finished"
    getattr(writer, event)()
    now += trials_writer.MIN_SECONDS_BETWEEN - 0.1
    writer.on_step_end()
    assert _status(tmp_path) == "running"
    now += 0.2
    writer.on_step_end()
    assert _status(tmp_path) == "finished"


@pytest.mark.parametrize("event", ["on_trial_complete", "on_trial_error"])
def test_the_end_of_a_trial_is_written_at_once_unless_that_takes_long(
    tmp_path: Path, log: SearchLog, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    now = 100.0
    save = trials_writer.save_trials

    def save_slowly(*arguments: Any) -> None:
        nonlocal now
        save(*arguments)
        now += 0.5

    monkeypatch.setattr(trials_writer, "save_trials", save_slowly)
    monkeypatch.setattr(trials_writer.time, "monotonic", lambda: now)
    writer = TrialsWriter(log, tmp_path)
    for status, wait_seconds in (("stopped", 0.0), ("failed", 1.9), ("finished", 0.2)):
        now += wait_seconds
        log.trials["t1"].status = status
        getattr(writer, event)()
        writer.on_step_end()
        assert _status(tmp_path) == ("stopped" if status == "failed" else status)


def _status(folder: Path) -> str:
    saved = load_trials(folder)
    assert saved is not None
    return saved.trials[0].status


def test_tunes_snapshots_do_not_keep_the_writer(tmp_path: Path, log: SearchLog) -> None:
    assert str(tmp_path).encode() not in pickle.dumps(TrialsWriter(log, tmp_path))
