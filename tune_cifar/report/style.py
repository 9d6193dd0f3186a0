"""Colours and layout that all figures of a report share, here so that the page can swap the light for the dark ones."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from tune_cifar.results import Status

# Each colour and its counterpart on a dark page. Names in page.css of the same colours: keep them alike.
INK, INK_DARK = "#1f2328", "#e6edf3"
MUTED, MUTED_DARK = "#59636e", "#9aa4b0"
GRID, GRID_DARK = "#dfe4ea", "#2f3742"
SURFACE, SURFACE_DARK = "#ffffff", "#161b22"
ACCENT, ACCENT_DARK = "#0b62c4", "#58a6ff"
PALE, PALE_DARK = "#b1bfd0", "#56657a"
WORSE, WORSE_DARK = "#bc4c00", "#f0883e"
STOPPED, STOPPED_DARK = "#8792a0", "#7d8896"
DIVERGED, DIVERGED_DARK = "#9a6700", "#d8a126"
FAILED, FAILED_DARK = "#cf222e", "#f8706a"
RUNNING, RUNNING_DARK = "#0f7b83", "#39c5cf"

SERIES = (ACCENT, WORSE, "#1a7f37", "#8250df", "#bf3989", DIVERGED)
_SERIES_DARK = (ACCENT_DARK, WORSE_DARK, "#3fb950", "#ab7df8", "#db61a2", DIVERGED_DARK)

DARK_COLOURS = {
    INK: INK_DARK,
    MUTED: MUTED_DARK,
    GRID: GRID_DARK,
    SURFACE: SURFACE_DARK,
    PALE: PALE_DARK,
    STOPPED: STOPPED_DARK,
    FAILED: FAILED_DARK,
    RUNNING: RUNNING_DARK,
    **dict(zip(SERIES, _SERIES_DARK, strict=True)),
}
"""What the page puts for each colour of a figure when it is dark."""

STATUS_COLOURS: dict[Status, str] = {
    "finished": ACCENT,
    "stopped": STOPPED,
    "diverged": DIVERGED,
    "failed": FAILED,
    "running": RUNNING,
    "waiting": RUNNING,
}
# Shapes too, so that nobody has to tell statuses apart by colour alone.
STATUS_SYMBOLS: dict[Status, str] = {
    "finished": "circle",
    "stopped": "square",
    "diverged": "triangle-up",
    "failed": "x",
    "running": "circle-open",
    "waiting": "circle-open",
}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace"


def figure(traces: Sequence[Any], *, height: int, x_title: str = "", y_title: str = "", **layout: Any) -> go.Figure:
    """A figure in the report's style; the titles and all other texts must have gone through `plain`."""
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zerolinecolor": GRID,
        "automargin": True,
        "tickfont": {"color": MUTED},
        "title": {"font": {"color": MUTED, "size": 12}, "standoff": 10},
    }
    made = go.Figure(
        list(traces),
        layout={
            "template": "none",
            "height": height,
            "font": {"family": FONT, "size": 12, "color": INK},
            "paper_bgcolor": SURFACE,
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 12, "r": 12, "t": 12, "b": 12},
            "hovermode": "closest",
            "hoverlabel": {
                "bgcolor": SURFACE,
                "bordercolor": MUTED,
                "font": {"color": INK, "size": 12},
                "align": "left",
            },
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": INK}},
            "xaxis": axis,
            "yaxis": axis,
        },
    )
    made.update_layout(xaxis_title_text=x_title, yaxis_title_text=y_title, **layout)
    return made


def plain(text: object) -> str:
    """Text for a figure: plotly reads tags such as <b> in what it is given."""
    return html.escape(str(text), quote=False)
