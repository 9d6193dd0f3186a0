"""Writes the W&B runs of all trials in a thread of its own, so that no trial waits for a slow or dead server.

Tune calls its callbacks between two reports, and a server that hangs holds `wandb.init` for its whole time limit.
"""

from __future__ import annotations

import logging
import math
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import wandb

from tune_cifar.tracking.background import BackgroundCalls
from tune_cifar.tracking.closed_runs import ClosedRuns
from tune_cifar.tracking.run_names import run_id
from tune_cifar.tracking.trial_history import Row
from tune_cifar.tracking.wandb_mode import Mode
from tune_cifar.tracking.wandb_run import (
    Amendment,
    RefusedRowsError,
    RunTarget,
    TrialRun,
    amend_run,
    close_run,
    open_run,
)

logger = logging.getLogger(__name__)

ONLINE_AGAIN_SECONDS = 600.0
"""After a server could not be reached runs go to disk for so long; then the next one tries again, once."""

MODES_TO_TRY: Mapping[Mode, tuple[Mode, ...]] = MappingProxyType(
    {"online": ("online", "offline"), "offline": ("offline",), "disabled": ()}
)


class RunWriter:
    """Opens, fills and closes runs in the order of the calls, each of which returns at once.

    Trouble with W&B is logged in one line. Where the server cannot be reached in `target.init_seconds`, `mode`
    becomes offline for `ONLINE_AGAIN_SECONDS`, and disabled where runs cannot be written to disk either.
    `stop_requests` holds the trials on whose page somebody pressed Stop, and `closed` knows those of which nothing is
    left to write.
    """

    def __init__(self, target: RunTarget, mode: Mode) -> None:
        self.mode: Mode = mode
        self.stop_requests: set[str] = set()
        self.closed = ClosedRuns(target.folder)
        self._target = target
        self._calls = BackgroundCalls("wandb", self._say_of_rows)
        # These belong to the thread of `_calls`.
        self._runs: dict[str, wandb.Run] = {}
        self._finishing: dict[str, threading.Thread] = {}
        self._cut_off: dict[str, Path] = {}
        self._refused: dict[str, Path] = {}
        self._folders: dict[str, Path] = {}
        self._online_again_seconds = math.inf
        self._said: set[str] = set()

    def open(self, trial_id: str, trial_run: TrialRun, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """Open the run of a trial, which then holds exactly `rows`; changes `trial_run` where it has to."""
        self.closed.open(trial_id)
        self._calls.submit(partial(self._open, trial_id, trial_run, dict(config), list(rows)))

    def log(self, trial_id: str, rows: Sequence[Row], summary: Mapping[str, Any]) -> None:
        """Add rows, and values to the run's summary."""
        self._calls.submit(partial(self._log, trial_id, rows, summary))

    def close(self, trial_id: str, exit_code: int, summary: Mapping[str, Any]) -> None:
        """End the run of a trial."""
        self._calls.submit(partial(self._close, trial_id, exit_code, summary))

    def wait(self, latest_seconds: float = math.inf) -> None:
        """Wait for all rows and uploads, for a bounded time and not after `latest_seconds`, a `time.monotonic()`."""
        start_seconds = time.monotonic()
        deadline_seconds = start_seconds + self._target.init_seconds + self._target.finish_seconds + 5
        deadline_seconds = max(start_seconds, min(deadline_seconds, latest_seconds))
        if not self._calls.wait(deadline_seconds - time.monotonic()):
            self._say_once("W&B did not take every row in time; ray/*/result.json in the search's folder has them all.")
        for trial_id, thread in list(self._finishing.items()):
            thread.join(max(0.0, deadline_seconds - time.monotonic()))
            if thread.is_alive():
                self._cut_off[trial_id] = self._folders[trial_id]
        if self._cut_off:
            seconds = min(self._target.finish_seconds, deadline_seconds - start_seconds)
            what = f"the upload of {len(self._cut_off)} run(s) was cut off after {seconds:.0f} s"
            self._say_incomplete(what, self._cut_off)
        if self._refused:
            self._say_incomplete(f"the server refused rows of {len(self._refused)} run(s)", self._refused)
        self._finishing.clear()

    def amend(self, trial_run: TrialRun, config: Mapping[str, Any], amendment: Amendment) -> bool:
        """Add to a run that is closed, after `wait`; False, with a line, where W&B did not take it."""
        if self.mode == "disabled":
            return False
        mode: Mode = "online" if self.mode == "online" and trial_run.sent else "offline"
        try:
            amend_run(self._target, mode, trial_run, config, amendment)
        except Exception as error:  # the search is done and its results are written
            again = f"--resume --name {self._target.search_name}"
            self._say_once(f"W&B did not take the mark of the best run ({_one_line(error)}); {again} tries it again.")
            return False
        return True

    def _open(self, trial_id: str, trial_run: TrialRun, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
        stop = partial(self.stop_requests.add, trial_id)
        again = time.monotonic() >= self._online_again_seconds
        for mode in MODES_TO_TRY["online" if again else self.mode]:
            try:
                run = open_run(self._target, mode, trial_run, config, rows, stop)
            except Exception as error:  # whatever W&B's trouble is, the trial goes on
                self._fall_back(mode, error)
                # The client keeps the id of a run that it could not start ("run ID … is in use", 0.31).
                trial_run.run_id = run_id(self._target.search_name, f"{trial_id}-offline")
                trial_run.sent = False
            else:
                self._runs[trial_id], self._folders[trial_id] = run, Path(run.dir).parent
                if again and mode == "online":
                    self.mode, self._online_again_seconds = "online", math.inf
                    self._said.clear()  # a second outage is news again
                    logger.warning("W&B can be reached again; runs from here on go there.")
                return

    def _log(self, trial_id: str, rows: Sequence[Row], summary: Mapping[str, Any]) -> None:
        run = self._runs.get(trial_id)
        if run is None:  # it could not be opened
            return
        for step, row in rows:
            run.log(row, step=step, commit=True)
        run.summary.update(dict(summary))

    def _close(self, trial_id: str, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Finish a run in one more thread: its upload can be slow, and the rows of other runs wait here."""
        run = self._runs.pop(trial_id, None)
        if run is None:  # it could not be opened
            self.closed.close(trial_id, exit_code)
        else:
            thread = threading.Thread(target=self._finish, args=(trial_id, run, exit_code, summary), daemon=True)
            self._finishing[trial_id] = thread
            thread.start()

    def _finish(self, trial_id: str, run: wandb.Run, exit_code: int, summary: Mapping[str, Any]) -> None:
        try:
            close_run(run, exit_code, summary)
        except TimeoutError:
            self._cut_off[trial_id] = self._folders[trial_id]
        except RefusedRowsError:
            self._refused[trial_id] = self._folders[trial_id]
        except Exception as error:
            self._say_once(f"W&B could not finish a run ({_one_line(error)}); its rows up to here are on disk.")
        self.closed.close(trial_id, exit_code)

    def _fall_back(self, mode: Mode, error: Exception) -> None:
        if mode == "online":
            self.mode, self._online_again_seconds = "offline", time.monotonic() + ONLINE_AGAIN_SECONDS
            self._say_once(f"W&B cannot be reached ({_one_line(error)}); runs from here on go to disk.")
        else:
            self.mode = "disabled"
            self._say_once(f"W&B cannot start a run ({_one_line(error)}); runs from here on are not logged.")

    def _say_of_rows(self, error: Exception) -> None:
        self._say_once(f"W&B stopped taking rows ({_one_line(error)}); the search goes on without them.")

    def _say_incomplete(self, what: str, folders: Mapping[str, Path]) -> None:
        """Name the command for one of them: a run's rows can only be sent whole, and under another id."""
        (trial_id, folder), *others = folders.items()
        words = ["wandb", "sync", "--include-online", "--id", f"{run_id(self._target.search_name, trial_id)}-again"]
        rest = f", and so on for {', '.join(path.name for _, path in others)}" if others else ""
        self._say_once(
            f"W&B: {what}. Every row is on disk; as a new, complete run: {shlex.join([*words, str(folder)])}{rest}"
        )

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            logger.warning(line)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
