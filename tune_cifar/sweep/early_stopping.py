"""W&B's hyperband rule for stopping weak trials early, apart from any scheduler, so that each stop can be explained.

At a few points of training, the bands, a trial goes on only if it is among the best 1/eta of the trials that
reached the band so far. This is the stopping half of Hyperband (https://arxiv.org/abs/1603.06560) in the form of
W&B's engine (https://github.com/wandb/sweeps, hyperband_stopping.py), which counts logged values of the metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tune_cifar.sweep.schema import Goal, Hyperband

# W&B's engine lists no more bands than these.
MOST_BANDS = 100


@dataclass(frozen=True)
class Stop:
    """Why a trial stops: at `band` (a number of logged values), `value` was worse than `threshold`.

    `num_trials` are those that reached the band, the stopped one included.
    """

    band: int
    value: float
    threshold: float
    num_trials: int


class HyperbandRule:
    """Decides which trials stop, from the metric values that every trial of the search has logged so far."""

    def __init__(self, config: Hyperband, goal: Goal) -> None:
        self.config = config
        self.sign = -1.0 if goal == "maximize" else 1.0

    def decide(self, history: Sequence[float], others: Iterable[Sequence[float]]) -> Stop | None:
        """Whether the trial that logged `history` stops now, and why.

        `others` are the histories of all other trials of the search, ended or not. Values that are not finite
        do not count, as in W&B.
        """
        losses = self._losses(history)
        band = max((band for band in self.bands(len(losses))), default=None)
        if band is None:
            return None
        reached = [losses[band - 1]]
        for other in others:
            other_losses = self._losses(other)
            if len(other_losses) >= band:
                reached.append(other_losses[band - 1])
        threshold = sorted(reached)[int(1 / self.config.eta * len(reached))]
        judged = losses[band - 1] if self.config.strict else min(losses)
        if judged <= threshold:
            return None
        return Stop(band, self.sign * judged, self.sign * threshold, len(reached))

    def bands(self, num_values: int) -> Iterator[int]:
        """The bands that a trial with `num_values` logged values has reached."""
        config = self.config
        if config.max_iter is not None and config.s is not None:
            band = float(config.max_iter)
            for _ in range(config.s):
                band /= config.eta
                if band < 1:
                    return
                if int(band) <= num_values:
                    yield int(band)
        elif config.min_iter is not None:
            band = float(config.min_iter)
            for _ in range(MOST_BANDS):
                if band >= num_values + 1:
                    return
                yield int(band)
                band *= config.eta

    def _losses(self, history: Sequence[float]) -> list[float]:
        """The finite values of a history with the sign that makes less better."""
        return [self.sign * value for value in history if math.isfinite(value)]
