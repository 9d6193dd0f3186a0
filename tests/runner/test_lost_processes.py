"""Tune's own actors and controller, where a trial's process is lost at a moment that they do not expect."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from tune_cifar.runner.failures import describe_error
from tune_cifar.runner.lost_processes import every_loss_is_a_failure


def test_an_actor_ended_for_want_of_memory_fails_its_trial_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune's own manager of actors raises from the search's loop, which would end the search."""
    told: list[Exception] = []
    manager = RayActorManager.__new__(RayActorManager)
    manager._failed_actor_ids = set()
    monkeypatch.setattr(RayActorManager, "_cleanup_actor", lambda self, tracked_actor: None)
    task = SimpleNamespace(
        _tracked_actor=SimpleNamespace(actor_id=1, _on_error=None),
        _on_error=lambda actor, error: told.append(error),
    )
    error = OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.")
    with pytest.raises(RuntimeError, match="unexpected exception"):
        manager._actor_task_failed(task, error)
    with every_loss_is_a_failure():
        manager._actor_task_failed(task, error)
    assert isinstance(told[0], RayActorError)
    assert describe_error(told[0]).startswith("the machine ran out of memory")
    with pytest.raises(RuntimeError, match="unexpected exception"):
        manager._actor_task_failed(task, error)
