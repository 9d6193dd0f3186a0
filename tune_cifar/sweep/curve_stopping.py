"""Stops a trial that lags behind the best finished one, by more than trials were seen to catch up.

The order of trials after one epoch is mostly their order at the end: on the CIFAR-10 runs of DeepOBS
(https://github.com/fsschneider/DeepOBS_Baselines) the rank correlation of the losses at epochs 1 and 5 is 0.84 or more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tune_cifar.sweep.schema import CurveStopping, Goal

# The lag of a trial is compared with those of so many trials that were nearest to it at its epoch: bad trials, which
# improve by far more than good ones, would else let everything go on.
NUM_NEAREST = 6
# Where the file does not say from when on to stop: after this share of the leader's epochs.
FIRST_SHARE = 0.1


@dataclass(frozen=True)
class Lag:
    """How a trial stands after `epoch` epochs: `value`, its best so far, against the leader's best by then.

    The leader is the finished trial with the best value. `lag` is the difference, above 0 where the leader was
    better; `catch_up` is how much the lags of others changed from there to the end.
    """

    epoch: int
    value: float
    leader_value: float
    lag: float
    catch_up: float


class CurveRule:
    """Decides which trials stop, from the values after each epoch of all trials of the search that have finished."""

    def __init__(self, config: CurveStopping, goal: Goal) -> None:
        self.config = config
        self.sign = -1.0 if goal == "maximize" else 1.0

    def decide(self, history: Sequence[float], finished: Iterable[Sequence[float]]) -> Lag | None:
        """Whether the trial with `history`, a value an epoch, stops now, and why.

        `finished` are the histories of the trials that trained to their end. Before there is one no trial stops.
        """
        losses = self._losses(history)
        epoch = len(losses)
        curves = [curve for curve in map(self._losses, finished) if math.isfinite(min(curve[:epoch], default=math.inf))]
        if not curves or not math.isfinite(min(losses, default=math.inf)):
            return None
        leader = min(curves, key=min)
        if epoch < (self.config.min_iter or max(1, int(FIRST_SHARE * len(leader)))):
            return None
        lag = min(losses) - min(leader[:epoch])
        others = [curve for curve in curves if curve is not leader]
        lags = [min(curve[:epoch]) - min(leader[:epoch]) for curve in others]
        nearest = sorted(range(len(others)), key=lambda index: abs(lags[index] - lag))[:NUM_NEAREST]
        changes = [min(others[index]) - min(leader) - lags[index] for index in nearest]
        catch_up = math.sqrt(sum(change**2 for change in changes) / len(changes)) if changes else 0.0
        if lag <= self.config.margin * catch_up:
            return None
        return Lag(epoch, self.sign * min(losses), self.sign * min(leader[:epoch]), lag, catch_up)

    def _losses(self, history: Sequence[float]) -> list[float]:
        """The history with the sign that makes less better; what is not finite is worse than anything."""
        return [self.sign * value if math.isfinite(value) else math.inf for value in history]
