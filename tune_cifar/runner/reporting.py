"""Reports epochs to Tune from a thread of its own, so that a trial goes on while its checkpoint is written."""

from __future__ import annotations

import contextlib
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from ray import tune

from tune_cifar.files import disk_error, sync
from tune_cifar.trial.checkpoint import TrainedTensors, write_progress

NewCheckpoint = Callable[[], contextlib.AbstractContextManager[str | Path]]

# A search that is told of a broken disk ends within seconds. One that is not (its machine is gone) must not keep this
# process forever.
_MOST_HELD_SECONDS = 600.0


class EpochReporter:
    """Takes the epochs of one trial in order; each is reported once its checkpoint is complete in Tune's storage.

    Of each epoch first the tensors of its checkpoint are handed over, by `begin`, and when it is validated the rest.
    At most one epoch is being written and one waits: a trial that is faster than its storage waits for it.
    As a context manager it ends the trial's thread as Tune expects: by `SystemExit` when Tune stopped
    the trial, by the error when one could not be written, else after the last epoch is reported.
    """

    def __init__(
        self,
        stop_training: Callable[[], None],
        report: Callable[..., None] = tune.report,
        *,
        new_checkpoint: NewCheckpoint = tempfile.TemporaryDirectory,
        tell_of_disk: Callable[[OSError], None] | None = None,
        most_held_seconds: float = _MOST_HELD_SECONDS,
    ) -> None:
        """`stop_training` is called, from the thread, when there is no use in training on.

        `new_checkpoint` makes the folders that checkpoints are written to. Where the disk takes one no more, which is
        no failure of the trial, `tell_of_disk` is called, and the trial waits for the search to end.
        """
        self._stop_training = stop_training
        self._report_to_tune = report
        self._new_checkpoint = new_checkpoint
        self._tell_of_disk = tell_of_disk
        self._most_held_seconds = most_held_seconds
        # Two tasks are one epoch: what `begin` and `report` hand over.
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=2)
        self._folder: Path | None = None
        self._writing = contextlib.ExitStack()
        self._end: BaseException | None = None
        self._thread = threading.Thread(target=self._report_all, name="report", daemon=True)

    def __enter__(self) -> EpochReporter:
        self._thread.start()
        return self

    def begin(self, tensors: TrainedTensors) -> None:
        """Hand over the tensors of an epoch's checkpoint; waits only while another epoch waits to be written."""
        self._tasks.put(partial(self._write, tensors))

    def report(self, metrics: Mapping[str, Any], progress: Mapping[str, Any] | None) -> None:
        """Hand over an epoch, with the rest of the checkpoint that was begun, or None: it has no checkpoint."""
        self._tasks.put(partial(self._report, metrics, progress))

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tasks.put(None)
        self._thread.join()
        if error is None and self._end is not None:
            raise self._end

    def _report_all(self) -> None:
        with self._writing:  # a checkpoint that was begun and never reported is removed
            while (task := self._tasks.get()) is not None:
                if self._end is not None:
                    continue  # the trial is over; what it trained since then counts for nothing
                try:
                    task()
                except BaseException as end:  # SystemExit is how Tune stops a trial
                    self._end = end
                    self._stop_training()
                    self._hold(end)

    def _hold(self, end: BaseException) -> None:
        """After an error of the disk, wait for the search to end: an exception now would cost the trial a retry."""
        error = disk_error(end)
        if error is not None and self._tell_of_disk is not None:
            self._tell_of_disk(error)
            time.sleep(self._most_held_seconds)

    def _write(self, tensors: TrainedTensors) -> None:
        self._folder = Path(self._writing.enter_context(self._new_checkpoint()))
        tensors.write(self._folder)
        tensors.release()
        for path in self._folder.iterdir():  # now, while the epoch is validated, and not when Tune waits for it
            sync(path)

    def _report(self, metrics: Mapping[str, Any], progress: Mapping[str, Any] | None) -> None:
        if progress is None:
            self._report_to_tune(dict(metrics))
        elif self._folder is None:
            raise RuntimeError("report was given the rest of a checkpoint that was not begun")
        else:
            write_progress(progress, self._folder)
            self._report_to_tune(dict(metrics), checkpoint=tune.Checkpoint.from_directory(self._folder))
        self._folder = None
        self._writing.close()
