"""The parts of one search's report, from its files."""

from __future__ import annotations

import html
import math
import shlex
from datetime import datetime
from typing import Any

from tune_cifar.report.figures import best_moments
from tune_cifar.report.lessons import lessons
from tune_cifar.report.page import Cell, Row, definitions, items, section, table
from tune_cifar.report.search_files import SearchFiles
from tune_cifar.report.words import show_config, show_seconds, show_value
from tune_cifar.results import CAN_WIN, ENDED, TrialRecord, count_by_status, flatten, show_score
from tune_cifar.sweep.schema import Metric


def header(search: SearchFiles) -> str:
    """The name, the state and what the search is."""
    config, metric = search.config, search.metric
    about = [f"{config.method}, {metric.goal} {metric.name}", f"data {search.settings.data}"]
    if search.written_at:
        about.append(f"{datetime.fromtimestamp(search.written_at):%-d %B %Y, %H:%M}")
    description = f'<p class="sub">{html.escape(config.description)}</p>' if config.description else ""
    return (
        f'<header><div class="title"><h1>{html.escape(search.name)}</h1>'
        f'<span class="badge {search.state}">{search.state}</span></div>{description}'
        f'<p class="sub">{html.escape(" · ".join(about))}</p></header>'
    )


def unfinished(search: SearchFiles) -> str:
    """What is left of a search that has not come to its end; nothing of one that has."""
    if search.state == "complete":
        return ""
    ended = sum(trial.status in ENDED for trial in search.own_trials)
    of_all = f" of {search.planned_trials}" if search.planned_trials else ""
    results = shlex.quote(str(search.folder.parent))
    again = f"python -m tune_cifar.search --resume --results {results} --name {search.name}"
    if search.state == "interrupted":
        text = f"The search was interrupted: {ended}{of_all} trials have ended. Go on with"
        return section("Not complete", f"<p>{html.escape(text)} <code>{html.escape(again)}</code></p>")
    if search.written_at is None:
        text = "No trial has started yet."
    else:
        when = datetime.fromtimestamp(search.written_at)
        text = f"At {when:%H:%M:%S} on {when:%-d %B} the search was running: {ended}{of_all} trials had ended."
    text += " The test images are read at its end. If it runs no more, go on with"
    return section("Still running", f"<p>{html.escape(text)} <code>{html.escape(again)}</code></p>")


def headline(search: SearchFiles) -> str:
    """The scores of the best trial and what the search cost."""
    best, metric = search.best, search.metric
    epoch = (best.best_epoch(metric) if best else None) or {}
    kept, summary = search.kept_model, search.summary
    cards = []
    if best:
        place = f"trial {best.number}, epoch {epoch['epoch']}"
        cards.append((f"Best {metric.name}", show_score(float(epoch[metric.name])), place))
        if metric.name != "val_accuracy":
            cards.append(("Validation accuracy", f"{epoch['val_accuracy']:.2%}", "of the same epoch"))
    if kept and summary:
        images = summary.data.test_images
        cards.append(("Test accuracy", f"{kept.test_accuracy:.2%}", f"{images:,} images, read once"))
    statuses = ", ".join(f"{number} {status}" for status, number in count_by_status(search.trials).items())
    cards.append(("Trials", f"{len(search.trials):,}", statuses))
    _, seconds = best_moments(search.trials, metric)
    training = sum(trial.training_seconds for trial in search.trials)
    epochs = sum(len(trial.epochs) for trial in search.trials)
    cards.append(("Time", show_seconds(seconds), f"{show_seconds(training)} of training in all trials"))
    cards.append(("Epochs", f"{epochs:,}", f"{show_seconds(training / epochs)} each" if epochs else ""))
    return '<div class="cards">' + "".join(map(_card, cards)) + "</div>"


def _card(card: tuple[str, str, str]) -> str:
    name, value, about = map(html.escape, card)
    return (
        f'<div class="card"><div class="name">{name}</div><div class="value">{value}</div>'
        f'<div class="about">{about}</div></div>'
    )


