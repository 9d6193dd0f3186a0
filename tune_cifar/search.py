"""`python -m tune_cifar.search SWEEP.yaml`: a W&B sweep file, run as a search on Ray Tune."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from tune_cifar.command import (
    EXIT_INTERRUPTED,
    EXIT_NOTHING_FINISHED,
    add_data_flags,
    non_negative_float,
    positive_float,
    positive_int,
    run_command,
)
from tune_cifar.errors import UserError
from tune_cifar.finalists import DEFAULT_SEEDS, Repeats, plan_repeats
from tune_cifar.publish.flags import add_publish_flags, publishing_from
from tune_cifar.settings import (
    SearchSettings,
    check_free,
    load_settings,
    make_search_folder,
    newest_search,
    save_settings,
    search_folder,
)
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.trial.config import EPOCH_METRICS, PRECISION_CHOICES, TrialConfig, check_parameter

if TYPE_CHECKING:
    from tune_cifar.publish.publishing import Publishing
    from tune_cifar.runner.resources import TrialSlots
    from tune_cifar.runner.tuning import SearchOutcome
    from tune_cifar.sweep.prior import Prior
    from tune_cifar.tracking.wandb_callback import SearchWandbCallback
    from tune_cifar.tracking.wandb_mode import Mode
    from tune_cifar.trial.data import ImageDataset

DEFAULT_SWEEP = Path("configs/sweep.yaml")


def main(arguments: Sequence[str]) -> int:
    """Check everything a user can get wrong, then plan, run and report the search."""
    args = _parse(arguments)
    console = Console(highlight=False)
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
        settings = SearchSettings(**{**given, **_defaults(args)})
        name = args.name or f"{config.name or sweep_file.stem}-{datetime.now():%Y%m%d-%H%M%S}"
        folder = search_folder(args.results, name)
        check_free(folder)
    for line in config.warnings:
        console.print(f"warning  {line}", soft_wrap=True, markup=False)
    for line in config.notes:
        console.print(f"note     {line}", soft_wrap=True, markup=False)
    repeats = plan_repeats(config, repeat_best=settings.repeat_best, seeds=settings.seeds, search_seed=settings.seed)
    prior = _prior(config, settings, folder, resume=args.resume, console=console) if settings.prior else None
    publishing = publishing_from(args, folder, config) if args.publish else None
    if args.dry_run:
        return dry_run(config, settings, folder, console, prior)
    return search(config, settings, folder, args.wandb, publishing, repeats, prior, resume=args.resume, console=console)


def _defaults(args: argparse.Namespace) -> dict[str, object]:
    """The flags that have a default; None in `args` says that one was not given, which a resume must know."""
    given = {"data": args.data or "cifar10", "seed": args.seed or 0, "precision": args.precision or "auto"}
    images = args.prediction_images
    given["prediction_images"] = SearchSettings.prediction_images if images is None else images
    return {**given, "seeds": DEFAULT_SEEDS if args.repeat_best and args.seeds is None else args.seeds}


def _prior(config: SweepConfig, settings: SearchSettings, folder: Path, *, resume: bool, console: Console) -> Prior:
    """The trials of earlier searches that this one starts with, told in a line a file; a resume has them kept."""
    from tune_cifar.sweep.prior import load_prior, read_prior
    from tune_cifar.sweep.space import SearchSpace

    if resume:
        prior = load_prior(folder)
    else:
        paths = map(Path, settings.prior or ())
        prior = read_prior(paths, config, SearchSpace(config), TrialConfig().as_dict())
    for line in prior.lines:
        console.print(f"prior    {line}", soft_wrap=True, markup=False)
    for line in prior.warnings:
        console.print(f"warning  {line}", soft_wrap=True, markup=False)
    return prior


def dry_run(
    config: SweepConfig, settings: SearchSettings, folder: Path, console: Console, prior: Prior | None = None
) -> int:
    """Print what a search would do on this machine, without starting anything."""
    from tune_cifar.runner.resources import plan_slots, this_machine
    from tune_cifar.sweep.searcher import plan_search
    from tune_cifar.sweep.space import SearchSpace
    from tune_cifar.tracking.plan_view import print_plan, print_space

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
        prior_trials=prior.trials if prior else (),
    )
    print_space(space, console)
    print_plan(config, plan, slots, settings, folder, console, sharing=sharing)
    console.print("Nothing was started: --dry-run.")
    return 0


def search(
    config: SweepConfig,
    settings: SearchSettings,
    folder: Path,
    wandb: str | None,
    publishing: Publishing | None = None,
    repeats: Repeats | None = None,
    prior: Prior | None = None,
    *,
    resume: bool,
    console: Console,
) -> int:
    """Run the search and write its results into `folder`; returns the exit code."""
    # torch, Ray and W&B take seconds to import: what a user can get wrong is told before.
    from tune_cifar.tracking.wandb_mode import choose_mode
    from tune_cifar.trial.data import load_dataset

    start_seconds = time.monotonic()
    wandb_mode, wandb_reason = choose_mode(wandb)
    data = load_dataset(settings.data, train_images=settings.train_images)

    from tune_cifar.report.finish import print_finalists, print_results, write_results
    from tune_cifar.tracking.wandb_search import finish_tracking

    outcome, wandb_callback = _run_trials(
        config, settings, folder, data, wandb_mode, wandb_reason, repeats, prior, resume=resume, console=console
    )
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
    print_results(folder, outcome.trials, model, settings, console)
    for line in finish_tracking(
        wandb_callback, folder, model, data, settings.prediction_images, complete=not outcome.interrupted
    ):
        console.print(f"wandb    {line}", soft_wrap=True, markup=False)
    if outcome.interrupted:
        again = f"python -m tune_cifar.search --resume --results {shlex.quote(str(folder.parent))} --name {folder.name}"
        console.print(f"Stopped before the end. What finished is kept; go on with: {again}", soft_wrap=True)
        if publishing and model:
            publishing.put_off(console)
        return EXIT_INTERRUPTED
    if outcome.best is None:
        return EXIT_NOTHING_FINISHED
    return publishing.run(console) if publishing else 0


def _run_trials(
    config: SweepConfig,
    settings: SearchSettings,
    folder: Path,
    data: ImageDataset,
    wandb_mode: Mode,
    wandb_reason: str,
    repeats: Repeats | None,
    prior: Prior | None,
    *,
    resume: bool,
    console: Console,
) -> tuple[SearchOutcome, SearchWandbCallback]:
    """Start Ray, print the plan and run the trials; returns what came of them and the writer of their W&B runs."""
    from tune_cifar.runner.gpu_sharing import gpu_sharing
    from tune_cifar.runner.ray_session import ray_session
    from tune_cifar.runner.resources import plan_slots, this_machine
    from tune_cifar.runner.search_log import SearchLog
    from tune_cifar.runner.tuning import has_started, run_search
    from tune_cifar.sweep.prior import save_prior
    from tune_cifar.sweep.searcher import plan_search
    from tune_cifar.sweep.space import SearchSpace
    from tune_cifar.tracking.plan_view import print_plan
    from tune_cifar.tracking.terminal import TerminalProgress
    from tune_cifar.tracking.wandb_search import open_tracking

    metric = config.metric
    log = SearchLog(metric.name, repeats)
    space = SearchSpace(config)
    sharing_gpus = gpu_sharing(
        settings.gpus_per_trial,
        config,
        data,
        {"precision": settings.precision},
        machine=this_machine(),
        cpus_per_trial=settings.cpus_per_trial or 1.0,
        say=lambda line: console.print(f"sharing  {line}", soft_wrap=True, markup=False),
    )
    with sharing_gpus as sharing, ray_session() as session:
        slots = plan_slots(
            session.nodes,
            cpus_per_trial=settings.cpus_per_trial,
            gpus_per_trial=sharing.gpus_per_trial,
            trials_at_once=settings.trials_at_once,
        )
        if settings.gpus_per_trial == "auto":
            settings = replace(settings, gpus_per_trial=slots.gpus_per_trial)
        plan = plan_search(
            config,
            space,
            num_trials=settings.count,
            seed=settings.seed,
            trials_at_once=slots.trials_at_once,
            prior_trials=prior.trials if prior else (),
        )
        num_repeats = repeats.most_repeats(plan.num_trials) if repeats else 0
        named_by = [*space.distributions, *(["seed"] if repeats else [])]  # which tells a repeat's run apart
        if not resume:
            make_search_folder(folder)
            if prior:
                save_prior(folder, prior)
            save_settings(folder, settings, config.path)
        elif not has_started(folder):
            console.print(f"resume   {folder} has no trial yet, so the search starts from the beginning")
            resume = False
        print_plan(
            config, plan, slots, settings, folder, console, data=data, ray=session.description, sharing=sharing.line
        )
        constants, precision_reason = _constants(config, settings, slots)
        console.print(f"precision {precision_reason}", soft_wrap=True)
        console.print(f"wandb    {wandb_reason}", soft_wrap=True)
        wandb_callback, sweep_line = open_tracking(config, folder, wandb_mode, data.name, log, named_by)
        if sweep_line:
            console.print(f"wandb    {sweep_line}", soft_wrap=True, markup=False)
        progress = TerminalProgress(
            log, metric, num_trials=plan.num_trials + num_repeats, trials_at_once=slots.trials_at_once, console=console
        )
        outcome = run_search(
            folder=folder,
            config=config,
            space=space,
            plan=plan,
            data=data,
            slots=slots,
            constants=constants,
            log=log,
            callbacks=[progress, wandb_callback],
            stop_requested=wandb_callback.stop_requested,
            resume=resume,
        )
    return outcome, wandb_callback


def _constants(config: SweepConfig, settings: SearchSettings, slots: TrialSlots) -> tuple[dict[str, Any], str]:
    """What the flags add to every trial's config unless the sweep file has it, and the precision in words."""
    from tune_cifar.trial.device import choose_device
    from tune_cifar.trial.precision import choose_precision

    named = {parameter.name.rpartition(".")[2] for parameter in config.parameters}
    constants = {} if "seed" in named else {"seed": settings.seed}
    if "precision" in named:
        return constants, "as the sweep file says"
    device = choose_device()
    if slots.gpus_per_trial and device.type == "cpu":
        # The GPUs are on other machines than this process: each trial chooses where it runs.
        return {**constants, "precision": settings.precision}, f"{settings.precision}, on the machine of each trial"
    precision = choose_precision(settings.precision, device)
    return {**constants, "precision": precision.name}, f"{precision.name}: {precision.reason}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.search", description="Run a Weights & Biases sweep file on Ray Tune."
    )
    parser.add_argument("sweep", nargs="?", type=Path, metavar="SWEEP.yaml", help=f"default {DEFAULT_SWEEP}")
    add_data_flags(parser)
    parser.add_argument(
        "--count", type=positive_int, metavar="N", help="number of trials (default: run_cap of the file)"
    )
    parser.add_argument("--name", help="name of the search (default: the file's, with date and time)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default results")
    parser.add_argument("--trials-at-once", type=positive_int, metavar="N", help="default: one a GPU, else one a core")
    parser.add_argument("--cpus-per-trial", type=positive_float, metavar="X", help="default 1")
    parser.add_argument(
        "--gpus-per-trial",
        type=_number_or_auto,
        metavar="X",
        help="default 1 where there are GPUs; 0.25 lets four trials share one, auto measures how many should",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISION_CHOICES,
        help="number format of matrix products (default auto: bf16 where the processor is made for it)",
    )
    parser.add_argument(
        "--repeat-best",
        type=positive_int,
        metavar="K",
        help="train the best K configurations again with other seeds, and choose by the mean over all seeds",
    )
    parser.add_argument(
        "--seeds", type=positive_int, metavar="S", help=f"other seeds for each of them (default {DEFAULT_SEEDS})"
    )
    parser.add_argument(
        "--prior",
        action="append",
        metavar="PATH",
        help="start with what an earlier search found: results/NAME, a trials.csv, or runs exported from W&B as "
        ".csv, .json or .jsonl; can be given several times",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the searcher and of each trial (default 0)")
    parser.add_argument("--wandb", choices=["online", "offline", "disabled"], help="default: online if a key is found")
    parser.add_argument(
        "--prediction-images",
        type=_images_or_all,
        metavar="N",
        help="test images in the best model's table of predictions: a number (default 128), all, or 0 for no table",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the search of --name, or with the newest")
    add_publish_flags(parser, "--publish")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    return parser.parse_args(arguments)


def _number_or_auto(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return non_negative_float(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be a number, 0 or above, or auto, got {text!r}") from None


def _images_or_all(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or above, or all, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
