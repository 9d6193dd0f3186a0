"""What a search tells W&B before its first trial and after its last one, so that `search` needs two calls for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tune_cifar.report.predictions import predict_with_best
from tune_cifar.report.tables import BestModel
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.tracking.best_run import mark_best_run
from tune_cifar.tracking.wandb_callback import SearchWandbCallback
from tune_cifar.tracking.wandb_mode import Mode, sync_command
from tune_cifar.tracking.wandb_place import DEFAULT_PROJECT
from tune_cifar.tracking.wandb_run import MAX_TAG_CHARACTERS, unsent_runs
from tune_cifar.tracking.wandb_sweep import WandbSweep, finish_sweep, open_sweep, sweep_page
from tune_cifar.trial.data import ImageDataset


def open_tracking(
    config: SweepConfig, folder: Path, mode: Mode, data_name: str, log: SearchLog, free_parameters: Sequence[str]
) -> tuple[SearchWandbCallback, str | None]:
    """The callback that logs the trials of the search in `folder`, and a line about its sweep where W&B is online."""
    project = config.project or DEFAULT_PROJECT
    sweep, line = open_sweep(config, project, folder) if mode == "online" else (None, None)
    return make_callback(config, folder, mode, data_name, log, free_parameters, sweep), line


def make_callback(
    config: SweepConfig,
    folder: Path,
    mode: Mode,
    data_name: str,
    log: SearchLog,
    free_parameters: Sequence[str],
    sweep: WandbSweep | None = None,
) -> SearchWandbCallback:
    """The callback alone; `free_parameters` name the runs, which join `sweep` if there is one."""
    return SearchWandbCallback(
        project=config.project or DEFAULT_PROJECT,
        # With the sweep's own, a resume stays there, whatever the environment says by then.
        entity=config.entity or (sweep.entity if sweep else None),
        group=folder.name,
        folder=folder,
        mode=mode,
        log=log,
        metric=config.metric.name,
        goal=config.metric.goal,
        notes=config.description or f"A trial of the search {folder.name} on {data_name}",
        tags=[tag for tag in (config.method, data_name[:MAX_TAG_CHARACTERS]) if tag],
        free_parameters=free_parameters,
        sweep_id=sweep.name if sweep else None,
    )


def finish_tracking(
    callback: SearchWandbCallback,
    folder: Path,
    model: BestModel | None,
    data: ImageDataset,
    prediction_images: int | Literal["all"],
    *,
    complete: bool,
) -> list[str]:
    """Write the best model's predictions, mark its run if the search is `complete`; returns lines to print."""
    lines: list[str | None] = []
    if model:
        predictions = predict_with_best(folder, model, data, prediction_images)
        if complete:  # else a resume may still find a better one
            mark_best_run(callback, folder, model, predictions)
    if complete and callback.has_sweep:  # also where runs have gone to disk since: the server may be back
        lines += [finish_sweep(folder), sweep_page(folder)]
    if unsent_runs(folder):  # offline from the start, or since the server could not be reached
        lines.append(sync_command(folder))
    return [line for line in lines if line]