def best_configuration(search: SearchFiles) -> str:
    """The parameters of the best trial, those that were searched first, and what the search teaches."""
    best = search.best
    if best is None:
        return section("Best configuration", note=no_result(search))
    config = flatten(best.config)
    varied = {name: show_value(config[name]) for name in search.varied_names}
    constant = {name: show_value(value) for name, value in config.items() if name not in varied}
    learned = lessons(search.config, search.trials, search.finalists, best)
    words = f"<h3>What the search says</h3>{items(learned)}" if learned else ""
    kept = search.kept_model
    model = f'<h3>Model</h3><p class="path">{html.escape(kept.model)}</p>' if kept else ""
    return section("Best configuration", definitions(varied, "varied"), definitions(constant), words, model)


def no_result(search: SearchFiles) -> str:
    """What to say where there is no best trial."""
    if search.state == "running":
        return "No trial has ended with a result yet."
    counts = ", ".join(f"{number} {status}" for status, number in count_by_status(search.trials).items())
    return f"No trial ended with a result that counts{f': {counts}' if counts else ''}."


def finalists_table(search: SearchFiles) -> str:
    """The configurations that were trained with several seeds; nothing without repeats."""
    found = search.finalists
    if not found:
        return ""
    won = {entry.number for entry in (search.summary.finalists if search.summary else ()) if entry.won}
    names = search.varied_names
    rows = []
    for finalist in found:
        spread = finalist.standard_deviation
        mean = f"{show_score(finalist.mean)}" if finalist.values else "none"
        told = f"{mean} ± {show_score(spread)}" if math.isfinite(spread) else mean
        runs = ", ".join(map(_run_in_words, finalist.runs, finalist.seeds, [search.metric] * len(finalist.runs)))
        cells = [Cell(str(finalist.number), kind="number"), Cell(told), Cell(runs, kind="words")]
        cells.append(Cell(show_config(flatten(finalist.runs[0].config), names), kind="words"))
        rows.append(Row(cells, {"class": "best"} if finalist.number in won else {}))
    headers = [Cell("trial", kind="number"), Cell(f"mean {search.metric.name}"), Cell("runs"), Cell("configuration")]
    note = "The best configurations, trained again with other seeds; the mean over the seeds decides."
    return section("Finalists", table(headers, rows), note=note)


def _run_in_words(run: TrialRecord, seed: int, metric: Metric) -> str:
    value = run.best_value(metric)
    told = run.status if value is None or run.status not in CAN_WIN else show_score(value)
    return f"{told} (seed\N{NO-BREAK SPACE}{seed})"


def published(search: SearchFiles) -> str:
    """Where the model was published; nothing where it was not."""
    if not search.published:
        return ""
    headers = [Cell("target"), Cell("where"), Cell("when"), Cell("sha256")]
    rows = [
        Row(
            [
                Cell(one.target),
                Cell(one.uri, kind="words path"),
                Cell(f"{datetime.fromisoformat(one.when):%Y-%m-%d %H:%M %Z}"),
                Cell(one.sha256[:12]),
            ],
            {},
        )
        for one in search.published
    ]
    return section("Published", table(headers, rows))


def provenance(search: SearchFiles) -> str:
    """What is needed to run the search again: the sweep file, the flags, the data and the versions."""
    given = {name: value for name, value in vars(search.settings).items() if value is not None}
    # As they are typed: no digits in groups.
    flags = {
        f"--{name.replace('_', '-')}": ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in given.items()
    }
    file = f"<h3>{html.escape(search.config.path.name)}</h3><pre>{html.escape(search.sweep_text)}</pre>"
    lists = {"Flags": flags}
    if search.summary:
        about = {name: value for name, value in vars(search.summary.data).items() if value is not None}
        lists["Data"] = {name.replace("_", " "): _words_of(value) for name, value in about.items()}
        lists["Versions"] = search.summary.versions
    columns = (f"<div><h3>{title}</h3>{definitions(values, 'long')}</div>" for title, values in lists.items())
    return section("To run it again", file, f'<div class="columns">{"".join(columns)}</div>')


def _words_of(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
