"""Shows a job's output once, however often its log is read from the start, as it is after each broken connection."""

from __future__ import annotations

import re
from collections.abc import Callable

# What Ray itself writes before the job's own output (ray 2.60, JobSupervisor._exec_entrypoint).
_PREAMBLE = re.compile(r"(?:.*\n)*?Running entrypoint for job .*\n")


class JobOutput:
    """Passes each character of the log on to `write` once; Ray's own lines before the job's only by `finish`."""

    def __init__(self, write: Callable[[str], None], *, skip_characters: int = 0) -> None:
        """`skip_characters` of the log were shown before."""
        self._write = write
        self._seen = skip_characters
        self._position = 0
        self._preamble: str | None = None if skip_characters else ""

    def start_over(self) -> None:
        """What is fed next is the log from its first character."""
        self._position = 0

    def feed(self, text: str) -> None:
        """Take the next characters of the log, and write those that are new."""
        new = text[max(0, self._seen - self._position) :]
        self._position += len(text)
        self._seen = max(self._seen, self._position)
        if self._preamble is None:
            if new:
                self._write(new)
            return
        self._preamble += new
        if match := _PREAMBLE.match(self._preamble):
            rest, self._preamble = self._preamble[match.end() :], None
            if rest:
                self._write(rest)

    def finish(self, log: str) -> None:
        """Take the whole log of a job that has ended; of one that never began, write what Ray says."""
        self.start_over()
        self.feed(log)
        if self._preamble:
            self._write(self._preamble)
            self._preamble = None
