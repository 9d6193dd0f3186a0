"""Plays a search against a table of curves: workers, epochs and early stopping as in a real one, but in no time."""

from __future__ import annotations

import heapq
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from benchmarks.curves import Curve, CurveTable
from tune_cifar.sweep.curve_stopping import CurveRule
from tune_cifar.sweep.early_stopping import HyperbandRule
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import CurveStopping, Hyperband, SweepConfig
from tune_cifar.sweep.space import SearchSpace

End = Literal["finished", "stopped", "diverged"]


class Searcher(Protocol):
    """A method under test: it proposes a trial's config and learns how the trial ended."""

    def suggest(self, number: int) -> Mapping[str, Any]:
        """The config of trial `number`, counted from 0."""

    def observe(self, number: int, losses: Sequence[float], end: End) -> None:
        """Trial `number` has ended; `losses` are the finite ones it logged, one an epoch."""


@dataclass(frozen=True)
class SearchTask:
    """A table of curves and the sweep file that every method searches it with."""

    name: str
    table: CurveTable
    document: Mapping[str, Any]

    @cached_property
    def config(self) -> SweepConfig:
        """The sweep as the product reads it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sweep.json"
            path.write_text(json.dumps(self.document), encoding="utf-8")
            return load_sweep(path, lambda name, value: None)

    @cached_property
    def space(self) -> SearchSpace:
        """The space as the product encodes it."""
        return SearchSpace(self.config)

    @cached_property
    def best_loss(self) -> float:
        """The true loss of the best config in the space; its regret is 0."""
        lr = self.document["parameters"]["lr"]
        return self.table.best_loss(lr["min"], lr["max"])

    def regret(self, chosen: Mapping[str, Any] | None) -> float:
        """How much worse the chosen config truly is than the best one; without any, the untrained network is chosen."""
        true_loss = self.table.true_loss(chosen) if chosen else self.table.untrained_loss
        return true_loss - self.best_loss

    def rule(self, kind: Literal["hyperband", "curve"]) -> HyperbandRule | CurveRule:
        """Early stopping with its defaults, from the first tenth of a trial on."""
        goal = self.config.metric.goal
        if kind == "curve":
            return CurveRule(CurveStopping(), goal)
        return HyperbandRule(Hyperband(min_iter=max(1, self.table.num_epochs // 10)), goal)


@dataclass
class SearchRecord:
    """One search, with an entry in each list for each trial in the order in which they ended.

    `regrets` is that of the config chosen by then, `epochs` and `seconds` what all trials had used by then.
    `suggestion_seconds` is in the order of suggestion.
    """

    configs: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    regrets: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    suggestion_seconds: list[float] = field(default_factory=list)

    def add(
        self, config: Mapping[str, Any], loss: float | None, end: End, regret: float, epochs: int, seconds: float
    ) -> None:
        """Add a trial that ended with `loss` as its best, None if it diverged."""
        self.configs.append(dict(config))
        self.losses.append(loss)
        self.ends.append(end)
        self.regrets.append(regret)
        self.epochs.append(epochs)
        self.seconds.append(seconds)


@dataclass
class _Trial:
    config: dict[str, Any]
    curve: Curve
    losses: list[float] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether it trained to its end."""
        return not self.curve.diverged and len(self.losses) == self.curve.num_epochs


def simulate(
    task: SearchTask,
    searcher: Searcher,
    *,
    num_trials: int,
    workers: int,
    seed: int,
    rule: HyperbandRule | CurveRule | None = None,
) -> SearchRecord:
    """Run a whole search with `workers` trials at once; each free worker asks for the next trial right away.

    Chosen is the ended trial that logged the lowest loss in any epoch; one that diverged cannot be. The luck of a
    trial depends on `seed` and its number only, so all methods meet the same.
    """
    record = SearchRecord()
    trials: list[_Trial] = []
    lowest, chosen = math.inf, None
    events: list[tuple[float, int, int]] = []  # when, which event (the earlier goes first at a tie), whose epoch ends
    num_events = epochs = 0

    def start_next(now: float) -> None:
        number = len(trials)
        began = time.perf_counter()
        config = dict(searcher.suggest(number))
        record.suggestion_seconds.append(time.perf_counter() - began)
        trials.append(_Trial(config, task.table.draw(config, _luck(seed, number))))
        schedule_epoch(number, now)

    def schedule_epoch(number: int, now: float) -> None:
        nonlocal num_events
        num_events += 1
        heapq.heappush(events, (now + task.table.epoch_seconds(trials[number].config), num_events, number))

    for _ in range(min(workers, num_trials)):
        start_next(0.0)
    while events:
        now, _, number = heapq.heappop(events)
        trial = trials[number]
        epochs += 1
        end = _end_of_epoch(trial, trials, rule)
        if end is None:
            schedule_epoch(number, now)
            continue
        searcher.observe(number, trial.losses, end)
        loss = None if end == "diverged" else min(trial.losses)
        if loss is not None and loss < lowest:
            lowest, chosen = loss, trial.config
        record.add(trial.config, loss, end, task.regret(chosen), epochs, now)
        if len(trials) < num_trials:
            start_next(now)
    return record


def _end_of_epoch(trial: _Trial, trials: list[_Trial], rule: HyperbandRule | CurveRule | None) -> End | None:
    """Log the epoch that `trial` has just trained; how the trial ends with it, if it does."""
    if len(trial.losses) == len(trial.curve.losses):
        return "diverged"
    trial.losses.append(trial.curve.losses[len(trial.losses)])
    if len(trial.losses) == trial.curve.num_epochs:
        return "finished"
    if rule is None:
        return None
    judges = [other for other in trials if other is not trial and (other.finished or isinstance(rule, HyperbandRule))]
    return "stopped" if rule.decide(trial.losses, [other.losses for other in judges]) else None


def simulate_one_epoch(task: SearchTask, configs: Sequence[Mapping[str, Any]], keep: int, seed: int) -> SearchRecord:
    """Train all for one epoch and go on with the best `keep` (Egele et al., https://arxiv.org/abs/2404.04111).

    Entry n - 1 of the record is a whole search with the first n of `configs`, because its size is fixed beforehand.
    """
    record = SearchRecord()
    curves = [task.table.draw(config, _luck(seed, number)) for number, config in enumerate(configs)]
    started = [number for number, curve in enumerate(curves) if curve.losses]
    for size in range(1, len(configs) + 1):
        going_on = sorted((n for n in started if n < size), key=lambda n: curves[n].losses[0])[:keep]
        spent = size + sum(curves[n].num_epochs - 1 for n in going_on)
        best = min((n for n in going_on if not curves[n].diverged), key=lambda n: min(curves[n].losses), default=None)
        if best is None:
            record.add(configs[size - 1], None, "diverged", task.regret(None), spent, 0.0)
        else:
            record.add(configs[best], min(curves[best].losses), "finished", task.regret(configs[best]), spent, 0.0)
    return record


def _luck(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])
