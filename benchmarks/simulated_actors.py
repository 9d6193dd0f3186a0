"""Trials without machines: stands in for Tune's actor manager, so that Tune's own loop can be timed at any scale."""

from __future__ import annotations

import heapq
import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.train._internal.session import _TrainingResult
from ray.tune import Checkpoint

EpochOf = Callable[[dict[str, Any], int], dict[str, Any]]
"""The metrics of an epoch (from 1) of a config; `epoch_runtime (seconds)` is how long it trains."""

EPOCHS_UNANSWERED = 3
"""One epoch is being reported, one waits and one is trained (`tune_cifar.runner.reporting`)."""


class Clock:
    """Real time plus the waiting that the simulation skips; it takes the place of `time.time` and `time.monotonic`."""

    def __init__(self) -> None:
        self._skipped_seconds = 0.0
        self._monotonic, self._time = time.monotonic, time.time

    def monotonic(self) -> float:
        """Seconds of the simulated machine, from an arbitrary start."""
        return self._monotonic() + self._skipped_seconds

    def time(self) -> float:
        """Seconds since 1970 on the simulated machine."""
        return self._time() + self._skipped_seconds

    def skip(self, seconds: float) -> None:
        """Let time pass that nobody waits for; below 0, take back what the simulation itself needed."""
        self._skipped_seconds += seconds


_NOBODY = SimpleNamespace(get_auto_filled_metrics=SimpleNamespace(remote=lambda **_: {}))
"""The controller asks an actor what its results are to be filled with."""


@dataclass
class Slot:
    """One actor, and the trial in it."""

    trial: Any = None  # Tune's own description of the trial
    config: dict[str, Any] = field(default_factory=dict)
    storage: Any = None
    trained_at: list[float] = field(default_factory=list)  # when each epoch was trained
    answered_at: list[float] = field(default_factory=list)  # when each epoch's report had been taken
    result: dict[str, Any] = field(default_factory=dict)
    is_started: bool = False
    latest_task: int = 0


@dataclass
class Usage:
    """What happened, in seconds of the simulated machine since its start."""

    spans: list[tuple[float, float]] = field(default_factory=list)  # of the epochs trained
    trial_starts: list[float] = field(default_factory=list)
    driver_seconds: float = 0.0
    num_events: int = 0


