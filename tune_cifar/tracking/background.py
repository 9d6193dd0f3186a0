"""Makes calls one after another in a thread of its own, here so that no trial waits for a tracking server."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Call = Callable[[], None]


class BackgroundCalls:
    """Makes the calls it is given in their order, in a daemon thread that starts with the first one.

    A call that raises ends with its error given to `on_error`, from that thread; the next ones are still made.
    """

    def __init__(self, name: str, on_error: Callable[[Exception], None]) -> None:
        self._name = name
        self._on_error = on_error
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, call: Call) -> None:
        """Hand over a call and return at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(call)

    def wait(self, seconds: float) -> bool:
        """Wait until every call so far has been made; False if that takes longer than `seconds`."""
        if self._thread is None:
            return True
        done = threading.Event()
        self.submit(done.set)
        return done.wait(seconds)

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            try:
                call()
            except Exception as error:
                self._on_error(error)
