"""Notes which W&B runs are written to their end, so that a resume writes those that a killed search was still at."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

NOTES = Path("wandb", ".closed-runs")


class ClosedRuns:
    """The exit code with which each trial's run was closed, kept in a search's `folder` line by line.

    Where the disk takes no line the run counts as open for the next process, which then writes it again as it is.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / NOTES
        self._lock = threading.Lock()
        self._exit_codes: dict[str, int] | None = None

    def close(self, trial_id: str, exit_code: int) -> None:
        """The run of a trial is closed; every row of it is on disk, or it never could be opened."""
        with self._lock:
            self._read()[trial_id] = exit_code
            self._write(f"{trial_id} {exit_code}")

    def open(self, trial_id: str) -> None:
        """The run of a trial begins or goes on."""
        with self._lock:
            if self._read().pop(trial_id, None) is not None:
                self._write(f"{trial_id} open")

    def has(self, trial_id: str, exit_code: int) -> bool:
        """Whether the run of a trial is closed with this exit code."""
        with self._lock:
            return self._read().get(trial_id) == exit_code

    def _read(self) -> dict[str, int]:
        if self._exit_codes is None:
            self._exit_codes = {}
            with contextlib.suppress(OSError, UnicodeDecodeError):
                for line in self._file.read_text().splitlines():
                    trial_id, _, code = line.partition(" ")
                    self._exit_codes.pop(trial_id, None)
                    if code.isdecimal():
                        self._exit_codes[trial_id] = int(code)
        return self._exit_codes

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                file.write(line + "\n")
