"""`python -m tune_cifar.search SWEEP.yaml`: a W&B sweep file, run as a search on Ray Tune."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cifar.bucket_results import BucketCopy, bucket_of_search, bucket_to_resume
from tune_cifar.cluster.origin import check_runs_here
from tune_cifar.command import run_command
from tune_cifar.console import SearchConsole
from tune_cifar.early_end import tell_early_end
from tune_cifar.errors import UserError
from tune_cifar.files import describe_disk_error, disk_error
from tune_cifar.finalists import plan_repeats
from tune_cifar.limits import EarlyEnd, limits_from
from tune_cifar.publish.flags import publishing_from
from tune_cifar.request import SearchRequest
from tune_cifar.runner.bucket_state import choose_start_of
from tune_cifar.search_flags import DEFAULT_SWEEP, default_flags, parse_search_flags, with_project
from tune_cifar.settings import SearchSettings, check_free, default_name, load_settings, newest_search, search_folder
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.source import read_text
from tune_cifar.tracking.wandb_place import choose_place, in_place
from tune_cifar.trial.config import EPOCH_METRICS, TrialConfig, check_parameter

if TYPE_CHECKING:
    from tune_cifar.sweep.prior import Prior


def main(arguments: Sequence[str]) -> int:
    """Check everything a user can get wrong, then plan, run and report the search."""
    args = parse_search_flags(arguments)
    if (complete := with_project(arguments, args)) != list(arguments):
        arguments, args = complete, parse_search_flags(complete)
    console = SearchConsole(quiet=args.quiet)
    if args.address and (args.attach or args.stop or args.resume):
        from tune_cifar.cluster.remote import go_on_with_search

        return go_on_with_search(args, arguments, console)
    # A search on a cluster is checked here in silence, and says the same again there.
    told = console if args.dry_run or not args.address else SearchConsole(file=io.StringIO())
    given = {name: getattr(args, name) for name in SearchSettings.__dataclass_fields__}
    if args.rebuild and not args.resume:
        raise UserError("--rebuild is for a search that is resumed. Give --resume too, and --name.")
    if args.resume:
        folder = search_folder(args.results, args.name) if args.name else newest_search(args.results)
        bucket = bucket_to_resume(args.bucket, folder, partial(told.print, soft_wrap=True, markup=False))
        check_runs_here(folder)
        saved, sweep_file = load_settings(folder)
        settings = saved.resumed_with(given)
        config = load_sweep(sweep_file, check_parameter, EPOCH_METRICS)
        if args.sweep and read_text(args.sweep) != read_text(sweep_file):
            raise UserError(f"{args.sweep} differs from the sweep file that {folder} was started with ({sweep_file}).")
    else:
        sweep_file = args.sweep or DEFAULT_SWEEP
        config = load_sweep(sweep_file, check_parameter, EPOCH_METRICS)
        place = choose_place(config, args.wandb_project, args.wandb_entity)
        settings = SearchSettings(**{**given, **default_flags(args), **place})
        name = args.name or default_name(config.name or sweep_file.stem, datetime.now())
        folder = search_folder(args.results, name)
        check_free(folder)
        bucket = bucket_of_search(args.bucket, name) if args.bucket else None
        if bucket:
            bucket.check_free()
    config = in_place(config, settings)
    for line in config.warnings:
        told.print(f"warning  {line}", soft_wrap=True, markup=False)
    for line in config.notes:
        told.print(f"note     {line}", soft_wrap=True, markup=False)
    repeats = plan_repeats(config, repeat_best=settings.repeat_best, seeds=settings.seeds, search_seed=settings.seed)
    prior = _prior(config, settings, folder, resume=args.resume, console=told) if settings.prior else None
    if args.address:
        from tune_cifar.cluster.remote import search_on_cluster

        return search_on_cluster(args, arguments, folder, sweep_file, console)
    publishing = publishing_from(args, folder, config) if args.publish else None
    if args.export:
        from tune_cifar.publish.onnx_export import check_onnx  # imports torch, which takes seconds

        check_onnx()
    request = SearchRequest(
        config,
        settings,
        folder,
        args.wandb,
        args.resume,
        console,
        repeats,
        prior,
        publishing,
        limits_from(args),
        rebuild=args.rebuild,
        bucket=bucket,
        export_onnx=args.export == "onnx",
    )
    if args.dry_run:
        return dry_run(request)
    with request.lock:
        if bucket is None:
            return search(request)
        with BucketCopy(bucket, folder, partial(console.print, soft_wrap=True, markup=False)) as copy:
            exit_code = search(request)
        return exit_code or copy.exit_code


def _prior(
    config: SweepConfig, settings: SearchSettings, folder: Path, *, resume: bool, console: SearchConsole
) -> Prior:
    """The trials of earlier searches that this one starts with, told in a line a file; a resume has them kept."""
    from tune_cifar.sweep.prior import load_prior, read_prior
    from tune_cifar.sweep.space import SearchSpace

    if resume:
        prior = load_prior(folder, SearchSpace(config))
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
    from tune_cifar.planning import plan_for, slots_for
    from tune_cifar.runner.resources import this_machine
    from tune_cifar.sweep.space import SearchSpace
    from tune_cifar.tracking.plan_view import print_plan, print_space

    config, settings, console = request.config, request.settings, request.console
    asked = None if settings.gpus_per_trial == "auto" else settings.gpus_per_trial
    slots = slots_for(settings, [this_machine()], asked)
    measured_later = settings.gpus_per_trial == "auto" and slots.gpus_per_trial > 0
    sharing = "auto is measured when the search starts; this plan has one trial a GPU" if measured_later else None
    space = SearchSpace(config)
    plan = plan_for(request, space, slots)
    print_space(space, console)
    print_plan(config, plan, slots, settings, request.folder, console, sharing=sharing, bucket=request.bucket)
    if request.export_onnx:
        console.print("export   at the end the best model as ONNX, compared with torch on test images", soft_wrap=True)
    if request.publishing:
        request.publishing.preview(console)
    console.print("Nothing was started: --dry-run.")
    return 0


def search(request: SearchRequest) -> int:
    """Run the search and write its results into `folder`; returns the exit code."""
    # torch, Ray and W&B take seconds to import: what a user can get wrong is told before.
    from tune_cifar.tracking.wandb_mode import choose_mode
    from tune_cifar.trial.data import load_dataset

    settings, folder, console = request.settings, request.folder, request.console
    start_seconds = time.monotonic()
    if request.resume:
        choose_start_of(folder, request.bucket, rebuild=request.rebuild)
    wandb_mode, wandb_reason = choose_mode(request.wandb)
    data = load_dataset(settings.data, train_images=settings.train_images)

    from tune_cifar.search_end import finish_search
    from tune_cifar.search_trials import run_trials

    outcome, wandb_callback = run_trials(request, data, wandb_mode, wandb_reason)
    try:
        return finish_search(request, data, outcome, wandb_callback, start_seconds)
    except Exception as failure:
        error = disk_error(failure)
        if error is None:
            raise
        early_end = EarlyEnd("disk", describe_disk_error(error, folder))
        return tell_early_end(early_end, folder, outcome.trials, outcome.best, request.limits, console)


if __name__ == "__main__":
    sys.exit(run_command(main))
