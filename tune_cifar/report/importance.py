"""Tells which parameters mattered: a random forest's importances and rank correlations with the metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune_cifar.report.parameters import SearchedParameter, searched_parameters
from tune_cifar.results import CAN_WIN, TrialRecord
from tune_cifar.sweep.schema import Metric, SweepConfig

MIN_TRIALS_FOREST = 8
MIN_TRIALS_CORRELATION = 5
NUM_TREES = 300


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation (-1 to 1) of the metric with a parameter, or with having one of its categories.

    `p_value` is the probability of one at least as strong if there were none.
    """

    name: str
    rho: float
    p_value: float


@dataclass(frozen=True)
class Importances:
    """What mattered among the trials that have a value of the metric, `num_trials` of them.

    `shares` of the parameters sum to 1, the largest first; empty where trials are too few. `unseen_r2` is the share of
    the variance that the forest explains of trials that it was not fitted to: 1 all, 0 or less none.
    """

    num_trials: int
    shares: dict[str, float]
    unseen_r2: float
    correlations: tuple[Correlation, ...]


def scored_trials(trials: Sequence[TrialRecord], metric: Metric) -> list[TrialRecord]:
    """The trials whose best value counts: finished or stopped, with a finite value."""
    return [trial for trial in trials if trial.status in CAN_WIN and trial.best_value(metric) is not None]


def importances(config: SweepConfig, trials: Sequence[TrialRecord]) -> Importances:
    """Rate the parameters of `config` by the trials that finished or were stopped, at their best epochs.

    The importance is that of impurity (Breiman 2001, https://doi.org/10.1023/A:1010933404324): how much the splits on
    a parameter reduce the variance, summed over the columns of a categorical one. The forest is fitted to the
    metric's ranks, so that a loss that ran away counts as the worst and not a thousandfold.
    """
    scored = scored_trials(trials, config.metric)
    parameters = [parameter for parameter in searched_parameters(config, scored) if parameter.varies]
    values = np.array([trial.best_value(config.metric) for trial in scored], dtype=np.float64)
    varies = len(set(values.tolist())) > 1
    shares: dict[str, float] = {}
    unseen_r2 = 0.0
    if len(scored) >= MIN_TRIALS_FOREST and parameters and varies:
        shares, unseen_r2 = _forest_shares(parameters, values)
    correlations: tuple[Correlation, ...] = ()
    if len(scored) >= MIN_TRIALS_CORRELATION and varies:
        correlations = tuple(_correlations(parameters, values))
    return Importances(len(scored), shares, unseen_r2, correlations)


def _forest_shares(parameters: Sequence[SearchedParameter], values: np.ndarray) -> tuple[dict[str, float], float]:
    # scikit-learn and scipy take seconds to import, which a search of a few trials can spare.
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor

    columns = [(parameter.name, column) for parameter in parameters for column in parameter.indicators().values()]
    features = np.array([column for _, column in columns]).T
    forest = RandomForestRegressor(NUM_TREES, oob_score=True, random_state=0)
    forest.fit(features, rankdata(values))
    shares = dict.fromkeys((parameter.name for parameter in parameters), 0.0)
    for (name, _), share in zip(columns, forest.feature_importances_.tolist(), strict=True):
        shares[name] += share
    ordered = sorted(shares.items(), key=lambda item: item[1], reverse=True)
    return dict(ordered), float(forest.oob_score_)


def _correlations(parameters: Sequence[SearchedParameter], values: np.ndarray) -> list[Correlation]:
    from scipy.stats import spearmanr

    found = []
    for parameter in parameters:
        for name, column in parameter.indicators().items():
            if len(set(column)) > 1:
                result = spearmanr(column, values)
                found.append(Correlation(name, float(result.statistic), float(result.pvalue)))
    return sorted(found, key=lambda correlation: abs(correlation.rho), reverse=True)
