"""The methods that search_quality.py compares: ours, taken from the package itself, and its peers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import TrialState
from scipy.stats import qmc

from benchmarks.search_simulator import (
    End,
    Searcher,
    SearchRecord,
    SearchTask,
    simulate,
    simulate_one_epoch,
)
from benchmarks.wandb_searcher import WandbSearcher
from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.sweep.searcher import SearchPlan, plan_search

# How many configs the one-epoch baseline trains to the end.
KEEP_AFTER_ONE_EPOCH = 3


@dataclass(frozen=True)
class Setup:
    """What a method is told of the search before it begins."""

    task: SearchTask
    num_trials: int
    workers: int
    seed: int


class OurSearcher:
    """What `python -m tune_cifar.search` asks and tells, without Ray around it.

    `change` makes a variant: it gets the plan of the search and returns another, with other start points perhaps.
    """

    def __init__(self, setup: Setup, change: Callable[[SearchPlan], SearchPlan] = lambda plan: plan) -> None:
        task = setup.task
        plan = plan_search(
            task.config, task.space, num_trials=setup.num_trials, seed=setup.seed, trials_at_once=setup.workers
        )
        self.metric = task.config.metric.name
        self.search = SweepSearch(task.space, change(plan), task.config.metric)

    def suggest(self, number: int) -> Mapping[str, Any]:
        """The product's next config."""
        # Never text, which would mean that the metric's target was reached: no sweep here has one.
        return cast("dict[str, Any]", self.search.suggest(str(number)))

    def observe(self, number: int, losses: Sequence[float], end: End) -> None:
        """Report the epochs as Tune does: a stopped trial ends with the status that its last epoch had."""
        result: dict[str, Any] = {}
        status = {"finished": "finished", "stopped": "running", "diverged": "diverged"}[end]
        for epoch, loss in enumerate(losses, start=1):
            result = {"epoch": epoch, self.metric: loss, "status": "running"}
            self.search.on_trial_result(str(number), result)
        if end == "diverged":
            result = {"epoch": len(losses) + 1, self.metric: math.nan}
        self.search.on_trial_complete(str(number), {**result, "status": status})


class OptunaSearcher:
    """A plain Optuna study over the same space: the best value of each trial, nothing for a diverged one."""

    def __init__(self, setup: Setup, sampler: BaseSampler) -> None:
        self.space = setup.task.space
        self.study = optuna.create_study(sampler=sampler)
        self.trials: list[optuna.Trial] = []

    def suggest(self, number: int) -> Mapping[str, Any]:
        """Optuna's next config."""
        self.trials.append(self.study.ask(fixed_distributions=dict(self.space.distributions)))
        return self.space.decode(self.trials[number].params)

    def observe(self, number: int, losses: Sequence[float], end: End) -> None:
        """Tell the study."""
        if end == "diverged":
            self.study.tell(self.trials[number], state=TrialState.FAIL)
        else:
            self.study.tell(self.trials[number], min(losses))


class FixedSearcher:
    """Configs that were drawn before the search, whatever comes of them."""

    def __init__(self, configs: Sequence[Mapping[str, Any]]) -> None:
        self.configs = configs

    def suggest(self, number: int) -> Mapping[str, Any]:
        """The next one."""
        return self.configs[number]

    def observe(self, number: int, losses: Sequence[float], end: End) -> None:
        """Nothing is learnt."""


def _sobol(setup: Setup) -> FixedSearcher:
    exponent = (setup.num_trials - 1).bit_length()
    points = qmc.Sobol(len(setup.task.space.distributions), rng=setup.seed).random_base2(exponent)
    return FixedSearcher(_configs_at(setup.task, points.tolist()))


def _configs_at(task: SearchTask, quantiles: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    return [task.space.decode(task.space.from_quantiles(point)) for point in quantiles]


@dataclass(frozen=True)
class Method:
    """A row of the comparison; with `early_stopping` that rule ends weak trials."""

    make: Callable[[Setup], Searcher]
    early_stopping: Literal["hyperband", "curve"] | None = None


METHODS: dict[str, Method] = {
    "ours": Method(OurSearcher),
    "ours-curve": Method(OurSearcher, early_stopping="curve"),
    "ours-hyperband": Method(OurSearcher, early_stopping="hyperband"),
    "wandb": Method(lambda setup: WandbSearcher(setup.task.document, setup.seed)),
    "wandb-hyperband": Method(lambda setup: WandbSearcher(setup.task.document, setup.seed), early_stopping="hyperband"),
    "wandb-random": Method(lambda setup: WandbSearcher({**setup.task.document, "method": "random"}, setup.seed)),
    "tpe": Method(lambda setup: OptunaSearcher(setup, TPESampler(seed=setup.seed))),
    "gp": Method(lambda setup: OptunaSearcher(setup, GPSampler(seed=setup.seed))),
    "sobol": Method(_sobol),
}
ONE_EPOCH = "one-epoch"
"""The baseline that the simulator plays apart, because it goes back to trials that it had put aside."""


def run_method(name: str, setup: Setup) -> SearchRecord:
    """One whole search by the method `name`."""
    quiet_optuna()
    task = setup.task
    if name == ONE_EPOCH:
        whole = task.table.num_epochs
        most = setup.num_trials * whole - KEEP_AFTER_ONE_EPOCH * (whole - 1)
        points = np.random.default_rng(setup.seed).uniform(size=(most, len(task.space.distributions)))
        return simulate_one_epoch(task, _configs_at(task, points.tolist()), KEEP_AFTER_ONE_EPOCH, setup.seed)
    method = METHODS[name]
    rule = task.rule(method.early_stopping) if method.early_stopping else None
    return simulate(
        task,
        method.make(setup),
        num_trials=setup.num_trials,
        workers=setup.workers,
        seed=setup.seed,
        rule=rule,
    )


def quiet_optuna() -> None:
    """Say nothing for each of thousands of studies; errors still show."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.ERROR)
