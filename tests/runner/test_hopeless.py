from __future__ import annotations

from pathlib import Path

import pytest

from tune_cifar.results import Status, TrialRecord
from tune_cifar.runner.failures import Failure
from tune_cifar.runner.hopeless import FirstTrials, starts_over
from tune_cifar.trials_file import State, save_trials

EPOCH = {"epoch": 1, "val_loss": 1.0, "val_accuracy": 0.5, "logged": [1.0], "epoch_runtime (seconds)": 1.0}


def _trials(number: int) -> dict[str, TrialRecord]:
    return {f"t{one}": TrialRecord(one, f"t{one}", {"lr": 0.1}, "running") for one in range(1, number + 1)}


def _failure(cause: str = "CUDA error 802 of 10") -> Failure:
    return Failure("exception", cause, 0)


@pytest.mark.parametrize(
    ("num_trials", "trials_at_once", "needed"), [(10, 1, 3), (10, 2, 3), (10, 8, 8), (2, 1, 2), (1, 4, 1)]
)
def test_as_many_trials_as_run_at_once_and_three_at_least_must_fail(
    num_trials: int, trials_at_once: int, needed: int
) -> None:
    first, trials = FirstTrials(num_trials, trials_at_once), _trials(num_trials)
    for number in range(1, needed + 1):
        assert not first.all_fail_alike(trials)
        first.failed(f"t{number}", _failure(f"CUDA error 802 of {number}"))
    assert first.all_fail_alike(trials)


def test_different_causes_or_an_epoch_or_a_trial_that_runs_are_hope() -> None:
    first, trials = FirstTrials(10, 1), _trials(4)
    for trial_id in ("t1", "t2", "t4"):
        first.failed(trial_id, _failure())
    assert not first.all_fail_alike(trials)  # the third still runs
    first.failed("t3", _failure("another"))
    assert not first.all_fail_alike(trials)
    first.failed("t3", _failure())
    assert first.all_fail_alike(trials)
    trials["t4"].add_epoch(EPOCH)
    assert not first.all_fail_alike(trials)


def _saved(folder: Path, state: State, status: Status, failures: int, epochs: int = 0) -> bool:
    trial = TrialRecord(1, "t1", {"lr": 0.1}, status, [{**EPOCH, "reported_at": 1.0}] * epochs, failures=failures)
    save_trials(folder, [trial], state)
    return starts_over(folder)


def test_a_search_that_could_not_work_starts_over(tmp_path: Path) -> None:
    assert _saved(tmp_path, "interrupted", "failed", failures=1)


def test_what_was_trained_is_kept(tmp_path: Path) -> None:
    assert not _saved(tmp_path, "interrupted", "failed", failures=1, epochs=1)
    assert not _saved(tmp_path, "interrupted", "waiting", failures=0)
    assert not _saved(tmp_path, "complete", "failed", failures=3)


def test_without_trials_to_read_it_does_not_start_over(tmp_path: Path) -> None:
    assert not starts_over(tmp_path)
    (tmp_path / "trials.json").write_text("{")
    assert not starts_over(tmp_path)
