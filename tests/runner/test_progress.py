from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping

import pytest
import ray

from tune_cifar.runner.progress import ProgressBoard, ProgressThread
from tune_cifar.trial.progress import EpochProgress


class Training:
    """A trial's side: counts how often it is asked where it is."""

    def __init__(self) -> None:
        self.share = 0.0
        self.num_questions = 0

    def progress(self) -> EpochProgress:
        self.num_questions += 1
        return EpochProgress(1, self.share, 10.0 * self.num_questions)


def _wait_for(questions: int, training: Training) -> None:
    deadline = time.monotonic() + 10
    while training.num_questions < questions and time.monotonic() < deadline:
        time.sleep(0.005)


def test_what_has_changed_is_sent_and_the_end_is_told() -> None:
    training, sent = Training(), list[EpochProgress | None]()
    with ProgressThread(training.progress, sent.append, interval_seconds=0.01):
        _wait_for(3, training)
        assert [progress.share for progress in sent if progress] == [0.0]
        training.share = 0.5
        _wait_for(training.num_questions + 2, training)
    assert [progress.share if progress else None for progress in sent] == [0.0, 0.5, None]


def test_the_end_of_a_trial_waits_for_no_interval() -> None:
    started = time.monotonic()
    with ProgressThread(Training().progress, lambda _progress: None, interval_seconds=60):
        pass
    assert time.monotonic() - started < 5
    assert not any(thread.name == "progress" for thread in threading.enumerate())


def test_the_actor_that_reads_progress_does_not_load_torch() -> None:
    data = pickle.dumps(EpochProgress(1, 0.5, 10.0))
    code = "import pickle, sys; from tune_cifar.runner import progress; "
    code += f"assert pickle.loads({data!r}).share == 0.5; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def small_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def _news(board: ProgressBoard, expected: Mapping[str, EpochProgress]) -> None:
    """Look at the board, as Tune's loop does, until it says what is expected."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if board.news() == expected:
            return
        time.sleep(0.02)
    pytest.fail(f"the board never said {expected}")


def test_the_board_tells_what_trials_say_also_after_its_actor_died(small_ray: None) -> None:
    board = ProgressBoard()
    sender = pickle.loads(pickle.dumps(board.sender))  # noqa: S301 made here
    first, second = EpochProgress(1, 0.5, 10.0), EpochProgress(2, 0.1, 20.0)
    sender.send("a", first)
    sender.send("b", second)
    _news(board, {"a": first, "b": second})
    sender.send("b", None)
    _news(board, {"a": first})
    ray.kill(board.sender.notes, no_restart=False)
    _news(board, {})
    sender.send("a", second)
    _news(board, {"a": second})
    assert board.news() is None  # it asks once a second however often it is called
