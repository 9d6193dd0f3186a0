"""Logs every trial as one complete W&B run from the driver process, in place of Ray's two actors a trial.

Ray's own callback was measured at 2.8 to 3.8 s a trial, cut off the last runs' files and ended a failed trial with
exit code 0; one client in the driver costs well under 0.15 s a trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.experiment import Trial

from tune_cifar.results import ENDED, TrialRecord
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.tracking.run_names import run_id, run_name
from tune_cifar.tracking.run_writer import RunWriter
from tune_cifar.tracking.trial_history import TrialHistory
from tune_cifar.tracking.wandb_mode import Mode, set_up_client
from tune_cifar.tracking.wandb_run import Amendment, RunTarget, TrialRun, find_run

# The code by which W&B itself marks a script ended by Ctrl-C, shown as "killed" until the run goes on.
INTERRUPTED_EXIT_CODE = 255
SECONDS_FOR_RESULTS = 8.0
"""What a search that has to end in time still needs after its W&B runs are closed: tables, report, the best model."""


_End = tuple[int, dict[str, str]]
"""The exit code of a run and what its summary says of the end."""


class SearchWandbCallback(WandbLoggerCallback):  # type: ignore[misc]  # Ray has no types
    """One W&B run a trial: metrics by step, the config, the best of history, tags and an exit code.

    `group` is the search's name, `folder` gets the `wandb` folder, `log` numbers the trials, `free_parameters` name
    their runs, and `sweep_id` is the W&B sweep that these join. A trial that goes on after a resume goes on in its
    run. Each of Tune's calls returns at once, and trouble with W&B is logged in one line and never reaches a trial:
    where the server cannot be reached in `init_seconds`, this and later runs go to disk. The callback pickles (Tune
    stores it) and holds no key. Raises `UserError` for a project or tag that W&B would refuse.
    """

    def __init__(
        self,
        *,
        project: str,
        group: str,
        folder: Path,
        mode: Mode,
        log: SearchLog,
        metric: str,
        goal: Literal["minimize", "maximize"],
        entity: str | None = None,
        notes: str | None = None,
        tags: Sequence[str] = (),
        free_parameters: Sequence[str] = (),
        sweep_id: str | None = None,
        init_seconds: float = 20.0,
        finish_seconds: float = 60.0,
    ) -> None:
        super().__init__(project=project, group=group)
        self._target = RunTarget(
            project=project,
            entity=entity,
            search_name=group,
            folder=folder.absolute(),
            notes=notes,
            tags=tuple(tags),
            sweep_id=sweep_id,
            init_seconds=init_seconds,
            finish_seconds=finish_seconds,
        )
        self._log = log
        self._metric = metric
        self._goal: Literal["minimize", "maximize"] = goal
        self._free_parameters = tuple(free_parameters)
        self._trial_runs: dict[str, TrialRun] = {}
        self._histories: dict[str, TrialHistory] = {}
        self._ended: dict[str, _End] = {}
        self._writing: set[str] = set()
        self._open: set[str] = set()
        self._writer = RunWriter(self._target, mode)

    def __del__(self) -> None:
        """Ray's own ends its actors here; there are none, and at exit Ray may be gone."""

    def __getstate__(self) -> dict[str, Any]:
        # Threads and open runs belong to this process alone.
        return {**self.__dict__, "_open": set(), "_writing": set(), "_writer": self._writer.mode}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._writer = RunWriter(self._target, state["_writer"])

    def get_state(self) -> dict[str, Any] | None:
        """The run of every trial, and the rows of those that are not written to their end, for Tune's snapshot."""
        if not self._trial_runs:
            return None
        self._forget_written()
        # Not by `asdict`, whose deep copies were a third of a snapshot's time: Tune pickles these at once.
        return {
            "runs": {trial_id: {**vars(trial_run)} for trial_id, trial_run in self._trial_runs.items()},
            "histories": {trial_id: {**vars(history)} for trial_id, history in self._histories.items()},
            "ended": dict(self._ended),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_state` gave."""
        self._trial_runs = {trial_id: TrialRun(**trial_run) for trial_id, trial_run in state["runs"].items()}
        self._histories = {trial_id: TrialHistory(**history) for trial_id, history in state["histories"].items()}
        self._ended = dict(state.get("ended", {}))

    def _forget_written(self) -> None:
        """Drop the rows of trials that have ended and whose runs are closed."""
        for trial_id, (exit_code, _) in list(self._ended.items()):
            if self._writer.closed.has(trial_id, exit_code):
                del self._ended[trial_id]
                if exit_code == 0:  # a failed trial may be tried again, and goes on in its run
                    del self._histories[trial_id]

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tune's loop comes by."""
        self._write_ended()

    def _write_ended(self) -> None:
        """Write the runs of trials that had ended when an earlier process was killed before it had written them."""
        if self._ended.keys() <= self._writing or self.mode == "disabled":
            return
        self._forget_written()
        for trial_id in self._ended.keys() - self._writing:
            self._writing.add(trial_id)
            config, history = self._log.trials[trial_id].config, self._histories[trial_id]
            exit_code, ended = self._ended[trial_id]
            self._writer.open(trial_id, self._trial_runs[trial_id], config, history.rows)
            self._writer.close(trial_id, exit_code, {**self._best(history), **ended})

    def recall(self, record: TrialRecord, results: Sequence[Mapping[str, Any]]) -> None:
        """Take in a trial of an earlier process whose state is lost, with Tune's result of each epoch.

        One that has not ended goes on in its run; of one that has, the run is written unless it was closed, and can be
        amended.
        """
        if self.mode == "disabled":
            return
        trial_run = find_run(self._target, record.trial_id)
        trial_run.name = run_name(record.number, record.config, self._free_parameters)
        trial_run.is_repeat = record.repeat_of is not None
        history = TrialHistory()
        for result in results:
            history.add_result(result)
        self._trial_runs[record.trial_id] = trial_run
        self._histories[record.trial_id] = history
        if record.status in ENDED:
            failed = record.status == "failed"
            status = "stopped early" if record.status == "stopped" else record.status
            ended = _end_of_summary(status, record.message)
            trial_run.summary = {**history.last_values, **self._best(history), **ended}
            self._ended[record.trial_id] = (int(failed), ended)

    @property
    def has_sweep(self) -> bool:
        """Whether the runs join a W&B sweep."""
        return self._target.sweep_id is not None

    @property
    def mode(self) -> Mode:
        """Where runs go now: what was asked for, or less where that did not work."""
        return self._writer.mode

    def stop_requested(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether Stop was pressed on the trial's W&B page; has the form of Tune's `stop` function."""
        return trial_id in self._writer.stop_requests

    def setup(self, *args: Any, **info: Any) -> None:
        """Quiet the client; Ray's own would look for a key and store it in the environment."""
        if self.mode != "disabled":
            set_up_client()

    def log_trial_start(self, trial: Trial) -> None:
        """Open the trial's run, unless it is open (a trial retried after an error)."""
        if self.mode == "disabled" or trial.trial_id in self._open:
            return
        self._open.add(trial.trial_id)
        self._ended.pop(trial.trial_id, None)
        if trial.trial_id not in self._trial_runs:
            record = self._log.record_of(trial)
            self._trial_runs[trial.trial_id] = TrialRun(
                run_id(self._target.search_name, trial.trial_id),
                run_name(record.number, trial.config, self._free_parameters),
                is_repeat=record.repeat_of is not None,
            )
        history = self._histories.setdefault(trial.trial_id, TrialHistory())
        self._writer.open(trial.trial_id, self._trial_runs[trial.trial_id], trial.config, history.rows)

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log one epoch: a row for each training row, the epoch's own metrics with the last."""
        self.log_trial_start(trial)
        if trial.trial_id not in self._open:  # W&B is off
            return
        history = self._histories[trial.trial_id]
        rows = history.add_result(result)
        self._writer.log(trial.trial_id, rows, self._best(history))

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Close the trial's run: exit code 1 if it failed, else 0 with its status in the summary."""
        if trial.trial_id not in self._open:  # its run was never opened
            return
        self._open.remove(trial.trial_id)
        history = self._histories[trial.trial_id]
        self._writing.add(trial.trial_id)
        if failed:
            ended = self._close(trial.trial_id, 1, "failed", self._log.record_of(trial).message)
            self._ended[trial.trial_id] = (1, ended)
            return
        status, message = history.status, history.message
        if status == "running":  # the last result of a trial that a scheduler ended still says so
            status, message = "stopped early", self._log.record_of(trial).message
        ended = self._close(trial.trial_id, 0, status, message)
        self._trial_runs[trial.trial_id].summary = {**history.last_values, **self._best(history), **ended}
        self._ended[trial.trial_id] = (0, ended)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Close the runs still open (an interrupted search's) and wait for all uploads, for a bounded time."""
        self._write_ended()
        for trial_id in self._open:
            self._close(trial_id, INTERRUPTED_EXIT_CODE, "interrupted", "")
        self._open.clear()
        self._writer.wait(self._log.deadline_seconds - SECONDS_FOR_RESULTS)

    def amend(self, trial_id: str, config: Mapping[str, Any], amendment: Amendment) -> bool:
        """Add to the run of a trial that has ended, after the search; says whether W&B took it."""
        trial_run = self._trial_runs.get(trial_id)
        return trial_run is not None and self._writer.amend(trial_run, config, amendment)

    def _best(self, history: TrialHistory) -> dict[str, float]:
        best = history.best(self._metric, self._goal)
        # The summary shows each metric's last value; a name of its own leaves those names alone.
        return {} if best is None else {f"best_{self._metric}": best}

    def _close(self, trial_id: str, exit_code: int, status: str, message: str) -> dict[str, str]:
        ended = _end_of_summary(status, message)
        self._writer.close(trial_id, exit_code, ended)
        return ended


def _end_of_summary(status: str, message: str) -> dict[str, str]:
    return {"status": status} | ({"message": message} if message else {})
