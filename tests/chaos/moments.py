"""The moments at which a fault hits: while a search starts, trains, writes its state, or writes its results."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Literal

from tests.chaos.search_under_test import NUM_TRIALS, SearchUnderTest

Moment = Literal["start", "epoch", "snapshot", "end"]
MOMENTS: tuple[Moment, ...] = ("start", "epoch", "epoch", "epoch", "snapshot", "snapshot", "end")
MOST_SECONDS = 600


def wait_for(moment: Moment, search: SearchUnderTest, random: Random) -> bool:
    """Wait for the moment in a search that was just started; whether it came before the search ended."""
    if moment == "start":
        return _wait(search, lambda: bool(search.last_output)) and _pause(search, random.uniform(0, 6))
    if moment == "epoch":
        wanted = search.num_epochs() + random.randint(1, 4)
        return _wait(search, lambda: search.num_epochs() >= wanted) and _pause(search, random.uniform(0, 1))
    if moment == "end":
        return _wait(search, lambda: search.num_finished() == NUM_TRIALS) and _pause(search, random.uniform(0, 3))
    for _ in range(random.randint(1, 6)):
        before = _snapshot(search)
        if not _wait(search, lambda before=before: _snapshot(search) != before, poll_seconds=0.0005):  # type: ignore[misc]
            return False
    return True


def _snapshot(search: SearchUnderTest) -> list[tuple[str, int, int]]:
    """Tune's state files as they are now; they change first when one begins to be written."""
    found = []
    for path in search.results.glob("ray*/*state-*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, stat.st_mtime_ns, stat.st_size))
    return sorted(found)


def _wait(search: SearchUnderTest, happened: Callable[[], bool], poll_seconds: float = 0.02) -> bool:
    deadline = time.monotonic() + MOST_SECONDS
    while search.running() and time.monotonic() < deadline:
        if happened():
            return search.running()
        time.sleep(poll_seconds)
    return False


def _pause(search: SearchUnderTest, seconds: float) -> bool:
    time.sleep(seconds)
    return search.running()
