"""Brings the progress of running epochs to the search's process without a report to Tune, which would cost a step.

An actor holds the latest word of every trial, because the machines of a cluster share no files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError

from tune_cifar.trial.progress import EpochProgress

INTERVAL_SECONDS = 1.0


class ProgressBoard:
    """What each running trial said last, for the process that made the board; `sender` goes along to the trials.

    Needs a Ray that runs. Nothing here waits for the actor.
    """

    def __init__(self) -> None:
        # Without a core of its own, so that no trial has one less.
        self.sender = BoardSender(ray.remote(num_cpus=0, max_restarts=-1)(_Notes).remote())
        self._answer: ray.ObjectRef[Mapping[str, EpochProgress]] | None = None
        self._next_question = 0.0

    def news(self) -> Mapping[str, EpochProgress] | None:
        """Progress by trial id, about once in `INTERVAL_SECONDS` however often this is called, None in between."""
        if self._answer is None:
            if time.monotonic() >= self._next_question:
                self._next_question = time.monotonic() + INTERVAL_SECONDS
                self._answer = self.sender.notes.read.remote()
            return None
        if not ray.wait([self._answer], timeout=0)[0]:
            return None
        answer, self._answer = self._answer, None
        try:
            news: Mapping[str, EpochProgress] = ray.get(answer)
        except RayError:
            return {}  # the actor died; Ray starts it again, and the trials tell it anew each second
        return news


class BoardSender:
    """A trial's way to the board, which can be pickled; no call waits, and none fails when the board is gone."""

    def __init__(self, notes: Any) -> None:
        self.notes = notes

    def send(self, trial_id: str, progress: EpochProgress | None) -> None:
        """Say where a trial is, or by None that it has ended."""
        self.notes.write.remote(trial_id, progress)


class ProgressThread:
    """While the context lasts, sends what `progress` returns once in `interval_seconds`, where it has changed."""

    def __init__(
        self,
        progress: Callable[[], EpochProgress],
        send: Callable[[EpochProgress | None], None],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._progress = progress
        self._send = send
        self._interval_seconds = interval_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="progress", daemon=True)

    def __enter__(self) -> ProgressThread:
        self._thread.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._send(None)

    def _send_all(self) -> None:
        sent: EpochProgress | None = None
        while not self._ended.wait(self._interval_seconds):
            progress = self._progress()
            if sent is None or (progress.epoch, progress.share) != (sent.epoch, sent.share):
                self._send(progress)
                sent = progress


class _Notes:
    """What the board's actor is: the latest word of every trial."""

    def __init__(self) -> None:
        self.progress: dict[str, EpochProgress] = {}

    def write(self, trial_id: str, progress: EpochProgress | None) -> None:
        """Keep the latest word of a trial."""
        if progress is None:
            self.progress.pop(trial_id, None)
        else:
            self.progress[trial_id] = progress

    def read(self) -> dict[str, EpochProgress]:
        """All that is kept."""
        return self.progress
