"""Draws what the best model takes for what on the test images."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from tune_cifar.report.mistakes import Mistakes
from tune_cifar.report.style import ACCENT, GRID, INK, SURFACE, WORSE, figure, plain

MAX_CLASSES_WITH_COUNTS = 16
MAX_NAME_LETTERS = 20
CELL_PIXELS = 44


def confusion_matrix(mistakes: Mistakes) -> go.Figure:
    """Rows of true classes, columns of predicted ones; mistakes have a colour scale of their own, else none is seen."""
    names = [plain(name) for name in _short_names(mistakes.class_names)]
    with_counts = len(names) <= MAX_CLASSES_WITH_COUNTS
    counts = "%{text}, " if with_counts else ""
    size = max(360, min(760, 130 + CELL_PIXELS * len(names)))
    traces = []
    for colour, on_diagonal in ((ACCENT, True), (WORSE, False)):
        shares = [
            [
                number / max(1, sum(row)) if (label == column) is on_diagonal else None
                for column, number in enumerate(row)
            ]
            for label, row in enumerate(mistakes.confusion)
        ]
        largest = max((share for row in shares for share in row if share is not None), default=0.0)
        traces.append(
            go.Heatmap(
                x=names,
                y=names,
                z=[[None if share is None else round(share, 4) for share in row] for row in shares],
                zmin=0,
                zmax=1.7 * (1 if on_diagonal else max(largest, 0.01)),  # no cell too dark for its number
                colorscale=[[0, SURFACE], [1, colour]],
                showscale=False,
                xgap=1 if with_counts else 0,
                ygap=1 if with_counts else 0,
                text=_texts(mistakes, on_diagonal=on_diagonal) if with_counts else None,
                texttemplate="%{text}" if with_counts else "",
                textfont={"color": INK},
                hovertemplate=f"%{{y}} taken for %{{x}}: {counts}%{{z:.1%}} of its images<extra></extra>",
                hoverongaps=False,
            )
        )
    # On an axis of categories plotly leaves out names where there is no room for all.
    axis = {"type": "category", "showgrid": False, "ticks": ""}
    return figure(
        traces,
        height=size,
        x_title="predicted class",
        y_title="true class",
        xaxis={**axis, "tickangle": -45 if with_counts else -90, "side": "bottom"},
        yaxis={**axis, "autorange": "reversed"},
        plot_bgcolor=GRID,
    )


def _texts(mistakes: Mistakes, *, on_diagonal: bool) -> list[list[str]]:
    """The numbers in the cells of one trace; those of the other would be drawn a second time."""
    return [
        [str(number) if number and (label == column) is on_diagonal else "" for column, number in enumerate(row)]
        for label, row in enumerate(mistakes.confusion)
    ]


def _short_names(names: Sequence[str]) -> list[str]:
    """The names, cut where they would leave the matrix no room, unless two of them were the same then."""
    cut = [name if len(name) <= MAX_NAME_LETTERS else f"{name[: MAX_NAME_LETTERS - 1]}…" for name in names]
    return cut if len(set(cut)) == len(set(names)) else list(names)
