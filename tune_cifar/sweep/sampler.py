"""Proposes trials: by a Gaussian process that bad trials cannot mislead, or at random, and none a second time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune_cifar.sweep.space import SearchSpace
from tune_cifar.sweep.values import comparable

PRIOR = "prior"
"""The attribute of trials that an earlier search tried: the model knows them, but this search may try them again."""

# An untried neighbour is looked for among so many draws, and where all were tried, among as many again. A thousand
# settings of which one is left are practically always searched to the end.
BATCH_POINTS = 1_000
MOST_BATCHES = 20


MOST_MODEL_TRIALS = 600
WEIGHT_OF_RUNNING = 4


class SweepSampler(BaseSampler):
    """An Optuna sampler of whole points of `space`, each a new one while there are untried ones.

    What a trial is stands in its decoded parameters: two encoded points that round to the same batch size are the
    same. Trials of every state count as tried. Instead of a point that was tried, its nearest untried neighbour
    is proposed, as the model finds a point that good.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.random = np.random.default_rng(seed)
        self._identities: dict[tuple[Any, ...], Hashable] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher often; what is known of points already is quickly found again."""
        return {**self.__dict__, "_identities": {}}

    def propose(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """The encoded point that would be best for `trial`; here a draw from the file's distributions."""
        return self._draw()

    def skip(self, num_trials: int) -> None:
        """Pass over the draws of trials that an earlier process has proposed."""
        for _ in range(num_trials):
            self._draw()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every parameter, unless the trial was planned beforehand: then nothing is left to propose."""
        return {} if "fixed_params" in trial.system_attrs else dict(self.space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point for `trial`, as Optuna asks for it."""
        if not search_space:
            return {}
        tried = {self._known_identity(other) for other in study.get_trials(deepcopy=False) if self._was_tried(other)}
        num_settings = self.space.num_settings()
        is_exhausted = num_settings is not None and len(tried) >= num_settings
        point = self.propose(study, trial)
        return point if is_exhausted or self._identity(point) not in tried else self._nearest_untried(point, tried)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A draw of one parameter, of a trial that was planned in part."""
        return self._draw()[param_name]

    def _draw(self) -> dict[str, Any]:
        return self.space.from_quantiles(self.random.uniform(size=len(self.space.distributions)).tolist())

    def _was_tried(self, trial: FrozenTrial) -> bool:
        """Whether the trial belongs to this search, which an earlier one's does not, and has its whole point."""
        return PRIOR not in trial.user_attrs and self.space.distributions.keys() <= trial.params.keys()

    def _identity(self, point: dict[str, Any]) -> Hashable:
        return comparable(self.space.decode(point))

    def _known_identity(self, trial: FrozenTrial) -> Hashable:
        """As `_identity`, which asked for all trials anew takes 0.02 s a trial when there are 1,000."""
        key = tuple(trial.params[name] for name in self.space.distributions)
        if key not in self._identities:
            self._identities[key] = self._identity(trial.params)
        return self._identities[key]

    def _nearest_untried(self, point: dict[str, Any], tried: set[Hashable]) -> dict[str, Any]:
        for _ in range(MOST_BATCHES):
            drawn = [self._draw() for _ in range(BATCH_POINTS)]
            untried = [candidate for candidate in drawn if self._identity(candidate) not in tried]
            if untried:
                return min(untried, key=lambda candidate: self._distance(point, candidate))
        return point

    def _distance(self, point: dict[str, Any], other: dict[str, Any]) -> float:
        """Euclidean, each parameter's range 1 wide; two values of a list are as far apart as its ends."""
        return math.hypot(
            *(_distance(distribution, point[key], other[key]) for key, distribution in self.space.distributions.items())
        )


class ModelSampler(SweepSampler):
    """Proposes where a Gaussian process expects the largest improvement (Optuna's GPSampler).

    Where it knows so many trials that it would hold up the search, a tree of Parzen estimators (Optuna's TPESampler)
    proposes, which takes running trials for bad ones: see `is_much_to_know`.

    The model is told each value clipped at the median plus the median's distance from the best: how bad a bad
    trial is says nothing of where the best one is, and one diverged loss would flatten all others. Clipping took
    the regret after 20 trials on real learning curves to a tenth (benchmarks/RESULTS.md).
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, seed)
        # Optuna's own generators take seeds of 32 bits, a trial those of 63.
        self.model = GPSampler(seed=seed % 2**32, n_startup_trials=1, warn_independent_sampling=False)
        self.quick_model = TPESampler(seed=seed % 2**32, multivariate=True, constant_liar=True)

    def propose(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """The model's point; `study` holds the trials to learn from and those that are still running."""
        completed = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        running = [
            other
            for other in study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
            if other.number != trial.number and other.params
        ]
        values = clipped([other.value or 0.0 for other in completed], study.direction)
        model = self.quick_model if is_much_to_know(len(completed), len(running)) else self.model
        told = optuna.create_study(direction=study.direction, sampler=model)
        told.add_trials(
            _shallow(create_trial(params=other.params, distributions=other.distributions, value=value))
            for other, value in zip(completed, values, strict=True)
        )
        told.add_trials(
            _shallow(create_trial(state=TrialState.RUNNING, params=other.params, distributions=other.distributions))
            for other in running
        )
        with _one_thread():
            return told.ask(fixed_distributions=dict(self.space.distributions)).params


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one thread meanwhile: a Gaussian process's matrices are so small that others only cost time.

    With two threads one suggestion in five took 0.10 to 0.16 s, with one all took 0.03 to 0.08 s (machine B of
    benchmarks/RESULTS.md).
    """
    import torch  # takes seconds, and a plan is made without it

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def is_much_to_know(num_completed: int, num_running: int) -> bool:
    """Whether a Gaussian process would take about a second for a suggestion, or longer, and the quick model is asked.

    Trials that still run cost it the most, as Optuna imagines their results: 0.2 s with 200 completed trials and 8
    that run, 0.8 s with 64 that run, 7.5 s with 512 that run, on one core (benchmarks/RESULTS.md).
    """
    return num_completed + WEIGHT_OF_RUNNING * num_running > MOST_MODEL_TRIALS


class _ShallowTrial(FrozenTrial):
    """A trial of which Optuna's storage takes a shallow copy: the deep ones of 1,000 trials take 0.7 s."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _ShallowTrial:
        return copy(self)


def _shallow(trial: FrozenTrial) -> FrozenTrial:
    trial.__class__ = _ShallowTrial
    return trial


def clipped(values: Sequence[float], direction: StudyDirection) -> list[float]:
    """The values, the bad ones no further from the median than the best one is on its other side."""
    if not values:
        return []
    best = min if direction == StudyDirection.MINIMIZE else max
    limit = 2 * float(np.median(values)) - best(values)
    return [best(value, limit) for value in values]


def _distance(distribution: BaseDistribution, value: Any, other: Any) -> float:
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return float(value != other)
    if distribution.single():
        return 0.0
    scale = math.log if distribution.log else float
    return (scale(value) - scale(other)) / (scale(distribution.high) - scale(distribution.low))
