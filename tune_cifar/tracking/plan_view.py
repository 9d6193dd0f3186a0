"""Prints what a search is about to do and why, before it does it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from tune_cifar.bucket_results import BucketResults
from tune_cifar.runner.resources import TrialSlots
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.searcher import SearchPlan
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.data import ImageDataset


def print_space(space: SearchSpace, console: Console) -> None:
    """Print the search space as it was understood, with three sample values a parameter."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("parameter", "distribution", "bounds", "scale", "samples"):
        table.add_column(column, overflow="fold")
    for row in space.rows():
        table.add_row(row.name, row.distribution, row.bounds, row.scale, ", ".join(row.samples))
    console.print(table)


def print_plan(
    config: SweepConfig,
    plan: SearchPlan,
    slots: TrialSlots,
    settings: SearchSettings,
    folder: Path,
    console: Console,
    *,
    data: ImageDataset | None = None,
    ray: str | None = None,
    sharing: str | None = None,
    bucket: BucketResults | None = None,
) -> None:
    """Print the search in a few lines; `data` and `ray` are known only once they are loaded and started.

    `sharing` says how trials share a GPU, where they do.
    """
    images = f"{settings.data}"
    if data:
        counts = f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test"
        images = f"{data.name}: {counts} images"
    elif settings.train_images:
        images += f", {settings.train_images:,} training images"
    results = f"{folder}/, with checkpoints and a copy in {bucket.uri}/" if bucket else f"{folder}/"
    gpus = f" and {slots.gpus_per_trial:g} GPU" if slots.gpus_per_trial else ""
    lines = {
        "sweep": f"{config.path}: {config.method}, {config.metric.goal} {config.metric.name}",
        "trials": plan.reason,
        "at once": f"{slots.trials_at_once}, each on {slots.cpus_per_trial:g} core{gpus} ({slots.reason})",
    }
    if sharing:
        lines["sharing"] = sharing
    if settings.repeat_best:
        lines["repeats"] = f"the best {settings.repeat_best} with {settings.seeds} other seeds each, after the trials"
    lines |= {"data": images, "seed": str(settings.seed), "results": results}
    if ray:
        lines["ray"] = ray
    for name, text in lines.items():
        console.print(f"{name:<9}{text}", soft_wrap=True, markup=False)
