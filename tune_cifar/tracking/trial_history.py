"""The W&B rows of one trial, here so that no row is logged twice or lost when a search is resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EPOCH_METRICS = ("val_loss", "val_accuracy", "epoch_runtime (seconds)", "avg epoch runtime (seconds)")

Row = tuple[int, dict[str, float]]
"""One W&B step and its metrics."""


@dataclass
class TrialHistory:
    """The W&B rows of one trial so far, and how its last epoch went."""

    rows: list[Row] = field(default_factory=list)
    epoch: int = 0
    status: str = "running"
    message: str = ""

    @property
    def last_step(self) -> int:
        """The highest step logged, -1 before the first."""
        return self.rows[-1][0] if self.rows else -1

    @property
    def last_values(self) -> dict[str, float]:
        """The last value of each metric."""
        return {name: value for _, row in self.rows for name, value in row.items()}

    def add_result(self, result: Mapping[str, Any]) -> list[Row]:
        """Take in one epoch's result and return its rows, without those of a step or an epoch known before.

        The epoch's own metrics join the row of its last step. An epoch without training rows (fewer batches
        than one row takes) gets a step of its own, because W&B would merge it into the step before.
        """
        self.status = result.get("status", "running")
        self.message = result.get("message", "")
        rows: dict[int, dict[str, float]] = {
            step: {"train_loss": float(train_loss), "epoch": float(fractional_epoch)}
            for step, fractional_epoch, train_loss in result.get("train_log", ())
            if step > self.last_step
        }
        metrics = {name: float(result[name]) for name in EPOCH_METRICS if name in result}
        if metrics and result["epoch"] > self.epoch:
            step = max(result["step"], max(rows, default=self.last_step + 1))
            rows.setdefault(step, {}).update(metrics)
        self.epoch = max(self.epoch, result["epoch"])
        new_rows = sorted(rows.items())
        self.rows += new_rows
        return new_rows

    def best(self, metric: str, goal: Literal["minimize", "maximize"]) -> float | None:
        """The best finite value of `metric` over all rows, or None."""
        values = [row[metric] for _, row in self.rows if metric in row and math.isfinite(row[metric])]
        if not values:
            return None
        return min(values) if goal == "minimize" else max(values)
