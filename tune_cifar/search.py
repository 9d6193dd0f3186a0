"""`python -m tune_cifar.search SWEEP.yaml`: a W&B sweep file, run as a search on Ray Tune."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cifar.command import EXIT_INTERRUPTED, EXIT_NOT_PUBLISHED, EXIT_NOTHING_FINISHED, run_command
from tune_cifar.console import SearchConsole
from tune_cifar.errors import UserError
from tune_cifar.finalists import plan_repeats
from tune_cifar.publish.flags import publishing_from
from tune_cifar.request import SearchRequest
from tune_cifar.search_flags import DEFAULT_SWEEP, default_flags, parse_search_flags
from tune_cifar.settings import SearchSettings, check_free, load_settings, newest_search, search_folder
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.tracking.wandb_place import choose_place, in_place
from tune_cifar.trial.config import EPOCH_METRICS, TrialConfig, check_parameter

if TYPE_CHECKING:
    from tune_cifar.sweep.prior import Prior


def main(arguments: Sequence[str]) -> int:
    """Check everything a user can get wrong, then plan, run and report the search."""
    args = parse_search_flags(arguments)
    console = SearchConsole(quiet=args.quiet)
    given = {name: getattr(args, name) for name in SearchSettings.__dataclass_fields__}
    if args.resume:
        folder = search_folder(args.results, args.name) if args.name else newest_search(args.results)
        saved, sweep_file = load_settings(folder)
        settings = saved.resumed_with(given)
        if args.sweep and args.sweep.read_bytes() != sweep_file.read_bytes():
            raise UserError(f"{args.sweep} differs from the sweep file that {folder} was started with ({sweep_file}).")
        config = load_sweep(sweep_file, check_parameter, EPOCH_METRICS)
    else:
        sweep_file = args.sweep or DEFAULT_SWEEP
        config = load_sweep(sweep_file, check_parameter, EPOCH_METRICS)
        place = choose_place(config, args.wandb_project, args.wandb_entity)
        settings = SearchSettings(**{**given, **default_flags(args), **place})
        name = args.name or f"{config.name or sweep_file.stem}-{datetime.now():%Y%m%d-%H%M%S}"
        folder = search_folder(args.results, name)
        check_free(folder)
    config = in_place(config, settings)
    for line in config.warnings:
        console.print(f"warning  {line}", soft_wrap=True, markup=False)
    for line in config.notes:
        console.print(f"note     {line}", soft_wrap=True, markup=False)
    repeats = plan_repeats(config, repeat_best=settings.repeat_best, seeds=settings.seeds, search_seed=settings.seed)
    prior = _prior(config, settings, folder, resume=args.resume, console=console) if settings.prior else None
    publishing = publishing_from(args, folder, config) if args.publish else None
    request = SearchRequest(config, settings, folder, args.wandb, args.resume, console, repeats, prior, publishing)
    return dry_run(request) if args.dry_run else search(request)


def _prior(
    config: SweepConfig, settings: SearchSettings, folder: Path, *, resume: bool, console: SearchConsole
) -> Prior:
    """The trials of earlier searches that this one starts with, told in a line a file; a resume has them kept."""
    from tune_cifar.sweep.prior import load_prior, read_prior
    from tune_cifar.sweep.space import SearchSpace

    if resume:
        prior = load_prior(folder)
    else:
        paths = map(Path, settings.prior or ())
        prior = read_prior(paths, config, SearchSpace(config), TrialConfig().as_dict())
    for line in prior.lines:
        console.details.print(f"prior    {line}", soft_wrap=True, markup=False)
    for line in prior.warnings:
        console.print(f"warning  {line}", soft_wrap=True, markup=False)
    return prior


def dry_run(request: SearchRequest) -> int:
    """Print what a search would do on this machine, without starting anything."""
    from tune_cifar.runner.resources import plan_slots, this_machine
    from tune_cifar.sweep.searcher import plan_search
    from tune_cifar.sweep.space import SearchSpace
    from tune_cifar.tracking.plan_view import print_plan, print_space

    config, settings, console = request.config, request.settings, request.console
    slots = plan_slots(
        [this_machine()],
        cpus_per_trial=settings.cpus_per_trial,
        gpus_per_trial=None if settings.gpus_per_trial == "auto" else settings.gpus_per_trial,
        trials_at_once=settings.trials_at_once,
    )
    measured_later = settings.gpus_per_trial == "auto" and slots.gpus_per_trial > 0
    sharing = "auto is measured when the search starts; this plan has one trial a GPU" if measured_later else None
    space = SearchSpace(config)
    plan = plan_search(
        config,
        space,
        num_trials=settings.count,
        seed=settings.seed,
        trials_at_once=slots.trials_at_once,
        prior_trials=request.prior_trials,
    )
    print_space(space, console)
    print_plan(config, plan, slots, settings, request.folder, console, sharing=sharing)
    if request.publishing:
        request.publishing.preview(console)
    console.print("Nothing was started: --dry-run.")
    return 0


def search(request: SearchRequest) -> int:
    """Run the search and write its results into `folder`; returns the exit code."""
    # torch, Ray and W&B take seconds to import: what a user can get wrong is told before.
    from tune_cifar.tracking.wandb_mode import choose_mode
    from tune_cifar.trial.data import load_dataset

    config, settings, folder, console = request.config, request.settings, request.folder, request.console
    start_seconds = time.monotonic()
    wandb_mode, wandb_reason = choose_mode(request.wandb)
    data = load_dataset(settings.data, train_images=settings.train_images)

    from tune_cifar.report.finish import print_finalists, print_results, write_results
    from tune_cifar.report.lessons import lessons
    from tune_cifar.report.report import try_report
    from tune_cifar.search_trials import run_trials
    from tune_cifar.tracking.wandb_search import finish_tracking

    outcome, wandb_callback = run_trials(request, data, wandb_mode, wandb_reason)
    model = write_results(
        folder,
        trials=outcome.trials,
        best=outcome.best,
        best_weights=outcome.best_weights,
        metric=config.metric,
        data=data,
        interrupted=outcome.interrupted,
        wall_seconds=time.monotonic() - start_seconds,
        finalists=outcome.finalists,
        winner=outcome.winner,
    )
    print_finalists(outcome.finalists, outcome.winner, outcome.best, config.metric, console)
    learned = lessons(config, outcome.trials, outcome.finalists, outcome.best)
    print_results(folder, outcome.trials, model, settings, learned, console)
    done = outcome.best is not None and not outcome.interrupted
    exit_code = _publish(request) if done else EXIT_NOTHING_FINISHED
    for line in finish_tracking(
        wandb_callback, folder, model, data, settings.prediction_images, complete=not outcome.interrupted
    ):
        console.print(f"wandb    {line}", soft_wrap=True, markup=False)
    console.print(try_report(folder), soft_wrap=True, markup=False)
    if outcome.interrupted:
        again = f"python -m tune_cifar.search --resume --results {shlex.quote(str(folder.parent))} --name {folder.name}"
        console.print(f"Stopped before the end. What finished is kept; go on with: {again}", soft_wrap=True)
        if request.publishing and model:
            request.publishing.put_off(console)
        return EXIT_INTERRUPTED
    return exit_code


def _publish(request: SearchRequest) -> int:
    """Publish the model where that was asked for; whatever comes of it, W&B and the report are still to be written."""
    if request.publishing is None:
        return 0
    try:
        return request.publishing.run(request.console)
    except UserError as error:
        request.console.print(f"failed   to publish: {error}", soft_wrap=True, markup=False)
        return EXIT_NOT_PUBLISHED


if __name__ == "__main__":
    sys.exit(run_command(main))
