"""Logs every trial as one complete W&B run from the driver process, in place of Ray's two actors a trial.

Ray's own callback was measured at 2.8 to 3.8 s a trial, cut off the last runs' files and ended a failed trial with
exit code 0; one client in the driver costs well under 0.15 s a trial.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import wandb
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.experiment import Trial

from tune_cifar.tracking.trial_history import TrialHistory
from tune_cifar.tracking.wandb_mode import Mode, silence_client
from tune_cifar.tracking.wandb_run import RunTarget, close_run, open_run, run_id, run_name

logger = logging.getLogger(__name__)

# The code by which W&B itself marks a script ended by Ctrl-C, shown as "killed" until the run goes on.
INTERRUPTED_EXIT_CODE = 255

MODES_TO_TRY: Mapping[Mode, tuple[Mode, ...]] = MappingProxyType(
    {"online": ("online", "offline"), "offline": ("offline",), "disabled": ()}
)


class SearchWandbCallback(WandbLoggerCallback):  # type: ignore[misc]  # Ray has no types
    """One W&B run a trial: metrics by step, the config, the best of history, tags and an exit code.

    `group` is the search's name, `folder` gets the `wandb` folder, `free_parameters` name the runs. A trial that
    goes on after a resume goes on in its run. Trouble with W&B is logged in one line and never reaches a trial:
    where the server cannot be reached in `init_seconds`, this and later runs go to disk. The callback pickles
    (Tune stores it) and holds no key. Raises `UserError` for a project or tag that W&B would refuse.
    """

    def __init__(
        self,
        *,
        project: str,
        group: str,
        folder: Path,
        mode: Mode,
        metric: str,
        goal: Literal["minimize", "maximize"],
        entity: str | None = None,
        notes: str | None = None,
        tags: Sequence[str] = (),
        free_parameters: Sequence[str] = (),
        init_seconds: float = 20.0,
        finish_seconds: float = 60.0,
    ) -> None:
        super().__init__(project=project, group=group)
        self.mode: Mode = mode
        self._target = RunTarget(
            project, entity, group, folder.absolute(), notes, tuple(tags), init_seconds, finish_seconds
        )
        self._metric = metric
        self._goal: Literal["minimize", "maximize"] = goal
        self._free_parameters = tuple(free_parameters)
        self._histories: dict[str, TrialHistory] = {}
        self._said: set[str] = set()
        self._reset_live_parts()

    def _reset_live_parts(self) -> None:
        """What belongs to this process alone."""
        self._runs: dict[str, wandb.Run] = {}
        self._finishing: dict[str, threading.Thread] = {}
        self._cut_off: list[str] = []
        self._stop_requests: set[str] = set()

    def __del__(self) -> None:
        """Ray's own ends its actors here; there are none, and at exit Ray may be gone."""

    def __getstate__(self) -> dict[str, Any]:
        live = {"_runs", "_finishing", "_cut_off", "_stop_requests"}
        return {name: value for name, value in self.__dict__.items() if name not in live}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset_live_parts()

    def get_state(self) -> dict[str, Any] | None:
        """The rows of every trial that may still go on, for Tune's snapshot."""
        return {trial_id: asdict(history) for trial_id, history in self._histories.items()} or None

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_state` gave."""
        self._histories = {trial_id: TrialHistory(**history) for trial_id, history in state.items()}

    def stop_requested(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether Stop was pressed on the trial's W&B page; has the form of Tune's `stop` function."""
        return trial_id in self._stop_requests

    def setup(self, *args: Any, **info: Any) -> None:
        """Quiet the client; Ray's own would look for a key and store it in the environment."""
        if self.mode != "disabled":
            silence_client()

    def log_trial_start(self, trial: Trial) -> None:
        """Open the trial's run, unless it is open (a trial retried after an error)."""
        if trial.trial_id in self._runs:
            return
        history = self._histories.setdefault(
            trial.trial_id, TrialHistory(run_id(self._target.search_name, trial.trial_id))
        )
        number = re.match(r"\d+", trial.experiment_tag or "")
        name = run_name(number[0] if number else trial.trial_id, trial.config, self._free_parameters)
        stop = partial(self._stop_requests.add, trial.trial_id)
        for mode in MODES_TO_TRY[self.mode]:
            try:
                run = open_run(self._target, mode, name, trial.config, history, stop)
            except Exception as error:  # whatever W&B's trouble is, the trial goes on
                self._fall_back(mode, error)
                # The client keeps the id of a run that it could not start ("run ID … is in use", 0.31).
                history.run_id = run_id(self._target.search_name, f"{trial.trial_id}-offline")
                history.sent = False
            else:
                self._runs[trial.trial_id] = run
                return

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log one epoch: a row for each training row, the epoch's own metrics with the last."""
        self.log_trial_start(trial)
        run = self._runs.get(trial.trial_id)
        if run is None:  # W&B is off
            return
        history = self._histories[trial.trial_id]
        new_rows = history.add_result(result)
        best = history.best(self._metric, self._goal)
        try:
            for step, row in new_rows:
                run.log(row, step=step, commit=True)
            if best is not None:
                # The summary shows each metric's last value; a name of its own leaves those names alone.
                run.summary[f"best_{self._metric}"] = best
        except Exception as error:
            self._say_once(f"W&B stopped taking rows ({_one_line(error)}); the search goes on without them.")

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Close the trial's run: exit code 1 if it failed, else 0 with its status in the summary."""
        history = self._histories.get(trial.trial_id)
        if history is None:  # its run was never opened
            return
        if failed:
            self._close(trial.trial_id, 1, "failed", history.message)
        else:
            # The last result of a trial that a scheduler ended still says running.
            status = "stopped early" if history.status == "running" else history.status
            self._close(trial.trial_id, 0, status, history.message)
            del self._histories[trial.trial_id]

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Close the runs still open (an interrupted search's) and wait for all uploads, for a bounded time."""
        for trial_id in list(self._runs):
            self._close(trial_id, INTERRUPTED_EXIT_CODE, "interrupted", "")
        deadline_seconds = time.monotonic() + self._target.finish_seconds + 5
        for trial_id, thread in self._finishing.items():
            thread.join(max(0.0, deadline_seconds - time.monotonic()))
            if thread.is_alive():
                self._cut_off.append(trial_id)
        if self._cut_off:
            self._say_once(
                f"W&B: the upload of {len(self._cut_off)} run(s) was cut off after {self._target.finish_seconds:g} s. "
                f"Every row is in {self._target.folder / 'wandb'}; `wandb sync --include-online --id NEW_ID "
                "RUN_FOLDER` uploads one of them as a new, complete run."
            )
        self._finishing.clear()

    def _close(self, trial_id: str, exit_code: int, status: str, message: str) -> None:
        """Finish a run in a thread of its own: an upload can be slow, and trials wait for the driver."""
        run = self._runs.pop(trial_id, None)
        if run is not None:
            arguments = (trial_id, run, exit_code, status, message)
            thread = threading.Thread(target=self._finish, args=arguments, daemon=True)
            self._finishing[trial_id] = thread
            thread.start()

    def _finish(self, trial_id: str, run: wandb.Run, exit_code: int, status: str, message: str) -> None:
        try:
            close_run(run, exit_code, status, message)
        except TimeoutError:
            self._cut_off.append(trial_id)
        except Exception as error:
            self._say_once(f"W&B could not finish a run ({_one_line(error)}); its rows up to here are on disk.")

    def _fall_back(self, mode: Mode, error: Exception) -> None:
        if mode == "online":
            self.mode = "offline"
            self._say_once(f"W&B cannot be reached ({_one_line(error)}); runs from here on go to disk.")
        else:
            self.mode = "disabled"
            self._say_once(f"W&B cannot start a run ({_one_line(error)}); runs from here on are not logged.")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            logger.warning(line)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
