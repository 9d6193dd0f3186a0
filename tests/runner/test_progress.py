from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time

from tune_cifar.runner.progress import ProgressThread
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