class SimulatedActors:
    """Has what Tune's controller calls of Ray's actor manager (ray 2.60), and trains nothing.

    An actor is there `start_seconds` after it was asked for, and is reset in `reset_seconds`. What controller, searcher
    and callbacks need for an event is their real time; `event_seconds` come on top, for what Ray needs to wait for
    that many futures.
    """

    def __init__(
        self, clock: Clock, epoch_of: EpochOf, *, start_seconds: float, reset_seconds: float, event_seconds: float
    ) -> None:
        self._clock = clock
        self._epoch_of = epoch_of
        self._start_seconds = start_seconds
        self._reset_seconds = reset_seconds
        self._event_seconds = event_seconds
        self.usage = Usage()
        self._origin = self._left_at = clock.monotonic()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count(1)
        self._slots: dict[TrackedActor, Slot] = {}
        # The controller takes the Ray actor from here, to note it in the trial.
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[Any, Any]] = {}

    def next(self, timeout: float | None = None) -> bool:
        """Handle the event that comes next, however far away it is."""
        now = self._clock.monotonic()
        self.usage.driver_seconds += now - self._left_at
        happened = bool(self._events)
        if happened:
            due, _, happen = heapq.heappop(self._events)
            self._clock.skip(max(due - now, 0.0))
            self._left_at = self._clock.monotonic()
            self._clock.skip(self._event_seconds)
            self.usage.num_events += 1
            happen()
        else:
            self._clock.skip(timeout or 0.0)
            self._left_at = self._clock.monotonic()
        return happened

    def add_actor(
        self, cls: Any, kwargs: dict[str, Any], resource_request: Any, *, on_start: Any, on_stop: Any, on_error: Any
    ) -> TrackedActor:
        """A new slot, which is there after a while."""
        actor = TrackedActor(uuid.uuid4().int, on_start=on_start, on_stop=on_stop, on_error=on_error)
        slot = self._slots[actor] = Slot()
        self._take(slot, kwargs["config"], kwargs["storage"])

        def start() -> None:
            if actor in self._slots:  # not removed before it was there
                slot.is_started = True
                self._live_actors_to_ray_actors_resources[actor] = (_NOBODY, None)
                on_start(actor)

        self._at(self._clock.monotonic() + self._start_seconds, start)
        return actor

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        """End a slot; whether it had been started."""
        slot = self._slots.pop(tracked_actor, None)
        self._live_actors_to_ray_actors_resources.pop(tracked_actor, None)
        if slot is None or not slot.is_started:
            return False
        if tracked_actor._on_stop:
            self._at(self._clock.monotonic(), lambda: tracked_actor._on_stop and tracked_actor._on_stop(tracked_actor))
        return True

    def schedule_actor_task(
        self,
        tracked_actor: TrackedActor,
        method_name: str,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        on_result: Callable[[TrackedActor, Any], None] | None = None,
        on_error: Any = None,
        _return_future: bool = False,
    ) -> None:
        """Train an epoch, save its checkpoint, or reset the slot for another trial."""
        slot, now = self._slots[tracked_actor], self._clock.monotonic()
        answer: Callable[[], Any]
        if method_name == "train":
            due, answer = self._train(slot, now), lambda: dict(slot.result)
        elif method_name == "save":
            due, answer = now, lambda: self._checkpoint(slot)
        elif method_name == "reset":
            self._take(slot, args[0], (kwargs or {})["storage"])
            due, answer = now + self._reset_seconds, lambda: True
        else:  # stop: there is nothing to wait for
            return
        slot.latest_task = task = next(self._order)

        def happen() -> None:
            if on_result and slot.latest_task == task and tracked_actor in self._slots:
                on_result(tracked_actor, answer())

        self._at(due, happen)

    def _take(self, slot: Slot, config: dict[str, Any], storage: Any) -> None:
        """A trial comes into a slot."""
        slot.config = {name: value for name, value in config.items() if not name.startswith("__")}
        slot.trial = config["__trial_info__"]
        slot.storage, slot.trained_at, slot.answered_at, slot.result = storage, [], [], {}

    def _train(self, slot: Slot, now: float) -> float:
        """When the next epoch's report is there; the trial has trained on while the last one was handled."""
        if slot.trained_at:
            slot.answered_at.append(now)
        else:
            self.usage.trial_starts.append(now - self._origin)
        epoch = len(slot.trained_at) + 1
        slot.result = self._epoch_of(slot.config, epoch)
        begin = slot.trained_at[-1] if slot.trained_at else now
        if len(slot.answered_at) >= EPOCHS_UNANSWERED:  # the one that had to be taken before this one could begin
            begin = max(begin, slot.answered_at[-EPOCHS_UNANSWERED])
        end = begin + slot.result["epoch_runtime (seconds)"]
        self.usage.spans.append((begin - self._origin, end - self._origin))
        slot.trained_at.append(end)
        slot.result |= {
            "training_iteration": epoch,
            "time_this_iter_s": end - begin,
            "time_total_s": end - slot.trained_at[0],
            "timestamp": int(self._clock.time()),
            "hostname": "simulated",
            "node_ip": "10.0.0.1",
            "pid": 1,
            "config": slot.config,
            "should_checkpoint": True,
        }
        return max(end, now)

    def _checkpoint(self, slot: Slot) -> _TrainingResult:
        """A checkpoint of one small file, written by the trial and so at no cost to the driver."""
        start = self._clock.monotonic()
        folder = self._folder(slot)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.pth").touch()
        self._clock.skip(start - self._clock.monotonic())
        return _TrainingResult(Checkpoint(str(folder)), dict(slot.result))

    def _folder(self, slot: Slot) -> Path:
        return Path(slot.storage.trial_fs_path) / f"checkpoint_{len(slot.trained_at) - 1:06d}"

    def _at(self, due: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (due, next(self._order), happen))

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        """Whether the slot is there."""
        return tracked_actor in self._slots and self._slots[tracked_actor].is_started

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        """No slot ever fails here."""
        return False

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """What the slot's trial still does is of no interest any more."""
        if tracked_actor in self._slots:
            self._slots[tracked_actor].latest_task = 0

    def cleanup(self) -> None:
        """Nothing is left behind."""

    def get_live_actors_resources(self) -> dict[str, float]:
        """Only printed by the controller."""
        return {}

    @property
    def num_live_actors(self) -> int:
        """Slots that are there."""
        return sum(slot.is_started for slot in self._slots.values())

    @property
    def num_pending_actors(self) -> int:
        """Slots that were asked for."""
        return len(self._slots) - self.num_live_actors

    @property
    def num_total_actors(self) -> int:
        """All slots."""
        return len(self._slots)

    @property
    def num_actor_tasks(self) -> int:
        """What is waited for."""
        return len(self._events)
