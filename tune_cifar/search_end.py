"""Ends a search: results, model, W&B's last rows, publishing and the report, whether all trials ran or not.

Importing this takes seconds (torch, W&B), so the command does it when its trials have run.
"""

from __future__ import annotations

import time
from functools import partial

from tune_cifar.command import EXIT_NOT_PUBLISHED, EXIT_NOTHING_FINISHED
from tune_cifar.early_end import tell_early_end, why_no_model
from tune_cifar.errors import UserError
from tune_cifar.report.finish import print_finalists, print_results, write_results
from tune_cifar.report.lessons import lessons
from tune_cifar.report.report import try_report
from tune_cifar.request import SearchRequest
from tune_cifar.runner.outcome import SearchOutcome
from tune_cifar.tracking.wandb_callback import SearchWandbCallback
from tune_cifar.tracking.wandb_search import finish_tracking
from tune_cifar.trial.data import ImageDataset


def finish_search(
    request: SearchRequest,
    data: ImageDataset,
    outcome: SearchOutcome,
    wandb_callback: SearchWandbCallback,
    start_seconds: float,
) -> int:
    """Write and tell what a search has found, whether it is complete or not; returns the exit code."""
    config, settings, folder, console = request.config, request.settings, request.folder, request.console
    early_end, best = outcome.early_end, outcome.best
    no_model = why_no_model(early_end, best, data) if early_end and best else ""
    model = write_results(
        folder,
        trials=outcome.trials,
        best=best,
        best_weights=None if no_model else outcome.best_weights,
        metric=config.metric,
        data=data,
        interrupted=outcome.interrupted,
        stopped_by=early_end.cause if early_end else None,
        wall_seconds=time.monotonic() - start_seconds,
        finalists=outcome.finalists,
        winner=outcome.winner,
    )
    print_finalists(outcome.finalists, outcome.winner, outcome.best, config.metric, console)
    learned = lessons(config, outcome.trials, outcome.finalists, outcome.best)
    print_results(folder, outcome.trials, model, settings, learned, console)
    if no_model:
        console.print(f"best     its model is not written: {no_model}; a resume writes it")
    done = outcome.best is not None and not outcome.interrupted
    exit_code = max(export_model(request, data), _publish(request)) if done else EXIT_NOTHING_FINISHED
    for line in finish_tracking(
        wandb_callback, folder, model, data, settings.prediction_images, complete=not outcome.interrupted
    ):
        console.print(f"wandb    {line}", soft_wrap=True, markup=False)
    console.print(try_report(folder), soft_wrap=True, markup=False)
    if outcome.stopped_because:
        console.print(f"stopped  {outcome.stopped_because} Mend that first.", soft_wrap=True, markup=False)
    if early_end:
        exit_code = tell_early_end(early_end, folder, outcome.trials, best, request.limits, console)
        if request.export_onnx and model:
            line = f"Not exported, since a better trial may come. As it is: python -m tune_cifar.export {folder} onnx"
            console.print(line, soft_wrap=True, markup=False)
        if request.publishing and model:
            request.publishing.put_off(console)
    return EXIT_NOTHING_FINISHED if outcome.stopped_because else exit_code


def export_model(request: SearchRequest, data: ImageDataset) -> int:
    """Export the model where that was asked for; where it does not work, the weights are still to be published."""
    if not request.export_onnx:
        return 0
    from tune_cifar.export import export_best

    say = partial(request.console.print, soft_wrap=True, markup=False)
    try:
        return 0 if export_best(request.folder, data, say) else EXIT_NOT_PUBLISHED
    except Exception as error:  # torch's exporter raises whatever it stumbles on
        say(f"failed   to export: {type(error).__name__}: {' '.join(str(error).split())[:400]}")
        return EXIT_NOT_PUBLISHED


def _publish(request: SearchRequest) -> int:
    """Publish the model where that was asked for; whatever comes of it, W&B and the report are still to be written."""
    if request.publishing is None:
        return 0
    try:
        return request.publishing.run(request.console)
    except UserError as error:
        request.console.print(f"failed   to publish: {error}", soft_wrap=True, markup=False)
        return EXIT_NOT_PUBLISHED
