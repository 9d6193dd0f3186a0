"""Puts several searches side by side: what each found, how fast, and how sure that is."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import plotly.graph_objects as go

from tune_cifar.errors import UserError
from tune_cifar.report.figures import best_moments, rounded, time_unit, value_axis, whole_ticks
from tune_cifar.report.importance import scored_trials
from tune_cifar.report.page import Cell, Page, Row, section, table
from tune_cifar.report.search_files import SearchFiles
from tune_cifar.report.sections import no_result
from tune_cifar.report.style import SERIES, figure, plain
from tune_cifar.report.tables import REPORT_FILE
from tune_cifar.report.words import count, show_config, show_seconds
from tune_cifar.results import TrialRecord, flatten, show_score
from tune_cifar.sweep.schema import Metric

SHARED_METRIC = Metric("val_accuracy", "maximize")
"""What searches are compared by that optimize different metrics: every trial reports it."""


def make_comparison(searches: Sequence[SearchFiles], folder: Path) -> Page:
    """The comparison of at least two searches, as a page that is written into `folder`.

    Raises `UserError` when there are more searches than colours that can be told apart.
    """
    if len(searches) > len(SERIES):
        raise UserError(f"At most {len(SERIES)} searches can be told apart in one plot, got {len(searches)}.")
    labels = _labels(searches)
    same = len({(search.metric.name, search.metric.goal) for search in searches}) == 1
    metric = searches[0].metric if same else SHARED_METRIC
    page = Page(f"Comparison of {' and '.join(labels)}")
    names = html.escape(" · ".join(labels))
    page.add(f'<div class="wrap"><header><h1>Comparison</h1><p class="sub">{names}</p></header><main>')
    page.add(_overview(searches, labels, metric, folder), _warnings(searches, same=same))
    plots = {
        "over trials": ("best-over-trials", _best_over_trials(searches, labels, metric)),
        "over time": ("best-over-time", _best_over_time(searches, labels, metric)),
    }
    note = "Over the trials in their order, or over the time in which at least one trial was trained."
    if not same:
        note += " It is the best of all trials, also of those that a search does not choose by its own metric."
    page.add(section(f"Best {metric.name} so far", page.tabbed_plots(plots), note=note))
    spread = page.plot("spread", _spread(searches, labels, metric))
    page.add(section(f"All trials' best {metric.name}", spread, note="A point a trial that finished or was stopped."))
    curves = {name: (f"curves-{name}", _best_curves(searches, labels, name)) for name in ("val_loss", "val_accuracy")}
    page.add(section("Learning curves of the best trials", page.tabbed_plots(curves)))
    page.add(_classes(searches, labels, page))
    page.add("</main><footer>Made by <code>python -m tune_cifar.report</code>.</footer></div>")
    return page


def _labels(searches: Sequence[SearchFiles]) -> list[str]:
    """The names of the searches, with their folders where two have the same."""
    names = [search.name for search in searches]
    return [
        name if names.count(name) == 1 else str(search.folder) for name, search in zip(names, searches, strict=True)
    ]


def _overview(searches: Sequence[SearchFiles], labels: Sequence[str], metric: Metric, folder: Path) -> str:
    same = all(search.metric == metric for search in searches)
    found = f"best {metric.name}" if same else "best by its metric"
    headers = [Cell("search"), Cell("state"), Cell("trials", kind="number"), Cell(found, kind="number")]
    headers += [Cell(text, kind="number") for text in ("val. accuracy", "test accuracy", "epochs", "time")]
    headers.append(Cell("best configuration"))
    values = [_best_value(search, metric) for search in searches]
    finite = [value for value in values if value is not None]
    rows = []
    for search, label, value in zip(searches, labels, values, strict=True):
        is_best = value is not None and value == metric.best(finite)
        cells = _overview_cells(search, label, folder, with_metric=not same)
        rows.append(Row(cells, {"class": "best"} if is_best else {}))
    return section("Results", table(headers, rows))


def _overview_cells(search: SearchFiles, label: str, folder: Path, *, with_metric: bool) -> list[Cell]:
    best = search.best
    value = _best_value(search, search.metric)
    told = f"{search.metric.name} " if with_metric else ""
    epoch = (best.best_epoch(search.metric) if best else None) or {}
    test = search.kept_model.test_accuracy if search.kept_model else None
    report = search.folder / REPORT_FILE
    link = quote(os.path.relpath(report, folder)) if report.is_file() else ""
    _, seconds = best_moments(search.trials, search.metric)
    numbers = [
        f"{len(search.trials):,}",
        "" if value is None else f"{told}{show_score(value)}",
        f"{epoch['val_accuracy']:.2%}" if epoch else "",
        f"{test:.2%}" if test is not None else "",
        f"{sum(len(trial.epochs) for trial in search.trials):,}",
        show_seconds(seconds),
    ]
    words = show_config(flatten(best.config), search.varied_names) if best else no_result(search)
    return [
        Cell(label, link=link),
        Cell(search.state, kind=search.state),
        *(Cell(number, kind="number") for number in numbers),
        Cell(words, kind="words"),
    ]


def _best_value(search: SearchFiles, metric: Metric) -> float | None:
    """The value of `metric` at the best epoch of the best trial by the search's own metric."""
    epoch = search.best.best_epoch(search.metric) if search.best else None
    return None if epoch is None else float(epoch[metric.name])


