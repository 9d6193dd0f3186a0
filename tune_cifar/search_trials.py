"""Runs the trials of a search from its checked request: Ray, the plan, the trackers, and Tune in the end.

Importing this takes seconds (torch, Ray, W&B), so the command does it after all that a user can get wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ray.tune import Callback

from tune_cifar.bucket_results import BucketResults
from tune_cifar.planning import plan_for, slots_for
from tune_cifar.request import SearchRequest
from tune_cifar.runner.bucket_state import choose_start_of
from tune_cifar.runner.gpu_sharing import gpu_sharing
from tune_cifar.runner.hopeless import starts_over
from tune_cifar.runner.outcome import SearchOutcome
from tune_cifar.runner.progress import ProgressBoard
from tune_cifar.runner.ray_session import RaySession, ray_session
from tune_cifar.runner.resources import TrialSlots, this_machine
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.runner.storage_check import check_storage
from tune_cifar.runner.tune_state import Start
from tune_cifar.runner.tuning import run_search
from tune_cifar.search_lock import running_here
from tune_cifar.settings import SearchSettings, make_search_folder, save_settings
from tune_cifar.sweep.prior import save_prior
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.searcher import SearchPlan
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.tracking.plan_view import print_plan
from tune_cifar.tracking.tensorboard import SearchTensorBoard
from tune_cifar.tracking.terminal import TerminalProgress
from tune_cifar.tracking.wandb_callback import SearchWandbCallback
from tune_cifar.tracking.wandb_mode import Mode
from tune_cifar.tracking.wandb_place import describe_place
from tune_cifar.tracking.wandb_search import open_tracking
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.data.source import default_cache_folder
from tune_cifar.trial.device import choose_device
from tune_cifar.trial.precision import choose_precision


def run_trials(
    request: SearchRequest, data: ImageDataset, wandb_mode: Mode, wandb_reason: str
) -> tuple[SearchOutcome, SearchWandbCallback]:
    """Start Ray, print the plan and run the trials; returns what came of them and the writer of their W&B runs."""
    config, settings, folder, details = request.config, request.settings, request.folder, request.console.details
    bucket = request.bucket
    space = SearchSpace(config)
    sharing_gpus = gpu_sharing(
        settings.gpus_per_trial,
        config,
        data,
        {"precision": settings.precision},
        machine=this_machine(),
        cpus_per_trial=settings.cpus_per_trial or 1.0,
        say=lambda line: details.print(f"sharing  {line}", soft_wrap=True, markup=False),
    )
    with (
        running_here(default_cache_folder()) as others,
        sharing_gpus as sharing,
        ray_session(uses_bucket=bool(bucket)) as session,
    ):
        slots = slots_for(settings, session.nodes, sharing.gpus_per_trial)
        if settings.gpus_per_trial == "auto":
            settings = replace(settings, gpus_per_trial=slots.gpus_per_trial)
        plan = plan_for(request, space, slots)
        num_checked = check_storage(folder.parent, bucket)
        start = _open_folder(request, settings)
        print_plan(
            config,
            plan,
            slots,
            settings,
            folder,
            details,
            data=data,
            ray=session.description,
            sharing=sharing.line,
            bucket=bucket,
        )
        if num_checked:
            details.print(f"storage  {_describe_storage(bucket, session, num_checked)}", soft_wrap=True, markup=False)
        if others and settings.trials_at_once is None:
            note = "another search of yours runs here; each takes the whole machine unless --trials-at-once says less"
            request.console.print(f"note     {note}", soft_wrap=True)
        constants, precision_reason = _constants(config, settings, slots)
        details.print(f"precision {precision_reason}", soft_wrap=True)
        details.print(f"wandb    {wandb_reason}", soft_wrap=True)
        log = SearchLog(config.metric.name, request.repeats)
        trackers, wandb_callback, board = _trackers(request, space, plan, slots, log, data, wandb_mode)
        outcome = run_search(
            folder=folder,
            config=config,
            space=space,
            plan=plan,
            data=data,
            slots=slots,
            constants=constants,
            log=log,
            callbacks=trackers,
            stop_requested=wandb_callback.stop_requested,
            resume=start != "new",
            rebuild=start == "rebuild",
            bucket=bucket,
            max_failures=settings.max_failures,
            say=lambda line: request.console.print(line, soft_wrap=True, markup=False),
            board=board.sender if board else None,
            limits=request.limits,
        )
    return outcome, wandb_callback


def _describe_storage(bucket: BucketResults | None, session: RaySession, num_nodes: int) -> str:
    """What the check of the storage has found, and whose keys the trials use."""
    what = "the bucket" if bucket else "the folder of results"
    line = (
        f"{num_nodes} {'node reads and writes' if num_nodes == 1 else 'nodes read and write'} {what} as this one does"
    )
    if bucket is None:
        return line
    return f"{line}, with {'its own credentials' if session.joined else 'the credentials of this process'}"


def _open_folder(request: SearchRequest, settings: SearchSettings) -> Start:
    """Make the folder of a new search; returns how the search starts."""
    folder = request.folder
    if not request.resume:
        make_search_folder(folder)
        request.lock.take()
        if request.prior:
            save_prior(folder, request.prior)
        save_settings(folder, settings, request.config.path)
        if request.bucket:
            request.bucket.save_note(folder)
        return "new"
    start = choose_start_of(folder, request.bucket, rebuild=request.rebuild)
    if start == "new":
        request.console.print(f"resume   {folder} has no trial yet, so the search starts from the beginning")
    elif starts_over(folder):
        request.console.print(f"resume   no trial in {folder} has finished an epoch, so those that failed start again")
        return "new"
    return start


def _trackers(
    request: SearchRequest,
    space: SearchSpace,
    plan: SearchPlan,
    slots: TrialSlots,
    log: SearchLog,
    data: ImageDataset,
    wandb_mode: Mode,
) -> tuple[list[Callback], SearchWandbCallback, ProgressBoard | None]:
    """What shows and records the trials: all of them, W&B's, and where running epochs are noted if they are shown."""
    config, folder, repeats, console = request.config, request.folder, request.repeats, request.console
    named_by = [*space.distributions, *(["seed"] if repeats else [])]  # which tells a repeat's run apart
    if wandb_mode != "disabled":
        console.details.print(f"wandb    {describe_place(config)}", soft_wrap=True)
    wandb_callback, sweep_line = open_tracking(config, folder, wandb_mode, data.name, log, named_by)
    if sweep_line:
        told = console.details if wandb_callback.has_sweep else console
        told.print(f"wandb    {sweep_line}", soft_wrap=True, markup=False)
    board = ProgressBoard() if console.can_redraw else None
    terminal = TerminalProgress(
        log,
        config.metric,
        num_trials=plan.num_trials + (repeats.most_repeats(plan.num_trials) if repeats else 0),
        trials_at_once=slots.trials_at_once,
        console=console,
        board=board,
    )
    return [terminal, wandb_callback, SearchTensorBoard(folder, log, config.metric, named_by)], wandb_callback, board


def _constants(config: SweepConfig, settings: SearchSettings, slots: TrialSlots) -> tuple[dict[str, Any], str]:
    """What the flags add to every trial's config unless the sweep file has it, and the precision in words."""
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
