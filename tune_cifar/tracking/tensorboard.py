"""Writes one TensorBoard run a trial under the search's folder, by Ray's own logger with its noise left out.

Ray's logger writes every number of a result, clocks and counters included, below `ray/tune/` in a folder named by the
trial's id, and the epochs that a resumed trial runs again a second time (ray 2.60).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import TBXLoggerCallback

from tune_cifar.results import ENDED, TrialRecord
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric
from tune_cifar.tracking.run_names import run_name

TENSORBOARD_FOLDER = "tensorboard"
FLUSH_SECONDS = 5
# The metrics of an epoch, and what TensorBoard calls them: it has no spaces or brackets in names.
SCALARS = {
    "train_loss": "train_loss",
    "val_loss": "val_loss",
    "val_accuracy": "val_accuracy",
    "lr": "lr",
    "epoch_runtime (seconds)": "epoch_runtime_seconds",
}


class SearchTensorBoard(TBXLoggerCallback):  # type: ignore[misc]  # Ray has no types
    """Scalars by epoch, the best value of the metric so far, and the parameters once a trial has ended.

    Ray adds its own logger where there is none, so this takes its place. It must stand after `log` in Tune's list of
    callbacks. `free_parameters` name the runs as they do in W&B.
    """

    def __init__(self, folder: Path, log: SearchLog, metric: Metric, free_parameters: Sequence[str]) -> None:
        super().__init__()
        self._folder = folder / TENSORBOARD_FOLDER
        self._log = log
        self._metric = metric
        self._free_parameters = tuple(free_parameters)
        self._points: dict[str, dict[int, dict[str, float]]] = {}

    def get_state(self) -> dict[str, Any]:
        """The points of trials that may still go on, for Tune's snapshot."""
        return {"points": self._points}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_state` gave."""
        self._points = state["points"]

    def recall(self, record: TrialRecord, results: Sequence[Mapping[str, Any]]) -> None:
        """Take in a trial of an earlier process whose state is lost, with Tune's result of each epoch."""
        if record.status in ENDED:
            return
        self._points[record.trial_id] = {}
        for result in results:
            so_far = replace(record, epochs=[row for row in record.epochs if row["epoch"] <= result["epoch"]])
            self._points[record.trial_id][result["epoch"]] = self._values(so_far, result)

    def log_trial_start(self, trial: Trial) -> None:
        """Close what an earlier attempt of the trial has open; a file is opened with the first result."""
        writer = self._trial_writer.pop(trial, None)
        if writer is not None:
            writer.close()

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Write one epoch, and where the trial goes on in another process those before it again."""
        epoch = result["epoch"]
        known = self._points.get(trial.trial_id, {})
        points = {earlier: values for earlier, values in known.items() if earlier < epoch}
        points[epoch] = self._values(self._log.record_of(trial), result)
        self._points[trial.trial_id] = points
        is_open = trial in self._trial_writer
        writer = self._trial_writer[trial] if is_open else self._open(trial)
        for step, values in points.items() if not is_open else [(epoch, points[epoch])]:
            for tag, value in values.items():
                writer.add_scalar(tag, value, global_step=step)
        # Ray's logger writes these beside the parameters at the end, of which `lr` is one already.
        self._trial_result[trial] = {tag: value for tag, value in points[epoch].items() if tag != "lr"}

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Write the parameters and close the file."""
        super().log_trial_end(trial, failed)
        self._points.pop(trial.trial_id, None)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Close what is still open: the search was interrupted."""
        for trial in list(self._trial_writer):
            self.log_trial_start(trial)

    def _values(self, record: TrialRecord, result: Mapping[str, Any]) -> dict[str, float]:
        values = {tag: result[name] for name, tag in SCALARS.items() if name in result}
        values[f"best_{self._metric.name}"] = record.best_value(self._metric)
        return {tag: float(value) for tag, value in values.items() if value is not None and math.isfinite(value)}

    def _open(self, trial: Trial) -> Any:
        name = run_name(self._log.record_of(trial).number, trial.config, self._free_parameters)
        self._trial_writer[trial] = self._summary_writer_cls(
            str(self._folder / name),
            # TensorBoard forgets what earlier files have: a process that was killed may not have written it all.
            purge_step=1,
            # Names with seconds alone would have a second file in the same second overwrite the first.
            filename_suffix=f".{time.time_ns()}",
            flush_secs=FLUSH_SECONDS,
        )
        return self._trial_writer[trial]
