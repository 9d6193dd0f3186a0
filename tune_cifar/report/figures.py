"""Draws how a search went: best so far, and learning curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from tune_cifar.report.style import (
    ACCENT,
    GRID,
    INK,
    STATUS_COLOURS,
    STATUS_SYMBOLS,
    figure,
    plain,
)
from tune_cifar.report.words import show_config
from tune_cifar.results import ENDED, STATUSES, Status, TrialRecord, flatten
from tune_cifar.sweep.schema import Metric

# With these a report of thousands of trials stays small enough to be sent around.
MAX_CURVE_POINTS = 6_000
MAX_POINTS_WITH_CONFIG = 2_000
MAX_TRIALS_WITH_CONFIG = 500
# Values further apart than this are drawn on a logarithmic axis, so that a loss that ran away hides no other.
WIDE_RATIO = 20.0
MAX_POWERS_WITH_DIGITS = 3
# Others are finished or stopped, or may be yet.
CANNOT_WIN: frozenset[Status] = frozenset({"failed", "diverged"})


@dataclass(frozen=True)
class Moment:
    """The best value of a search changed to `value` after `seconds` in which at least one trial was trained."""

    seconds: float
    value: float
    trial: TrialRecord


def best_moments(trials: Iterable[TrialRecord], metric: Metric) -> tuple[list[Moment], float]:
    """Each improvement of the best value over time, and the length of the whole, in seconds.

    Time counts while trials train, so that the hours between an interruption and its resume are no part of it. What
    a failed or diverged trial reached does not count, as it could not win.
    """
    rows = sorted(
        ((row["reported_at"], row, trial) for trial in trials for row in trial.epochs), key=lambda row: row[0]
    )
    # The earliest start of the epochs that end at or after each row: since then, or the row before, all is training.
    starts = [at - row["epoch_runtime (seconds)"] for at, row, _ in rows]
    earliest = list(itertools.accumulate(reversed(starts), min))[::-1]
    seconds, previous = 0.0, -math.inf
    moments: list[Moment] = []
    for (at, row, trial), start in zip(rows, earliest, strict=True):
        seconds += at - min(at, max(previous, start))
        previous = at
        value = row.get(metric.name, math.nan)
        counts = trial.status not in CANNOT_WIN and math.isfinite(value)
        if counts and (not moments or metric.better(value, than=moments[-1].value)):
            moments.append(Moment(seconds, value, trial))
    return moments, seconds


def best_over_trials(trials: Sequence[TrialRecord], metric: Metric, names: Sequence[str]) -> go.Figure:
    """A point a trial with its best value, and the best so far as a line; `names` are the parameters to tell."""
    scored = [(trial, value) for trial in trials if (value := trial.best_value(metric)) is not None]
    best, so_far = [], math.nan
    for trial, value in scored:
        can_win = trial.status not in CANNOT_WIN
        if can_win and (math.isnan(so_far) or metric.better(value, than=so_far)):
            so_far = value
        best.append(so_far)
    numbers = [trial.number for trial, _ in scored]
    last_ended = max((trial.number for trial in trials if trial.status in ENDED), default=0)
    if numbers and last_ended > numbers[-1]:  # trials without a value leave the best as it was
        numbers, best = [*numbers, last_ended], [*best, so_far]
    line = {
        "x": numbers,
        "y": rounded(best),
        "mode": "lines",
        "line": {"color": INK, "width": 1.6, "shape": "hv"},
        "name": "best so far",
        "hoverinfo": "skip",
    }
    points = []
    with_config = len(scored) <= MAX_TRIALS_WITH_CONFIG
    hover = f"trial %{{x}}: {plain(metric.name)} %{{y}}{'<br>%{customdata}' if with_config else ''}"
    for status in STATUSES:
        of_status = [(trial, value) for trial, value in scored if trial.status == status]
        if of_status:
            points.append(
                go.Scatter(
                    x=[trial.number for trial, _ in of_status],
                    y=rounded(value for _, value in of_status),
                    mode="markers",
                    name=status,
                    marker={"color": STATUS_COLOURS[status], "symbol": STATUS_SYMBOLS[status], "size": 8},
                    customdata=[plain(show_config(flatten(trial.config), names)) for trial, _ in of_status]
                    if with_config
                    else None,
                    hovertemplate=f"{hover}<extra>{status}</extra>",
                )
            )
    axis = value_axis(value for _, value in scored)
    made = figure([go.Scatter(line), *points], height=340, x_title="trial", y_title=plain(metric.name), yaxis=axis)
    last = max((trial.number for trial in trials), default=1)
    made.update_xaxes(range=[0.5, last + 0.5], **({"dtick": 1} if last <= 16 else {}))
    return made


def best_over_time(trials: Sequence[TrialRecord], metric: Metric) -> go.Figure:
    """The best value so far over the time in which trials were trained."""
    moments, seconds = best_moments(trials, metric)
    unit, unit_seconds = time_unit(seconds)
    trace = go.Scatter(
        x=rounded([*(moment.seconds / unit_seconds for moment in moments), seconds / unit_seconds]),
        y=rounded([*(moment.value for moment in moments), *(moment.value for moment in moments[-1:])]),
        mode="lines+markers",
        line={"color": INK, "width": 1.6, "shape": "hv"},
        marker={"color": ACCENT, "size": [*[8] * len(moments), 0]},
        customdata=[*(moment.trial.number for moment in moments), *(moment.trial.number for moment in moments[-1:])],
        hovertemplate=f"%{{x}} {unit}: {plain(metric.name)} %{{y}}<br>trial %{{customdata}}<extra></extra>",
        showlegend=False,
    )
    axis = value_axis(moment.value for moment in moments)
    return figure([trace], height=340, x_title=f"{unit} of training", y_title=plain(metric.name), yaxis=axis)


def learning_curves(
    trials: Sequence[TrialRecord], name: str, best: TrialRecord | None, names: Sequence[str]
) -> tuple[go.Figure, int]:
    """The values of `name` over the epochs of as many trials as fit, and how many that are.

    The best trial comes first and then the others in order; the last epoch of each has the mark of its status.
    """
    chosen, num_points = [], 0
    for trial in sorted(trials, key=lambda trial: (trial is not best, trial.number)):
        num_points += len(trial.epochs) + 1
        if num_points > MAX_CURVE_POINTS:
            break
        chosen.append(trial)
    with_config = num_points <= MAX_POINTS_WITH_CONFIG
    traces: list[go.Scatter] = []
    for status in STATUSES:
        of_status = [trial for trial in chosen if trial.status == status and trial is not best and trial.epochs]
        if of_status:
            traces += _curves(of_status, name, status, status, names if with_config else ())
    if best:
        label = f"best: trial {best.number}"
        traces += _curves([best], name, label, best.status, names if with_config else (), best=True)
    axis = value_axis(row.get(name, math.nan) for trial in chosen for row in trial.epochs)
    made = figure(traces, height=400, x_title="epoch", y_title=plain(name), yaxis=axis)
    made.update_xaxes(whole_ticks(max((row["epoch"] for trial in chosen for row in trial.epochs), default=1)))
    return made, len(chosen)


def _curves(
    trials: Sequence[TrialRecord], name: str, label: str, status: Status, names: Sequence[str], *, best: bool = False
) -> list[go.Scatter]:
    """The lines of some trials and the marks at their ends, a trace each: a browser draws thousands of lines so.

    With `names` the parameters of each trial are told too, where the mouse is.
    """
    lines: list[tuple[int | None, float, str | int]] = []
    ends: list[tuple[int | None, float, str | int]] = []
    for trial in trials:
        config = plain(show_config(flatten(trial.config), names))
        told = f"{trial.number} ({trial.status})<br>{config}" if names else trial.number
        # A diverged trial ends in a value that cannot be drawn: the mark is on the last that can.
        points = [(row["epoch"], row[name], told) for row in trial.epochs if math.isfinite(row.get(name, math.nan))]
        lines += [*points, (None, math.nan, "")]  # a gap between two trials
        ends += points[-1:]
    colour = INK if best else STATUS_COLOURS[status]
    shared = {
        "name": label,
        "legendgroup": label,
        "hovertemplate": f"trial %{{customdata}}<br>epoch %{{x}}: {plain(name)} %{{y}}<extra></extra>",
    }
    line = {"color": colour, "width": 2.8 if best else 1.2}
    marker = {"color": colour, "symbol": STATUS_SYMBOLS[status], "size": 8}
    return [
        go.Scatter(_columns(lines), mode="lines", line=line, opacity=1 if best else 0.7, showlegend=best, **shared),
        go.Scatter(_columns(ends), mode="markers", marker=marker, showlegend=not best, **shared),
    ]


def _columns(points: Sequence[tuple[int | None, float, str | int]]) -> dict[str, list[Any]]:
    return {
        "x": [epoch for epoch, _, _ in points],
        "y": rounded(value for _, value, _ in points),
        "customdata": [told for _, _, told in points],
    }


def value_axis(values: Iterable[float]) -> dict[str, Any]:
    """The axis of a metric: logarithmic where finite values are positive and far apart."""
    finite = [value for value in values if math.isfinite(value)]
    wide = bool(finite) and min(finite) > 0 and max(finite) / min(finite) > WIDE_RATIO
    if not wide:
        return {"type": "linear"}
    # Without a format plotly labels the ticks between powers of ten with a bare digit: 2 for 0.2 and for 20. Over few
    # powers it would label every digit, one upon the other: 1, 2 and 5 are enough.
    few = {"dtick": "D2"} if math.log10(max(finite) / min(finite)) <= MAX_POWERS_WITH_DIGITS else {}
    return {"type": "log", "tickformat": "~g", "minor": {"gridcolor": GRID}, **few}


def whole_ticks(last: int) -> dict[str, Any]:
    """The ticks of an axis that counts to `last`, where plotly's own may be halves."""
    return {"dtick": 1 if last <= 10 else 2} if last <= 20 else {}


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit for an axis of that length, and its seconds."""
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 7200 else ("hours", 3600.0)


def rounded(values: Iterable[float]) -> list[float | None]:
    """Five digits, which is more than a screen shows and half of what a float would take in the page."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]