def _warnings(searches: Sequence[SearchFiles], *, same: bool) -> str:
    lines = []
    if not same:
        told = ", ".join(f"{search.metric.goal} {search.metric.name}" for search in searches)
        lines.append(f"The searches optimize different metrics ({told}), so they are compared by val_accuracy.")
    numbers = {search.settings.train_images for search in searches}
    if len(numbers) > 1:
        told = ", ".join(str(search.settings.train_images or "all") for search in searches)
        lines.append(f"The searches were run with different numbers of training images (--train-images: {told}).")
    prints = {search.summary.data.fingerprint for search in searches if search.summary}
    if len(prints) > 1:
        lines.append("The searches were run on different images, so their scores may not compare.")
    if any(search.state != "complete" for search in searches):
        lines.append("Not every search is complete.")
    return "".join(f'<p class="note warning">{html.escape(line)}</p>' for line in lines)


def _best_over_trials(searches: Sequence[SearchFiles], labels: Sequence[str], metric: Metric) -> go.Figure:
    traces, values = [], []
    for search, label, colour in zip(searches, labels, SERIES, strict=False):
        best: list[float] = []
        scored = scored_trials(search.own_trials, metric)
        for trial in scored:
            best.append(metric.best([*best[-1:], trial.best_value(metric) or 0.0]))
        values += best
        numbers = [float(trial.number) for trial in scored]
        if numbers:  # trials without a value leave the best as it was
            numbers, best = [*numbers, float(search.own_trials[-1].number)], [*best, best[-1]]
        traces.append(_steps(numbers, best, label, colour, "trial", metric))
    ticks = whole_ticks(max((search.own_trials[-1].number for search in searches if search.own_trials), default=1))
    axis = value_axis(values)
    return figure(traces, height=360, x_title="trial", y_title=plain(metric.name), xaxis=ticks, yaxis=axis)


def _best_over_time(searches: Sequence[SearchFiles], labels: Sequence[str], metric: Metric) -> go.Figure:
    found = [best_moments(search.own_trials, metric) for search in searches]
    unit, unit_seconds = time_unit(max(seconds for _, seconds in found))
    traces, values = [], []
    for (moments, seconds), label, colour in zip(found, labels, SERIES, strict=False):
        x = [*(moment.seconds / unit_seconds for moment in moments), seconds / unit_seconds]
        y = [*(moment.value for moment in moments), *(moment.value for moment in moments[-1:])]
        values += y
        traces.append(_steps(x, y, label, colour, unit, metric))
    axis = value_axis(values)
    return figure(traces, height=360, x_title=f"{unit} of training", y_title=plain(metric.name), yaxis=axis)


