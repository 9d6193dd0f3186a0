"""The table of all trials in a report, which page.js sorts and filters."""

from __future__ import annotations

import itertools

from tune_cifar.report.page import Cell, Row, section, table, table_row
from tune_cifar.report.parameters import is_finite_number
from tune_cifar.report.search_files import SearchFiles
from tune_cifar.report.words import show_value
from tune_cifar.results import STATUSES, TrialRecord, count_by_status, flatten, show_score

# With this and the limits of the figures a report of thousands of trials stays small enough to be sent around.
MAX_TABLE_CHARACTERS = 400_000


def trials_table(search: SearchFiles) -> str:
    """All trials, to be sorted and filtered."""
    metric, names, best = search.metric, search.varied_names, search.best
    scores = [name for name in ("val_loss", "val_accuracy") if name != metric.name]
    headers = [Cell("#", kind="number"), Cell("status")]
    for name in names:
        is_number = all(is_finite_number(flatten(trial.config)[name]) for trial in search.trials)
        headers.append(Cell(name.rpartition(".")[2], kind="number" if is_number else ""))
    headers += [Cell(text, kind="number") for text in (metric.name, "at epoch", *scores, "trained", "seconds")]
    shows_where = len({trial.where for trial in search.trials}) > 1
    headers += [*([Cell("where")] if shows_where else []), Cell("note")]
    rows = []
    for trial in search.trials:
        attributes = {"data-number": str(trial.number), "data-status": trial.status}
        attributes |= {"class": "best"} if trial is best else {}
        rows.append(Row(_cells(trial, search, headers, names, scores, shows_where=shows_where), attributes))
    shown = _as_many_as_fit(rows)
    statuses = count_by_status(search.trials)
    options = "".join(f"<option>{status}</option>" for status in STATUSES if status in statuses)
    controls = (
        '<div class="controls"><input id="filter" type="search" placeholder="Filter, such as: 32 resnet34" '
        'aria-label="Filter the trials"><select id="status" aria-label="Status"><option value="">any status</option>'
        f'{options}</select><output id="shown" aria-live="polite"></output></div>'
    )
    note = "The values are those of each trial's best epoch; trained counts its epochs."
    if len(rows) > len(shown):
        note += f" Of {len(rows):,} trials {len(shown):,} are here: the best one and the first; trials.csv has all."
    return section("Trials", controls, table(headers, shown, name="trials"), note=note)


def _as_many_as_fit(rows: list[Row]) -> list[Row]:
    """The row of the best trial and the first ones, in order."""
    order = sorted(range(len(rows)), key=lambda place: rows[place].attributes.get("class") != "best")
    sizes = itertools.accumulate(len(table_row(rows[place])) for place in order)
    number = sum(size <= MAX_TABLE_CHARACTERS for size in sizes)
    return [rows[place] for place in sorted(order[:number])]


def _cells(
    trial: TrialRecord,
    search: SearchFiles,
    headers: list[Cell],
    names: list[str],
    scores: list[str],
    *,
    shows_where: bool,
) -> list[Cell]:
    metric, config = search.metric, flatten(trial.config)
    epoch = trial.best_epoch(metric) or {}
    cells = [Cell(str(trial.number), kind="number"), Cell(trial.status, kind=trial.status)]
    for name, head in zip(names, headers[2:], strict=False):
        cells.append(Cell(show_value(config[name]), head.kind))
    for name in (metric.name, "epoch", *scores):
        value = epoch.get(name)
        shown = show_score(value) if isinstance(value, float) else str(value)
        cells.append(Cell(shown, "number") if is_finite_number(value) else Cell("", kind="number"))
    cells.append(Cell(str(len(trial.epochs)), kind="number"))
    cells.append(Cell(f"{trial.training_seconds:.1f}", "number"))
    cells += [Cell(trial.where)] if shows_where else []
    repeat = f"repeats trial {trial.repeat_of}" if trial.repeat_of else ""
    failed = f"failed {'once' if trial.failures == 1 else f'{trial.failures} times'}" if trial.failures else ""
    cells.append(Cell("; ".join(filter(None, [repeat, failed, trial.message])), kind="message"))
    return cells
