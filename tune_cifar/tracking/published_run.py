"""Tells the best trial's W&B run where its model is, when it was published by hand after the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tune_cifar.report.tables import SUMMARY_FILE, BestModel
from tune_cifar.runner.known_trials import KnownTrial, read_known_trials
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.saved_json import read_json
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.tracking.best_run import mark_best_run, marked_run
from tune_cifar.tracking.wandb_mode import choose_mode, sync_command
from tune_cifar.tracking.wandb_run import unsent_runs
from tune_cifar.tracking.wandb_search import make_callback
from tune_cifar.tracking.wandb_sweep import saved_sweep


def tell_best_run(folder: Path, config: SweepConfig, settings: SearchSettings) -> list[str]:
    """Write where the model of the search in `folder` is into the best trial's run; returns lines to print.

    A run that W&B's server has needs a key, as in the search; without one this goes to disk too. Does nothing where the
    search wrote no W&B runs. Raises `UserError` for a key of the wrong form.
    """
    marked = marked_run(folder)
    best = _trial(folder, config, marked[0]) if marked else None
    if best is None:
        return []
    try:
        summary = read_json(folder / SUMMARY_FILE, dict[str, Any])
        model, data_name = BestModel(**summary["best"]), summary["data"]["name"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [f"the best trial's run was not told of it: {folder / SUMMARY_FILE} cannot be read ({error})"]
    mode, _ = choose_mode(None)
    named_by = [*SearchSpace(config).distributions, *(["seed"] if settings.repeat_best else [])]
    log = SearchLog(config.metric.name)
    callback = make_callback(config, folder, mode, data_name, log, named_by, saved_sweep(folder))
    callback.recall(best.record, best.results)
    mark_best_run(callback, folder, model, None)
    if marked_run(folder) == marked:  # it said so before, or W&B did not take it, which is told
        return []
    return [f"the best trial's run says where its model is{_by_sync(folder)}"]


def _trial(folder: Path, config: SweepConfig, trial_id: str) -> KnownTrial | None:
    known, _ = read_known_trials(folder, config.metric, None)
    return next((trial for trial in known if trial.record.trial_id == trial_id), None)


def _by_sync(folder: Path) -> str:
    return f", once it is there: {sync_command(folder)}" if unsent_runs(folder) else ""
