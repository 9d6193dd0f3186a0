"""Puts text, tables and figures into one HTML file that opens without a network and asks for nothing from one."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tune_cifar.files import replace_text
from tune_cifar.report.style import DARK_COLOURS


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, its class in page.css, and where it leads to."""

    text: str
    kind: str = ""
    link: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table, with the attributes that page.js filters by."""

    cells: Sequence[Cell]
    attributes: Mapping[str, str]


class Page:
    """Collects the parts of a page. All that is given as text is escaped; what the methods return is HTML."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []
        self.figures: dict[str, go.Figure] = {}

    def add(self, *parts: str) -> None:
        """Add HTML to the end."""
        self.parts += parts

    def plot(self, name: str, figure: go.Figure, *, least_width: int = 0, webgl: bool = False) -> str:
        """The place of a figure; on a screen of less than its least width in pixels it is scrolled.

        `webgl` tells that it needs that.
        """
        self.figures[name] = figure
        flags = " data-webgl" if webgl else ""
        node = (
            f'<div class="plot" id="{name}" data-figure="{name}"{flags} '
            f'style="height:{figure.layout.height}px;min-width:{least_width}px"></div>'
        )
        return f'<div class="scroll" tabindex="0">{node}</div>' if least_width else node

    def tabbed_plots(self, plots: Mapping[str, tuple[str, go.Figure]]) -> str:
        """Several figures in one place, the first one shown; `plots` maps a label to a name and its figure."""
        buttons, panels = [], []
        for place, (label, (name, figure)) in enumerate(plots.items()):
            chosen = "true" if place == 0 else "false"
            buttons.append(
                f'<button type="button" role="tab" aria-selected="{chosen}" aria-controls="{name}-tab">'
                f"{html.escape(label)}</button>"
            )
            hidden = "" if place == 0 else " hidden"
            panels.append(f'<div role="tabpanel" id="{name}-tab"{hidden}>{self.plot(name, figure)}</div>')
        tabs = f'<div class="tabs" role="tablist">{"".join(buttons)}</div>' if len(plots) > 1 else ""
        return tabs + "".join(panels)

    def render(self) -> str:
        """The whole file. A policy in it keeps a browser from fetching anything and from running any other script."""
        page_script = _package_file("page.js")
        scripts = [get_plotlyjs(), page_script]
        # plotly makes functions from text for its parallel coordinates, which is what 'unsafe-eval' allows.
        policy = (
            f"default-src 'none'; script-src {' '.join(map(_script_hash, scripts))} 'unsafe-eval'; "
            "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
        )
        figures = ",".join(f"{json.dumps(name)}:{figure.to_json()}" for name, figure in self.figures.items())
        return "\n".join(
            [
                "<!doctype html>",
                '<html lang="en"><head><meta charset="utf-8">',
                f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{html.escape(self.title)}</title>",
                f"<style>{_package_file('page.css')}</style></head><body>",
                *self.parts,
                _data_block("figures", f"{{{figures}}}"),
                _data_block("dark-colours", json.dumps(DARK_COLOURS)),
                *(f"<script>{script}</script>" for script in scripts),
                "</body></html>\n",
            ]
        )


def section(title: str, *body: str, note: str = "") -> str:
    """A titled part of the page, with a line of explanation."""
    told = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{told}{''.join(body)}</section>"


def definitions(values: Mapping[str, object], kind: str = "") -> str:
    """Names with values."""
    pairs = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>" for name, value in values.items()
    )
    return f'<dl class="{kind}">{"".join(pairs)}</dl>'


def items(lines: Iterable[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"


def table(headers: Sequence[Cell], rows: Iterable[Row], *, name: str = "") -> str:
    """A table; with a `name` its columns can be sorted by page.js."""
    heads = []
    for header in headers:
        text = html.escape(header.text)
        heads.append(f'<th class="{header.kind}">{f"<button type=button>{text}</button>" if name else text}</th>')
    identifier = f' id="{name}"' if name else ""
    return (
        f'<div class="scroll" tabindex="0"><table{identifier}><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(map(table_row, rows))}</tbody></table></div>"
    )


def table_row(row: Row) -> str:
    """A row of a table."""
    attributes = "".join(f' {key}="{html.escape(value)}"' for key, value in row.attributes.items())
    return f"<tr{attributes}>{''.join(map(_cell, row.cells))}</tr>"


def _cell(cell: Cell) -> str:
    kind = f' class="{cell.kind}"' if cell.kind else ""
    text = html.escape(cell.text)
    if cell.link:
        text = f'<a href="{html.escape(cell.link)}">{text}</a>'
    return f"<td{kind}>{text}</td>"


def write_page(path: Path, page: Page) -> None:
    """Write the page; a reader sees the old file or the new one, never a part."""
    replace_text(path, page.render())


def _data_block(name: str, text: str) -> str:
    # `<` could only stand in a string here, and could end the block.
    return f'<script type="application/json" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>'


def _script_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _package_file(name: str) -> str:
    return resources.files("tune_cifar.report").joinpath(name).read_text(encoding="utf-8")
