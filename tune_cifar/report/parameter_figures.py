"""Draws what the parameters did: parallel coordinates, importance and correlation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tune_cifar.report.figures import WIDE_RATIO, rounded
from tune_cifar.report.importance import Importances, scored_trials
from tune_cifar.report.parameters import SearchedParameter, searched_parameters
from tune_cifar.report.style import ACCENT, GRID, INK, MUTED, PALE, WORSE, figure, plain
from tune_cifar.report.words import log_ticks
from tune_cifar.results import TrialRecord
from tune_cifar.sweep.schema import Metric, SweepConfig

BAR_PIXELS = 34
MAX_BARS = 24
MAX_TICKS = 8
MAX_LINES = 2_000
# What a label above an axis needs, and a letter of a tick.
AXIS_PIXELS = 92
LETTER_PIXELS = 6.6


def parallel_coordinates(config: SweepConfig, trials: Sequence[TrialRecord]) -> go.Figure | None:
    """A line a trial through its parameters and its best value, the best ones drawn last and strongest.

    None where no two trials can be compared; of more than `MAX_LINES` the best. `customdata` are the trials' numbers,
    by which the page filters.
    """
    metric = config.metric
    scored = scored_trials(trials, metric)
    if len(scored) < 2:
        return None
    # Ranks, so that one loss that ran away does not paint all others alike; the worst first, as 0.
    scored.sort(key=lambda trial: trial.best_value(metric) or 0.0, reverse=metric.goal == "minimize")
    scored = scored[-MAX_LINES:]
    values = [float(trial.best_value(metric) or 0.0) for trial in scored]
    dimensions = [_dimension(parameter) for parameter in searched_parameters(config, scored)]
    # Ticks stand left of their axis, and what is left of the first one is the margin.
    left = max((len(text) for dimension in dimensions[:1] for text in dimension.get("ticktext", ())), default=0)
    trace = go.Parcoords(
        dimensions=[*dimensions, _metric_dimension(metric, values)],
        customdata=[trial.number for trial in scored],
        line={"color": list(range(len(scored))), "colorscale": [[0, PALE], [0.5, PALE], [1, ACCENT]]},
        labelfont={"color": INK, "size": 12},
        tickfont={"color": MUTED, "size": 11},
        # The ends of an axis, which plotly would write as logarithms; the ticks have them already.
        rangefont={"color": "rgba(0,0,0,0)", "size": 1},
        unselected={"line": {"color": GRID, "opacity": 0.35}},
    )
    return figure(
        [trace], height=380, margin={"l": max(64, round(10 + LETTER_PIXELS * left)), "r": 64, "t": 44, "b": 20}
    )


def least_width(coordinates: go.Figure) -> int:
    """The width in pixels at which no label of parallel coordinates lies on the next one."""
    margin = coordinates.layout.margin
    return int(margin.l + margin.r + AXIS_PIXELS * (len(coordinates.data[0].dimensions) - 1))


def _dimension(parameter: SearchedParameter) -> dict[str, Any]:
    label = plain(parameter.label)
    numbers = parameter.numbers
    if parameter.categories:
        texts = [str(category) for category in parameter.categories]
        return _with_ticks(label, numbers, [float(place) for place in range(len(texts))], texts)
    # Values that the file lists are an axis' ticks; those of a range would lie upon one another.
    ticks = parameter.listed if len(parameter.listed) <= MAX_TICKS else ()
    if parameter.log:
        return _log_dimension(label, numbers, ticks)
    if ticks:
        return _with_ticks(label, numbers, ticks, [f"{value:g}" for value in ticks])
    return {"label": label, "values": rounded(numbers), "range": _padded(min(numbers), max(numbers))}


def _metric_dimension(metric: Metric, values: Sequence[float]) -> dict[str, Any]:
    low, high = min(values), max(values)
    if low > 0 and high / low > WIDE_RATIO:
        return _log_dimension(plain(metric.name), values)
    return {"label": plain(metric.name), "values": rounded(values), "range": _padded(low, high)}


def _log_dimension(label: str, values: Sequence[float], listed: Sequence[float] = ()) -> dict[str, Any]:
    ticks = listed or log_ticks(min(values), max(values))
    texts = [f"{tick:g}" for tick in ticks]
    return _with_ticks(label, np.log10(values).round(5).tolist(), np.log10(ticks).tolist(), texts)


def _with_ticks(label: str, values: Sequence[float], ticks: Sequence[float], texts: Sequence[str]) -> dict[str, Any]:
    """An axis with ticks of ours, two of them without a text, since plotly draws it from the first to the last."""
    ends = _padded(min(*values, *ticks), max(*values, *ticks))
    # Tick texts are taken as they are, labels are not.
    return {
        "label": label,
        "values": list(values),
        "range": ends,
        "tickvals": [ends[0], *ticks, ends[1]],
        "ticktext": ["", *texts, ""],
    }


def _padded(low: float, high: float) -> list[float]:
    """A range with a little room, also around a single value."""
    room = (high - low) * 0.03 or 0.5
    return [low - room, high + room]


def importance_bars(importances: Importances) -> go.Figure:
    """A bar a parameter with its share of the importance, the largest on top."""
    names = list(importances.shares)[:MAX_BARS]
    shares = [importances.shares[name] for name in names]
    bars = go.Bar(
        x=rounded(shares),
        y=[plain(name.rpartition(".")[2]) for name in names],
        orientation="h",
        marker={"color": ACCENT},
        text=[f"{share:.0%}" for share in shares],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    axis = {"range": [0, max(shares) * 1.15], "tickformat": ".0%", "nticks": 5}
    return _bars(bars, len(names), axis, "share of the importance")


def correlation_bars(importances: Importances, metric: Metric) -> go.Figure:
    """A bar a parameter or category with its rank correlation, coloured by whether more of it is better or worse."""
    shown = importances.correlations[:MAX_BARS]
    better = -1 if metric.goal == "minimize" else 1
    bars = go.Bar(
        x=rounded(correlation.rho for correlation in shown),
        y=[plain(correlation.name) for correlation in shown],
        orientation="h",
        marker={"color": [ACCENT if correlation.rho * better > 0 else WORSE for correlation in shown]},
        text=[f"{correlation.rho:+.2f}" for correlation in shown],
        textposition="outside",
        cliponaxis=False,
        customdata=[f"{correlation.p_value:.2g}" for correlation in shown],
        hovertemplate="%{y}: %{x:.2f} (p = %{customdata})<extra></extra>",
    )
    axis = {"range": [-1.5, 1.5], "tickvals": [-1, -0.5, 0, 0.5, 1]}  # with room for the number beside a bar of 1
    return _bars(bars, len(shown), axis, "rank correlation")


def _bars(bars: go.Bar, number: int, axis: dict[str, Any], title: str) -> go.Figure:
    return figure(
        [bars],
        height=70 + BAR_PIXELS * number,
        x_title=title,
        xaxis=axis,
        yaxis={
            "autorange": "reversed",
            "ticks": "",
            "showgrid": False,
            "tickfont": {"color": INK},
            "ticklabelstandoff": 6,
        },
        bargap=0.35,
        showlegend=False,
    )
