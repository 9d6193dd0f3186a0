"""Prints what search_quality.py measured as plain tables, and draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.line_plot import Line, Panel, draw_panels
from benchmarks.search_simulator import SearchRecord
from benchmarks.search_statistics import (
    STATISTICS,
    Cell,
    Results,
    Values,
    Verdict,
    after_epochs,
    after_trials,
    estimate,
)

# After how many trials the time of a suggestion is looked at.
TIMED_TRIALS = (10, 50, 200)


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))} |" for line in lines)


def regret_tables(results: Results, counts: tuple[int, int], epochs_of: Mapping[str, int]) -> str:
    """Regret after numbers of trials, for each table and number of workers, and after numbers of epochs.

    `epochs_of` is the length of a trial of each table. Numbers of epochs are compared one trial at a time only:
    how many trials share them does not change what they buy.
    """
    texts = []
    for table, workers in dict.fromkeys((cell.table, cell.workers) for cell in results):
        cells = {cell.method: records for cell, records in results.items() if cell_is(cell, table, workers)}
        one = next(iter(cells.values()))
        at_once = "one trial at a time" if workers == 1 else f"{workers} trials at once"
        texts.append(f"{table}, {at_once}: regret after trials ({len(one)} seeds, 95% intervals)")
        columns = {f"{count} trials": _trials_values(cells, count) for count in counts}
        texts.append(_statistics_table(columns))
        if workers == 1:
            columns = {
                f"{count * epochs_of[table]} epochs": {
                    method: after_epochs(records, count * epochs_of[table]) for method, records in cells.items()
                }
                for count in counts
            }
            texts.append(f"{table}: regret after epochs")
            texts.append(_statistics_table(columns))
    return "\n\n".join(texts)


def cell_is(cell: Cell, table: str, workers: int) -> bool:
    """Whether the cell is of this table and number of workers."""
    return (cell.table, cell.workers) == (table, workers)


def _trials_values(cells: Mapping[str, Sequence[SearchRecord]], count: int) -> dict[str, Values]:
    return {method: after_trials(records, count) for method, records in cells.items()}


def _statistics_table(columns: Mapping[str, Mapping[str, Values]]) -> str:
    methods = list(next(iter(columns.values())))
    header = ["method", *(f"{statistic}, {name}" for name in columns for statistic in STATISTICS)]
    rows = []
    for method in methods:
        values = [of_method[method] for of_method in columns.values()]
        rows.append([method, *(str(estimate(some, statistic)) for some in values for statistic in STATISTICS)])
    return table_text(header, rows)


def verdict_table(rows: Sequence[Verdict]) -> str:
    """The targets of one table."""
    shown = []
    for row in rows:
        certainty = "-" if row.certainty is None else f"{row.certainty:.0%}"
        shown.append([row.target, row.measured, "yes" if row.met else "no", certainty])
    return table_text(["target", "measured ratio", "met", "resamples that meet it"], shown)


def timing_table(records: Mapping[str, SearchRecord]) -> str:
    """Seconds of a suggestion by method, from one long search each: means of the five up to a number, and the most."""
    rows = []
    for method, record in records.items():
        seconds = np.array(record.suggestion_seconds)
        means = [f"{seconds[count - 5 : count].mean():.3f}" for count in TIMED_TRIALS if count <= len(seconds)]
        rows.append([method, *means, f"{seconds.max():.3f}"])
    return table_text(["seconds a suggestion", *(f"at {count}" for count in TIMED_TRIALS), "most"], rows)


def draw(results: Results, epochs_of: Mapping[str, int], num_trials: int, path: Path) -> None:
    """Median regret as an SVG: a row a table; against trials for each number of workers, then against epochs."""
    panels = []
    for table in dict.fromkeys(cell.table for cell in results):
        row = []
        for workers in sorted({cell.workers for cell in results if cell.table == table}):
            cells = {cell.method: records for cell, records in results.items() if cell_is(cell, table, workers)}
            trials = list(range(1, num_trials + 1))
            lines = [_line(m, trials, [after_trials(r, n) for n in trials]) for m, r in cells.items()]
            row.append(Panel(f"{table}, {workers} at once", "trials", lines))
        cells = {cell.method: records for cell, records in results.items() if cell_is(cell, table, 1)}
        budgets = [count * epochs_of[table] for count in range(1, num_trials + 1)]
        lines = [_line(m, budgets, [after_epochs(r, n) for n in budgets]) for m, r in cells.items()]
        if lines:
            row.append(Panel(f"{table}, one at a time", "epochs", lines))
        panels.append(row)
    path.write_text(draw_panels(panels, y_label="median regret"), encoding="utf-8")


def _line(method: str, places: Sequence[int], values: Sequence[Values]) -> Line:
    known = [
        (place, estimate(some, "median"))
        for place, some in zip(places, values, strict=True)
        if not np.isnan(some).any()
    ]
    return Line(
        method,
        [place for place, _ in known],
        [median.value for _, median in known],
        [(median.low, median.high) for _, median in known],
    )
