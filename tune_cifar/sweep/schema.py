"""The typed form of a whole sweep file and what becomes of each key, for the checks and the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tune_cifar.sweep.parameters import Parameter

Method = Literal["bayes", "random", "grid"]
Goal = Literal["minimize", "maximize"]
Impute = Literal["latest", "best", "worst"]
Use = Literal["used", "accepted and not used", "refused"]

DEFAULT_METRIC = "val_loss"


@dataclass(frozen=True)
class Metric:
    """What the search optimizes; at `target` the search is over, `impute` is the value that counts for a failed run."""

    name: str = DEFAULT_METRIC
    goal: Goal = "minimize"
    target: float | None = None
    impute: Impute = "worst"

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better."""
        return value < than if self.goal == "minimize" else value > than

    def best(self, values: Iterable[float]) -> float:
        """The best of at least one value."""
        return min(values) if self.goal == "minimize" else max(values)

    def reached(self, value: float) -> bool:
        """Whether `value` is the target or better."""
        return self.target is not None and not self.better(self.target, than=value)


@dataclass(frozen=True)
class Hyperband:
    """Early stopping at bands, in logged values: min_iter * eta^k, or max_iter / eta^k for k = 1 to s."""

    min_iter: int | None = None
    max_iter: int | None = None
    s: int | None = None
    eta: float = 3.0
    strict: bool = True


@dataclass(frozen=True)
class CurveStopping:
    """Early stopping of trials that lag behind the best finished one; not one of W&B's types.

    From epoch `min_iter` on (None: after a tenth of the best trial's epochs), a trial stops whose lag is above
    `margin` times what lags were seen to change by.
    """

    min_iter: int | None = None
    margin: float = 1.0


@dataclass(frozen=True)
class SweepConfig:
    """A whole sweep file. `document` is the file as read; `notes` and `warnings` are lines to print once."""

    path: Path
    method: Method
    parameters: tuple[Parameter, ...]
    metric: Metric
    early_terminate: Hyperband | CurveStopping | None
    run_cap: int | None
    name: str | None
    description: str | None
    project: str | None
    entity: str | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """What becomes of one key of a sweep file, for the checks and for the documentation."""

    use: Use
    meaning: str


_FOR_AGENTS = "steers W&B's agents and launch queues; trials are started here"

KEYS: dict[str, Key] = {
    "method": Key("used", "`bayes`, `random` or `grid`; required"),
    "parameters": Key("used", "the search space; required"),
    "metric": Key("used", "what to optimize; required for `bayes` and for `early_terminate`, else `val_loss`"),
    "early_terminate": Key("used", "early stopping: W&B's hyperband, or curve"),
    "run_cap": Key("used", "the number of trials; `--count` goes first"),
    "name": Key("used", "the sweep's name, with date and time that of the search, unless --name says another"),
    "description": Key("used", "the sweep's description"),
    "project": Key("used", "W&B project of the runs"),
    "entity": Key("used", "W&B user or team of the runs"),
    "program": Key("accepted and not used", _FOR_AGENTS),
    "command": Key("accepted and not used", _FOR_AGENTS),
    "controller": Key("accepted and not used", _FOR_AGENTS),
    "job": Key("accepted and not used", _FOR_AGENTS),
    "image_uri": Key("accepted and not used", _FOR_AGENTS),
    "kind": Key("accepted and not used", "names the file format"),
    "apiVersion": Key("accepted and not used", "names the file format"),
    "scheduler": Key("refused", "it runs your own search code; choose `method: bayes`, `random` or `grid`"),
    "metrics": Key("refused", "several metrics need `method: custom`; choose one as `metric`"),
}

METRIC_KEYS: dict[str, Key] = {
    "name": Key("used", "a value that the trial logs; required"),
    "goal": Key("used", "`minimize` (default) or `maximize`"),
    "target": Key("used", "the search ends once a trial reaches it"),
    "impute": Key("used", "the value of a failed run: `worst` (default), `best` or `latest`"),
    "impute_while_running": Key("accepted and not used", "`bayes` accounts for running trials by itself"),
}

EARLY_TERMINATE_KEYS: dict[str, Key] = {
    "type": Key("used", "`hyperband`, or `curve`, which W&B does not have; required"),
    "min_iter": Key(
        "used", "the first band; bands follow at min_iter * eta^k; of `curve` the first epoch to stop after"
    ),
    "max_iter": Key("used", "with `s`: bands at max_iter / eta^k, k = 1 to s"),
    "s": Key("used", "the number of bands below `max_iter`"),
    "eta": Key("used", "the best 1/eta of the runs pass a band; 3 by default"),
    "strict": Key("used", "true (default): a run is judged by its value at the band; false: by its best so far"),
    "margin": Key("used", "of `curve` alone: the lag, in usual changes of lags, at which a trial stops; 1 by default"),
}

EARLY_TERMINATE_TYPES: dict[str, tuple[str, ...]] = {
    "hyperband": ("type", "min_iter", "max_iter", "s", "eta", "strict"),
    "curve": ("type", "min_iter", "margin"),
}
"""The keys of each type of early stopping."""
