"""Has Tune write its state one snapshot after another, and as often as that costs the search little."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

from ray.train._internal.storage import _FilesystemSyncer
from ray.tune.experiment import Trial

MOST_SHARE_OF_TIME = 0.05
MOST_SHARE_OF_TIME_FOR_ENDED = 0.2
MOST_SHARE_OF_EPOCH = 0.5


class PacedSnapshots:
    """Takes the place of `sync_up_experiment_state` of Tune's `_ExperimentCheckpointManager` (ray 2.60).

    With a number of checkpoints to keep Tune snapshots after each of them. All trials are in a snapshot, so a search of
    1,000 trials, or one with hundreds of trials at once, would do little else. Here they take a twentieth of the time
    at most, as Tune's own periodic ones do, unless a trial is half through its next epoch: what a killed search may
    lose of a trial is one epoch. A trial that has ended shall lose none, so it waits less. None begins while `syncer`
    copies the one before, which Tune would write over.
    """

    def __init__(self, manager: Any, syncer: _FilesystemSyncer, clock: Callable[[], float] | None = None) -> None:
        self._manager = manager
        self._sync_up = manager.sync_up_experiment_state
        self._syncer = syncer
        self._clock = clock or time.monotonic
        self._next_at = float("-inf")
        self._next_for_ended_at = float("-inf")
        self._due_at: dict[Trial, float] = {}

    def __call__(self, save_fn: Callable[[], None], force: bool = False, wait: bool = False) -> None:
        """Snapshot if that was asked for with `force` or, for checkpoints since the last one, if it is time."""
        begin = self._clock()
        if self._manager._should_force_sync_up and not force and begin < min(self._next_at, self._most_late(begin)):
            return
        self._sync_up(save_fn=lambda: self._save(save_fn), force=force, wait=wait)
        end = self._clock()
        if self._manager._last_save_time >= begin:
            self._due_at.clear()
            self._next_at = end + (end - begin) * (1 / MOST_SHARE_OF_TIME - 1)
            self._next_for_ended_at = end + (end - begin) * (1 / MOST_SHARE_OF_TIME_FOR_ENDED - 1)

    def _most_late(self, now: float) -> float:
        """When a trial of which no snapshot has the last checkpoint has to be in one."""
        for trial, num_unsaved in self._manager._trial_num_checkpoints_since_last_sync.items():
            if trial not in self._due_at:
                epoch_seconds = trial.last_result.get("epoch_runtime (seconds)", 0.0)
                self._due_at[trial] = now + MOST_SHARE_OF_EPOCH * epoch_seconds
            if trial.is_finished():
                self._due_at[trial] = self._next_for_ended_at
            elif num_unsaved > 1:
                return now
        return min(self._due_at.values(), default=math.inf)

    def _save(self, save_fn: Callable[[], None]) -> None:
        with contextlib.suppress(Exception):  # the syncer itself has noted what went wrong
            self._syncer.wait()
        save_fn()


def pace_snapshots(manager: Any, syncer: _FilesystemSyncer) -> None:
    """Pace the snapshots of Tune's `_ExperimentCheckpointManager`, unless that is done."""
    if not isinstance(manager.sync_up_experiment_state, PacedSnapshots):
        manager.sync_up_experiment_state = PacedSnapshots(manager, syncer)
