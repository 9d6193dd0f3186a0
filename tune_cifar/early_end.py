"""Tells what became of a search that ended before its trials had: why, what is left, how to go on, the exit code."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tune_cifar.command import EXIT_INTERRUPTED, EXIT_NOTHING_FINISHED, EXIT_TERMINATED
from tune_cifar.limits import EarlyEnd, RunLimits, show_duration
from tune_cifar.results import TrialRecord

if TYPE_CHECKING:
    from tune_cifar.trial.data import ImageDataset  # imports torch, and mistakes are told before that

_SECONDS_BESIDES_SCORING = 8.0
"""Writing the model, the tables and the report, with their imports."""

_FORWARD_PASSES_A_STEP = 3
"""The backward pass of training costs about twice the forward pass."""


def why_no_model(early_end: EarlyEnd, best: TrialRecord, data: ImageDataset) -> str:
    """Why the best model is left to the resume, in words, or an empty string where there is time and room for it."""
    if early_end.cause == "disk":
        return "the disk takes no more"
    validated = len(data.validation) + _FORWARD_PASSES_A_STEP * len(data.train)
    epoch_seconds = best.training_seconds / max(1, len(best.epochs))
    seconds = epoch_seconds * len(data.test) / validated + _SECONDS_BESIDES_SCORING
    return "" if seconds <= early_end.seconds_left else "there is no time left to score it on the test images"


def tell_early_end(
    early_end: EarlyEnd,
    folder: Path,
    trials: Sequence[TrialRecord],
    best: TrialRecord | None,
    limits: RunLimits,
    console: Console,
) -> int:
    """Print why the search ended and the command that goes on with it; returns the exit code."""
    ended = len([trial for trial in trials if trial.status not in ("waiting", "running")])
    cut = len(trials) - ended
    counts = f"{ended} trials have ended, {cut} wait in the middle"
    again = f"python -m tune_cifar.search --resume --results {shlex.quote(str(folder.parent))} --name {folder.name}"
    if early_end.cause == "time budget":
        budget = show_duration(limits.time_budget_seconds or 0.0)
        line = f"Stopped by the time budget of {budget}: {counts}. Go on with: {again}"
    elif early_end.cause == "disk":
        line = f"stopped  {early_end.disk_message}. Make room there, or let it be written to; then go on with: {again}"
    else:
        line = f"Stopped before the end. What finished is kept; go on with: {again}"
    console.print(line, soft_wrap=True, markup=False)
    if early_end.cause == "time budget":
        return 0 if best else EXIT_NOTHING_FINISHED
    return {"disk": EXIT_NOTHING_FINISHED, "SIGTERM": EXIT_TERMINATED}.get(early_end.cause, EXIT_INTERRUPTED)
