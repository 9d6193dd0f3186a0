"""Draws what the best model takes for what on the test images."""

from __future__ import annotations

import plotly.graph_objects as go

from tune_cifar.report.mistakes import Mistakes
from tune_cifar.report.style import ACCENT, GRID, INK, SURFACE, WORSE, figure, plain

MAX_CLASSES_WITH_COUNTS = 16
CELL_PIXELS = 44


def confusion_matrix(mistakes: Mistakes) -> go.Figure:
    """Rows of true classes, columns of predicted ones; mistakes have a colour scale of their own, else none is seen."""
    names = [plain(name) for name in mistakes.class_names]
    with_counts = len(names) <= MAX_CLASSES_WITH_COUNTS
    size = max(360, min(760, 130 + CELL_PIXELS * len(names)))
    traces = []
    for colour, on_diagonal in ((ACCENT, True), (WORSE, False)):
        shares: list[list[float | None]] = []
        for label, row in enumerate(mistakes.confusion):
            total = max(1, sum(row))
            shares.append(
                [
                    round(number / total, 4) if (label == column) is on_diagonal else None
                    for column, number in enumerate(row)
                ]
            )
        largest = max((share for row in shares for share in row if share is not None), default=0.0)
        traces.append(
            go.Heatmap(
                x=list(range(len(names))),
                y=list(range(len(names))),
                z=shares,
                zmin=0,
                zmax=1.7 * (1 if on_diagonal else max(largest, 0.01)),  # no cell too dark for its number
                colorscale=[[0, SURFACE], [1, colour]],
                showscale=False,
                xgap=1,
                ygap=1,
                text=[[str(number) if number else "" for number in row] for row in mistakes.confusion],
                texttemplate="%{text}" if with_counts else "",
                textfont={"color": INK},
                customdata=[[f"{label} taken for {column}" for column in names] for label in names],
                hovertemplate="%{customdata}: %{text}, %{z:.1%} of its images<extra></extra>",
                hoverongaps=False,
            )
        )
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False, "ticks": ""}
    return figure(
        traces,
        height=size,
        x_title="predicted class",
        y_title="true class",
        xaxis={**ticks, "tickangle": -45, "side": "bottom"},
        yaxis={**ticks, "autorange": "reversed"},
        plot_bgcolor=GRID,
    )
