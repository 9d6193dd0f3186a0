"""Draws small line plots as SVG text, because a plotting library would be a dependency of this alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 340, 240
LEFT, TOP, BOTTOM, GAP = 56, 34, 40, 16
LEGEND_HEIGHT = 30
# Okabe and Ito's colours, which colour-blind people can tell apart (https://jfly.uni-koeln.de/color/), and two greys.
COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#999999", "#009e73", "#cc79a7", "#000000", "#b8a400", "#555555")


@dataclass(frozen=True)
class Line:
    """A named line through (xs, ys) with an interval around each y."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    intervals: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One plot of several lines."""

    title: str
    x_label: str
    lines: Sequence[Line]


def draw_panels(rows: Sequence[Sequence[Panel]], y_label: str) -> str:
    """An SVG with a grid of panels and one legend; y is logarithmic. The first line of a panel shows its intervals."""
    names = list(dict.fromkeys(line.name for row in rows for panel in row for line in panel.lines))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    width = max(len(row) for row in rows) * (WIDTH + GAP) + GAP
    height = LEGEND_HEIGHT + len(rows) * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (name, colour) in enumerate(colours.items()):
        x = GAP + number * (width - 2 * GAP) / len(colours)
        parts.append(f'<path d="M{x:.1f} 18h18" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 22:.1f}" y="22">{escape(name)}</text>')
    for row_number, row in enumerate(rows):
        for column, panel in enumerate(row):
            x, y = GAP + column * (WIDTH + GAP), LEGEND_HEIGHT + GAP + row_number * (HEIGHT + GAP)
            parts.append(f'<g transform="translate({x} {y})">{_panel(panel, y_label, colours)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, y_label: str, colours: dict[str, str]) -> str:
    values = [y for line in panel.lines for y in line.ys if y > 0]
    places = [x for line in panel.lines for x in line.xs]
    low = math.floor(math.log10(max(min(values, default=0.01), 1e-4)))
    high = max(math.ceil(math.log10(max(values, default=1.0))), low + 1)
    first, last = min(places), max(max(places), min(places) + 1)
    bottom = HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + (x - first) / (last - first) * (WIDTH - LEFT)

    def up(y: float) -> float:
        share = (math.log10(max(y, 10.0**low)) - low) / (high - low)
        return bottom - min(share, 1.0) * (bottom - TOP)

    parts = [f'<text x="{LEFT}" y="{TOP - 12}" font-weight="bold">{escape(panel.title)}</text>']
    for power in range(low, high + 1):
        y = up(10.0**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    ticks = panel.lines[0].xs
    for x_value in sorted({ticks[0], ticks[(len(ticks) - 1) // 2], ticks[-1]}):
        parts.append(f'<text x="{across(x_value):.1f}" y="{bottom + 15}" text-anchor="middle">{x_value:g}</text>')
    middle = (LEFT + WIDTH) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.x_label)}</text>')
    parts.append(
        f'<text transform="translate(11 {(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">{y_label}</text>'
    )
    shaded = panel.lines[0]
    upper = [(x, high) for x, (_, high) in zip(shaded.xs, shaded.intervals, strict=True)]
    lower = [(x, low) for x, (low, _) in zip(shaded.xs, shaded.intervals, strict=True)]
    points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in [*upper, *reversed(lower)])
    parts.append(f'<polygon points="{points}" fill="{colours[shaded.name]}" opacity="0.15"/>')
    for line in reversed(panel.lines):  # the first one on top
        points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in zip(line.xs, line.ys, strict=True))
        colour = colours[line.name]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    return "".join(parts)
