"""Deletes rented machines and remembers which are on their way, so that none is forgotten while it still costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from tune_cifar.cluster.paperspace.machines import MachinesApi
from tune_cifar.errors import UserError
from tune_cifar.publish.retry import PublishError

CONSOLE_URL = "https://console.paperspace.com/"


class Deletion:
    """Asks for the end of machines, again when one is still there after `again_seconds`, `most_times` in all.

    Deleting is not done when the service has accepted it (the API answers with an event to follow), so a machine
    counts as gone only when the API no longer has it. Used from many threads.
    """

    def __init__(self, api: MachinesApi, again_seconds: float = 120.0, most_times: int = 3) -> None:
        self._api = api
        self.again_seconds = again_seconds
        self.most_times = most_times
        self._lock = threading.Lock()
        self._accepted: dict[str, tuple[float, int]] = {}  # by id: when last, how often

    def is_pending(self, machine_id: str) -> bool:
        """Whether the service accepted to delete the machine a short while ago."""
        with self._lock:
            accepted_seconds, _ = self._accepted.get(machine_id, (float("-inf"), 0))
        return time.monotonic() - accepted_seconds < self.again_seconds

    def ask(self, machine_ids: Iterable[str]) -> None:
        """Delete machines, less those on their way; raises `UserError` with all that resist."""
        resisting: dict[str, str] = {}
        for machine_id in machine_ids:
            if self.is_pending(machine_id):
                continue
            with self._lock:
                _, times = self._accepted.get(machine_id, (0.0, 0))
            if times >= self.most_times:
                resisting[machine_id] = f"still there after it was deleted {times} times"
                continue
            try:
                self._api.delete(machine_id)
            except PublishError as error:
                resisting[machine_id] = str(error)
                continue
            with self._lock:
                self._accepted[machine_id] = (time.monotonic(), times + 1)
        if resisting:
            raise UserError(left_behind(resisting))

    def finish(self, machine_ids: Iterable[str], limit_seconds: float, poll_seconds: float) -> None:
        """Delete machines and wait until they are gone; raises `UserError` with those that are not."""
        left = set(machine_ids)
        deadline_seconds = time.monotonic() + limit_seconds
        while left:
            self.ask(left)
            left = {machine_id for machine_id in left if self._api.machine(machine_id) is not None}
            if left and time.monotonic() > deadline_seconds:
                raise UserError(left_behind(dict.fromkeys(left, f"still there after {limit_seconds:.0f} s")))
            if left:
                time.sleep(poll_seconds)


def left_behind(machines: dict[str, str]) -> str:
    """What to tell of machines that still cost money: why, and how to be rid of them."""
    reasons = "\n".join(f"  {machine_id}: {reason}" for machine_id, reason in sorted(machines.items()))
    command = f"python -m tune_cifar.cluster.paperspace --delete {' '.join(sorted(machines))}"
    return f"NOT DELETED, and still charged for:\n{reasons}\nDelete them by\n  {command}\nor at {CONSOLE_URL}"
