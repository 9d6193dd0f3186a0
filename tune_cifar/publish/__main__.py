"""`python -m tune_cifar.publish results/NAME --to TARGET`: the best model of a finished search, to where it is used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tune_cifar.command import run_command
from tune_cifar.errors import UserError
from tune_cifar.project_file import PROJECT_FILE, load_project
from tune_cifar.publish.flags import add_publish_flags, publishing_from
from tune_cifar.report.report import try_report
from tune_cifar.report.tables import REPORT_FILE, SUMMARY_FILE
from tune_cifar.settings import load_settings
from tune_cifar.sweep.load import load_sweep
from tune_cifar.tracking.wandb_place import in_place
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter


def main(arguments: Sequence[str]) -> int:
    """Check the targets, then publish to each; exit code 1 if one failed."""
    args = _parse(arguments)
    settings, sweep_file = load_settings(args.search)
    if not (args.search / SUMMARY_FILE).is_file():
        raise UserError(f"{args.search} has no {SUMMARY_FILE}: the search has not ended. Publish when it has.")
    config = in_place(load_sweep(sweep_file, check_parameter, EPOCH_METRICS), settings)
    publishing = publishing_from(args, args.search, config)
    console = Console(highlight=False)
    exit_code = publishing.run(console, again=args.again, dry_run=args.dry_run)
    if not args.dry_run:
        from tune_cifar.tracking.published_run import tell_best_run  # W&B and Ray take seconds to import

        for line in tell_best_run(args.search, config, settings):
            console.print(f"wandb    {line}", soft_wrap=True, markup=False)
    if not args.dry_run and (args.search / REPORT_FILE).is_file():
        console.print(try_report(args.search), soft_wrap=True, markup=False)  # it says where the model is
    return exit_code


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.publish", description="Publish the best model of a search."
    )
    parser.add_argument("search", type=Path, metavar="results/NAME", help="the folder of the search")
    add_publish_flags(parser, "--to")
    parser.add_argument("--again", action="store_true", help="send it even where it is already")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent where, and send nothing")
    args = parser.parse_args(arguments)
    if not args.publish and (project := load_project()):
        args = parser.parse_args([*arguments, *project.flags(args, "--to")])
    if not args.publish:
        parser.error(f"--to TARGET is needed, or `publish` in {PROJECT_FILE}")
    return args


if __name__ == "__main__":
    sys.exit(run_command(main))
