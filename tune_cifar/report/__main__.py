"""`python -m tune_cifar.report results/A [results/B …]`: a search's report again, or several searches side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tune_cifar.command import run_command
from tune_cifar.errors import UserError
from tune_cifar.report.comparison import make_comparison
from tune_cifar.report.page import write_page
from tune_cifar.report.report import make_page
from tune_cifar.report.search_files import read_search
from tune_cifar.report.tables import REPORT_FILE

COMPARISON_FILE = Path("comparison.html")


def main(arguments: Sequence[str]) -> int:
    """Write the page and say where it is."""
    args = _parse(arguments)
    searches = [read_search(folder) for folder in args.searches]
    if len(searches) == 1:
        path = args.output or searches[0].folder / REPORT_FILE
        page = make_page(searches[0])
    else:
        path = args.output or COMPARISON_FILE
        page = make_comparison(searches, path.parent)
    try:
        write_page(path, page)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Choose a file that can be written by --output.") from None
    Console(highlight=False).print(f"report   {path}", soft_wrap=True, markup=False)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.report",
        description="Write the report of a search again, also while it runs, or compare several searches.",
    )
    parser.add_argument("searches", nargs="+", type=Path, metavar="results/NAME", help="the folder of a search")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"default: {REPORT_FILE} in the folder of one search, {COMPARISON_FILE} for several",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