def _steps(x: Sequence[float], y: Sequence[float], label: str, colour: str, unit: str, metric: Metric) -> go.Scatter:
    return go.Scatter(
        x=rounded(x),
        y=rounded(y),
        mode="lines+markers",
        name=plain(label),
        line={"color": colour, "width": 2, "shape": "hv"},
        # A search with a single value has no line.
        marker={"color": colour, "size": [0] * (len(x) - 1) + [6] * min(1, len(x)), "opacity": 1},
        hovertemplate=f"{unit} %{{x}}: {plain(metric.name)} %{{y}}<extra>{plain(label)}</extra>",
    )


def _spread(searches: Sequence[SearchFiles], labels: Sequence[str], metric: Metric) -> go.Figure:
    traces, values = [], []
    for search, label, colour in zip(searches, labels, SERIES, strict=False):
        scored = scored_trials(search.own_trials, metric)
        own = [trial.best_value(metric) or 0.0 for trial in scored]
        values += own
        names = search.varied_names
        traces.append(
            go.Box(
                x=rounded(own),
                name=plain(label),
                orientation="h",
                boxpoints="all",
                jitter=0.5,
                pointpos=0,
                marker={"color": colour, "size": 6, "opacity": 0.8},
                line={"color": colour, "width": 1},
                fillcolor="rgba(0,0,0,0)",
                text=[f"trial {t.number}<br>{plain(show_config(flatten(t.config), names))}" for t in scored],
                hoveron="points",
                hovertemplate=f"%{{text}}<br>{plain(metric.name)} %{{x}}<extra></extra>",
                showlegend=False,
            )
        )
    rows = {"autorange": "reversed", "ticklabelstandoff": 6, "showgrid": False}
    return figure(
        traces, height=90 + 70 * len(traces), x_title=plain(metric.name), xaxis=value_axis(values), yaxis=rows
    )


def _best_curves(searches: Sequence[SearchFiles], labels: Sequence[str], name: str) -> go.Figure:
    traces = []
    for search, label, colour in zip(searches, labels, SERIES, strict=False):
        best: TrialRecord | None = search.best
        rows = best.epochs if best else []
        traces.append(
            go.Scatter(
                x=[row["epoch"] for row in rows],
                y=rounded(row[name] for row in rows),
                mode="lines+markers",
                name=plain(f"{label}: trial {best.number}" if best else label),
                line={"color": colour, "width": 2},
                marker={"color": colour, "size": 5},
                hovertemplate=f"epoch %{{x}}: {name} %{{y}}<extra>{plain(label)}</extra>",
            )
        )
    shown = [row for search in searches if search.best for row in search.best.epochs]
    ticks = whole_ticks(max((row["epoch"] for row in shown), default=1))
    axis = value_axis(row[name] for row in shown)
    return figure(traces, height=360, x_title="epoch", y_title=name, xaxis=ticks, yaxis=axis)


def _classes(searches: Sequence[SearchFiles], labels: Sequence[str], page: Page) -> str:
    """The test accuracy of each class, where all best models have been scored on the same classes."""
    found = [search.mistakes for search in searches]
    if any(mistakes is None or mistakes.class_names != (found[0] and found[0].class_names) for mistakes in found):
        return ""
    bars = []
    for mistakes, label, colour in zip(found, labels, SERIES, strict=False):
        if mistakes is None:
            continue
        accuracies = [row[place] / max(1, sum(row)) for place, row in enumerate(mistakes.confusion)]
        bars.append(
            go.Bar(
                x=[plain(name) for name in mistakes.class_names],
                y=rounded(accuracies),
                name=plain(label),
                marker={"color": colour},
                hovertemplate=f"%{{x}}: %{{y:.1%}}<extra>{plain(label)}</extra>",
            )
        )
    made = figure(bars, height=340, y_title="test accuracy", barmode="group", bargap=0.25, yaxis={"tickformat": ".0%"})
    note = f"Of the best model of each search, on {count(found[0].num_images if found[0] else 0, 'test image')}."
    return section("Accuracy of each class", page.plot("classes", made), note=note)
