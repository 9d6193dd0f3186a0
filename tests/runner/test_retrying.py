"""Searches whose trials fail, on a Ray with two cores and one GPU that is only a number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.runner.stub_trials import StubSearch, run_stub_search
from tests.tracking.wandb_helpers import read_run
from tune_cifar.report.tables import write_trials
from tune_cifar.runner.resources import TrialSlots
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric
from tune_cifar.tracking.wandb_callback import SearchWandbCallback


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def ray_with_a_gpu(patch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RAY_AUTH_MODE", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_USAGE_STATS_ENABLED"):
        patch.setenv(name, "disabled" if name == "RAY_AUTH_MODE" else "0")
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 100 << 20}
    ray.init(address="local", num_cpus=2, num_gpus=1, **options)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def mixed(
    ray_with_a_gpu: None, tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch
) -> tuple[StubSearch, Path]:
    """One search of five trials; the one with seed 1 meets nothing."""
    folder = tmp_path_factory.mktemp("mixed")

    def befall(seed: int, attempt: int, epoch: int) -> None:
        import os
        import signal

        from tune_cifar.errors import UserError

        if seed == 2 and attempt == 1 and epoch == 2:
            raise RuntimeError("flaky\nand more of it")
        if seed == 3 and epoch == 2:
            raise RuntimeError(f"always the same, but for the {attempt}")
        if seed == 4 and epoch == 0:
            raise UserError("no such images. Give others.")
        if seed == 5 and attempt == 1 and epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    def callbacks(log: SearchLog) -> list[Any]:
        names: dict[str, Any] = {"project": "p", "group": "g", "metric": "val_loss", "goal": "minimize"}
        return [SearchWandbCallback(folder=folder, mode="offline", log=log, **names)]

    slots = TrialSlots(1.0, 0.0, 2, "")
    return run_stub_search(folder, befall, patch, slots=slots, num_trials=5, callbacks=callbacks), folder


def test_an_exception_is_retried_from_the_checkpoint(mixed: tuple[StubSearch, Path]) -> None:
    search, _ = mixed
    trial = search.trial(2)
    assert (trial.status, trial.failures, trial.message) == ("finished", 1, "")
    assert [row["epoch"] for row in trial.epochs] == [1, 2, 3]
    assert [attempt["last_epoch"] for attempt in search.attempts[2]] == [0, 1]
    assert f"retry    trial {trial.number}: RuntimeError: flaky; attempt 2 of 3, from epoch 2" in search.lines


def test_a_killed_process_is_retried_from_the_checkpoint(mixed: tuple[StubSearch, Path]) -> None:
    search, _ = mixed
    trial = search.trial(5)
    assert (trial.status, trial.failures) == ("finished", 1)
    assert [row["epoch"] for row in trial.epochs] == [1, 2, 3]
    assert [attempt["last_epoch"] for attempt in search.attempts[5]] == [0, 2]
    (line,) = [line for line in search.lines if line.startswith(f"retry    trial {trial.number}: ")]
    assert "killed or crashed" in line
    assert line.endswith("; attempt 2 of 3, from epoch 3")


def test_what_fails_twice_in_the_same_way_is_given_up(mixed: tuple[StubSearch, Path]) -> None:
    search, _ = mixed
    trial = search.trial(3)
    assert (trial.status, trial.failures, len(search.attempts[3])) == ("failed", 2, 2)
    assert (
        trial.message
        == "RuntimeError: always the same, but for the 2; the same twice after epoch 1, so not tried again"
    )


def test_a_users_mistake_is_not_retried(mixed: tuple[StubSearch, Path]) -> None:
    search, _ = mixed
    trial = search.trial(4)
    assert (trial.status, trial.failures, len(search.attempts[4])) == ("failed", 1, 1)
    assert trial.message == "no such images. Give others; not tried again before that is mended"


def test_the_search_goes_on_with_the_other_trials(mixed: tuple[StubSearch, Path]) -> None:
    search, folder = mixed
    assert not search.outcome.interrupted
    assert not search.outcome.stopped_because
    assert search.trial(1).failures == 0
    assert search.outcome.best is search.trial(1)
    assert len(search.lines) == 3
    table = write_trials(folder, search.outcome.trials, Metric("val_loss")).read_text().splitlines()
    column = table[0].split(",").index("failures")
    assert sorted(row.split(",")[column] for row in table[1:]) == ["0", "1", "1", "1", "2"]


def test_wandb_histories_have_no_gap_and_no_double_step(mixed: tuple[StubSearch, Path]) -> None:
    search, folder = mixed
    runs = [read_run(path) for path in folder.glob("wandb/*/run-*.wandb")]
    assert len(runs) == 5  # also a trial with several attempts has one
    by_seed = {int(run.config["seed"]): run for run in runs}
    for seed in (1, 2, 5):
        assert by_seed[seed].exit_code == 0
        assert sorted(by_seed[seed].rows) == [1, 2, 3, 4, 5, 6]
        losses = [row["val_loss"] for _, row in sorted(by_seed[seed].rows.items()) if "val_loss" in row]
        assert losses == [seed + 1 / epoch for epoch in (1, 2, 3)]
    assert by_seed[3].exit_code == 1
    assert by_seed[3].summary["message"] == search.trial(3).message


def test_a_trial_out_of_gpu_memory_is_retried_with_a_gpu_to_itself(
    ray_with_a_gpu: None, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    def befall(seed: int, attempt: int, epoch: int) -> None:
        if epoch == 2 and (seed == 3 or (seed == 1 and attempt == 1)):
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    slots = TrialSlots(1.0, 0.5, 2, "")
    search = run_stub_search(tmp_path, befall, patch, slots=slots, num_trials=4, epoch_seconds=0.3)
    cured, hopeless = search.trial(1), search.trial(3)
    assert [search.trial(seed).status for seed in (1, 2, 3, 4)] == ["finished", "finished", "failed", "finished"]
    assert (cured.failures, hopeless.failures) == (1, 2)
    cause = "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"
    assert f"retry    trial {cured.number}: {cause}; attempt 2 of 3, alone on a GPU, from epoch 2" in search.lines
    assert hopeless.message == f"{cause}; it had the GPU to itself: choose a smaller batch_size"
    for seed in (1, 3):
        alone = search.attempts[seed][1]
        others = [one for attempts in search.attempts.values() for one in attempts if one != alone]
        assert all(one["end"] <= alone["start"] or one["start"] >= alone["end"] for one in others)


@pytest.mark.parametrize("loss", ["killed", "raises"])
def test_a_process_lost_between_two_trials_costs_the_next_one_an_attempt(
    ray_with_a_gpu: None, tmp_path: Path, patch: pytest.MonkeyPatch, loss: str
) -> None:
    """The first trial leaves a process that does not survive its reset for the second one."""

    def befall(seed: int, attempt: int, epoch: int) -> None:
        if seed == 1 and epoch == 3:
            import os

            from ray.train._internal.session import _TrainSession

            def reset(*_: Any, **__: Any) -> bool:
                if loss == "raises":
                    raise RuntimeError("no reset")
                os._exit(1)

            _TrainSession.finish = reset  # a reset begins with it

    slots = TrialSlots(2.0, 0.0, 1, "")
    search = run_stub_search(tmp_path, befall, patch, slots=slots, num_trials=3)
    assert [search.trial(seed).status for seed in (1, 2, 3)] == ["finished", "finished", "finished"]
    assert [search.trial(seed).failures for seed in (1, 2, 3)] == [0, 1, 0]
    assert [len(search.attempts[seed]) for seed in (1, 2, 3)] == [1, 1, 1]
    (line,) = search.lines
    cause = "the trial's process was killed or crashed" if loss == "killed" else "RuntimeError: no reset"
    assert line.startswith(f"retry    trial 2: {cause}")
    assert line.endswith("; attempt 2 of 3, from the beginning")
