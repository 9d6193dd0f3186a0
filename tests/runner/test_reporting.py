from __future__ import annotations

import contextlib
import dataclasses
import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tune_cifar.runner.reporting import EpochReporter
from tune_cifar.trial.checkpoint import TrainedTensors, TrainingState, load_checkpoint


def _tensors(epoch: int) -> TrainedTensors:
    return TrainedTensors({"w": torch.full((3,), float(epoch))})


class Tune:
    """Tune's side: keeps what is reported and may hold a report up, stop the trial or break."""

    def __init__(self) -> None:
        self.reports: list[tuple[dict[str, Any], TrainingState | None]] = []
        self.on_report: Callable[[int], None] = lambda _number: None

    def report(self, metrics: dict[str, Any], checkpoint: Any = None) -> None:
        state = load_checkpoint(Path(checkpoint.path)) if checkpoint else None
        self.reports.append((metrics, state))
        self.on_report(len(self.reports))


@pytest.fixture
def tune() -> Tune:
    return Tune()


def test_epochs_arrive_in_order_each_with_its_checkpoint(tune: Tune) -> None:
    with EpochReporter(pytest.fail, tune.report) as reporter:
        for epoch in range(5):
            reporter.begin(_tensors(epoch))
            reporter.report({"epoch": epoch}, {"epochs_done": epoch} if epoch < 4 else None)
    assert [metrics["epoch"] for metrics, _ in tune.reports] == list(range(5))
    for epoch, (_, state) in enumerate(tune.reports[:4]):
        assert state is not None
        assert torch.equal(state.tensors.weights["w"], torch.full((3,), float(epoch)))
        assert state.progress == {"epochs_done": epoch}
    assert tune.reports[4][1] is None


def test_training_goes_on_while_an_epoch_is_reported_and_waits_for_the_second(tune: Tune) -> None:
    let_go = threading.Event()
    tune.on_report = lambda _number: _wait(let_go)
    handed_over: list[int] = []

    def train() -> None:
        with EpochReporter(pytest.fail, tune.report) as reporter:
            for epoch in range(4):
                reporter.begin(_tensors(epoch))
                reporter.report({"epoch": epoch}, None)
                handed_over.append(epoch)

    thread = threading.Thread(target=train)
    thread.start()
    deadline = time.monotonic() + 10
    while len(handed_over) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert handed_over == [0, 1]
    let_go.set()
    thread.join(10)
    assert [metrics["epoch"] for metrics, _ in tune.reports] == [0, 1, 2, 3]


def _wait(event: threading.Event) -> None:
    assert event.wait(10)


def test_a_stop_by_tune_ends_training_and_the_trials_thread(tune: Tune) -> None:
    def stop(number: int) -> None:
        if number == 2:
            raise SystemExit(0)

    tune.on_report = stop
    stopped = threading.Event()

    def train() -> None:
        with EpochReporter(stopped.set, tune.report) as reporter:
            reporter.report({"epoch": 1}, None)
            reporter.report({"epoch": 2}, None)
            assert stopped.wait(10)
            reporter.report({"epoch": 3}, None)

    with pytest.raises(SystemExit):
        train()
    assert [metrics["epoch"] for metrics, _ in tune.reports] == [1, 2]


def test_an_epoch_that_cannot_be_written_fails_the_trial(tune: Tune) -> None:
    stopped = threading.Event()

    def train() -> None:
        with EpochReporter(stopped.set, tune.report) as reporter:
            reporter.begin(_tensors(1))
            reporter.report({"epoch": 1}, {"epochs_done": object()})
            assert stopped.wait(10)

    with pytest.raises(TypeError, match="not JSON serializable"):
        train()
    assert tune.reports == []


def test_an_error_in_training_comes_first_and_what_was_trained_is_reported(tune: Tune) -> None:
    def train() -> None:
        with EpochReporter(pytest.fail, tune.report) as reporter:
            reporter.begin(_tensors(1))
            reporter.report({"epoch": 1}, {"epochs_done": 1})
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train()
    assert len(tune.reports) == 1


def test_a_full_disk_is_told_of_and_the_trial_waits_for_the_search_to_end(tune: Tune) -> None:
    told: list[OSError] = []

    def refuse(_number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tune.on_report = refuse
    start = time.monotonic()
    reporter = EpochReporter(lambda: None, tune.report, tell_of_disk=told.append, most_held_seconds=0.5)
    with pytest.raises(OSError, match="No space left"), reporter:
        reporter.report({"epoch": 1}, None)
    assert time.monotonic() - start >= 0.5
    assert [error.errno for error in told] == [errno.ENOSPC]


def test_a_checkpoint_is_written_before_its_epoch_is_validated_and_its_memory_given_back(tune: Tune) -> None:
    released = threading.Event()
    with EpochReporter(pytest.fail, tune.report) as reporter:
        reporter.begin(dataclasses.replace(_tensors(1), release=released.set))
        assert released.wait(10)
        assert tune.reports == []
        reporter.report({"epoch": 1}, {"epochs_done": 1})
    [(_, state)] = tune.reports
    assert state is not None
    assert torch.equal(state.tensors.weights["w"], torch.ones(3))


def test_a_checkpoint_whose_epoch_was_never_reported_is_removed(tune: Tune, tmp_path: Path) -> None:
    @contextlib.contextmanager
    def new_checkpoint() -> Iterator[Path]:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    with EpochReporter(pytest.fail, tune.report, new_checkpoint=new_checkpoint) as reporter:
        reporter.begin(_tensors(1))
        reporter.report({"epoch": 1}, None)
        reporter.begin(_tensors(2))
    assert [state for _, state in tune.reports] == [None]
    assert list(tmp_path.iterdir()) == []
