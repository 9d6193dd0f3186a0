"""Writes report.html of a search, at its end or while it runs."""

from __future__ import annotations

import html
import shlex
from pathlib import Path

from tune_cifar.report import plot_sections, sections
from tune_cifar.report.page import Page, write_page
from tune_cifar.report.search_files import SearchFiles, read_search
from tune_cifar.report.tables import REPORT_FILE
from tune_cifar.report.trial_table import trials_table


def write_report(folder: Path) -> Path:
    """Write report.html into a search's folder from what is there; raises `UserError` where there is no search."""
    search = read_search(folder)
    path = folder / REPORT_FILE
    write_page(path, make_page(search))
    return path


def try_report(folder: Path) -> str:
    """Write report.html at the end of a search; returns the line to print, also where it could not be written."""
    try:
        return f"report   {write_report(folder)}"
    except Exception as error:
        # Hours of training are worth more than their picture: what comes after the report must still be done.
        again = f"python -m tune_cifar.report {shlex.quote(str(folder))}"
        return f"warning  the report could not be written ({type(error).__name__}: {error}); try again by: {again}"


def make_page(search: SearchFiles) -> Page:
    """The report of one search."""
    page = Page(search.name)
    page.add('<div class="wrap">', sections.header(search), "<main>", sections.unfinished(search))
    page.add(sections.headline(search), sections.best_configuration(search), sections.finalists_table(search))
    page.add(plot_sections.progress(search, page), plot_sections.parameters(search, page), trials_table(search))
    if search.mistakes:
        page.add(plot_sections.mistakes_on_test_images(search.mistakes, page))
    page.add(sections.published(search), sections.provenance(search), "</main>")
    again = html.escape(f"python -m tune_cifar.report {shlex.quote(str(search.folder))}")
    page.add(f"<footer>Made of the files in this folder; <code>{again}</code> makes it again.</footer></div>")
    return page
