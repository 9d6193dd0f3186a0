"""A search as it was asked for, checked: what the command hands to planning, running and reporting."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cifar.bucket_results import BucketResults
from tune_cifar.console import SearchConsole
from tune_cifar.finalists import Repeats
from tune_cifar.limits import RunLimits
from tune_cifar.search_lock import SearchLock
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.schema import SweepConfig

if TYPE_CHECKING:
    from tune_cifar.publish.publishing import Publishing
    from tune_cifar.sweep.prior import Prior
    from tune_cifar.sweep.searcher import PriorTrial


@dataclass(frozen=True)
class SearchRequest:
    """The sweep, the flags and the folder of one search.

    `wandb` is the mode that was asked for, None for the one that fits the machine. With `resume` the folder holds a
    search to go on with, and with `rebuild` Ray's state is written anew for it. `repeats`, `prior`,
    `publishing` and `bucket`, which then gets the checkpoints, are None where they were not asked for. With
    `export_onnx` the best model is written as ONNX too.
    """

    config: SweepConfig
    settings: SearchSettings
    folder: Path
    wandb: str | None
    resume: bool
    console: SearchConsole
    repeats: Repeats | None = None
    prior: Prior | None = None
    publishing: Publishing | None = None
    limits: RunLimits = field(default_factory=RunLimits)
    rebuild: bool = False
    bucket: BucketResults | None = None
    export_onnx: bool = False

    @cached_property
    def lock(self) -> SearchLock:
        """The lock of the folder, which is taken while the search runs."""
        return SearchLock(self.folder)

    @property
    def prior_trials(self) -> tuple[PriorTrial, ...]:
        """What the model knows from earlier searches."""
        return self.prior.trials if self.prior else ()
