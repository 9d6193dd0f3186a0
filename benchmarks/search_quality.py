"""Compares our search with its peers on tables of real training curves, over many seeds.

`python benchmarks/search_quality.py` simulates whole searches: every method gets the same sweep file and the same
luck. Regret is the true (mean) loss of the config that a search would choose, less that of the best config there is.
Prints tables with 95% bootstrap intervals and the targets, and writes them with every raw record and a plot.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.curves import CurveTable, load_deepobs, load_table
from benchmarks.machine import describe_machine
from benchmarks.search_methods import METHODS, ONE_EPOCH, Setup, run_method
from benchmarks.search_report import TIMED_TRIALS, draw, regret_tables, timing_table, verdict_table
from benchmarks.search_simulator import SearchRecord, SearchTask
from benchmarks.search_statistics import Cell, Verdict, verdicts
from tune_cifar.command import positive_int, run_command
from tune_cifar.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent
DEEPOBS = REPOSITORY / ".." / "shared" / "data" / "deepobs-cifar10-3c3d.json"
TUTORIAL = REPOSITORY / "benchmarks" / "tables" / "tutorial.json"
MOST_SUGGESTION_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Files:
    """Where the tables of curves are."""

    deepobs: Path
    tutorial: Path


def _task(name: str, table: CurveTable, **parameters: Any) -> SearchTask:
    """Search the whole table, each learning rate as likely as any other on a logarithmic scale."""
    document = {
        "method": "bayes",
        "metric": {"name": "val_loss", "goal": "minimize"},
        "parameters": {**table.sweep_parameters(), **parameters},
    }
    return SearchTask(name, table, document)


def _tutorial_file(name: str, table: CurveTable) -> SearchTask:
    """Search the table with the tutorial's sweep file, whose rates are uniform from 1e-4 to 1e-2."""
    document = yaml.safe_load((REPOSITORY / "configs" / "sweep.yaml").read_text(encoding="utf-8"))
    # PyYAML, unlike the product, reads 1e-2 as text; it is the loader of W&B's engine.
    lr = {key: float(value) if key in ("min", "max") else value for key, value in document["parameters"]["lr"].items()}
    parameters = {key: document["parameters"][key] for key in table.choice_names}
    return SearchTask(name, table, {**document, "parameters": {**parameters, "lr": lr}})


# Learning rates up to 1 are what somebody might search who has trained networks before; up to 100, a third diverge.
NARROW = {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0}}
TASKS: dict[str, Callable[[str, Files], SearchTask]] = {
    "deepobs-5": lambda name, files: _task(name, load_deepobs(files.deepobs, 5)),
    "deepobs-50": lambda name, files: _task(name, load_deepobs(files.deepobs, 50)),
    "tutorial": lambda name, files: _task(name, load_table(files.tutorial)),
    "deepobs-5-narrow": lambda name, files: _task(name, load_deepobs(files.deepobs, 5), **NARROW),
    "deepobs-50-narrow": lambda name, files: _task(name, load_deepobs(files.deepobs, 50), **NARROW),
    "tutorial-file": lambda name, files: _tutorial_file(name, load_table(files.tutorial)),
}
DEFAULT_TASKS = "deepobs-5,deepobs-50,tutorial"


@cache
def make_task(name: str, files: Files) -> SearchTask:
    """The task of that name, made once in each process."""
    return TASKS[name](name, files)


@dataclasses.dataclass(frozen=True)
class Unit:
    """One search to simulate."""

    cell: Cell
    seed: int
    num_trials: int
    files: Files


def run_unit(unit: Unit) -> SearchRecord:
    """Simulate it; the whole of it is determined by the unit, but for the times."""
    task = make_task(unit.cell.table, unit.files)
    return run_method(unit.cell.method, Setup(task, unit.num_trials, unit.cell.workers, unit.seed))


def run_units(units: Sequence[Unit], num_processes: int) -> list[SearchRecord]:
    """Simulate all, `num_processes` at a time with a thread each, and say on stderr how far it is."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that start now
    records = []
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(
        num_processes, initializer=torch.set_num_threads, initargs=(1,)
    ) as p:
        for number, record in enumerate(p.imap(run_unit, units), start=1):
            records.append(record)
            if number * 20 // len(units) > (number - 1) * 20 // len(units):
                minutes = (time.monotonic() - began) / 60
                print(f"{number} of {len(units)} searches, {minutes:.1f} minutes", file=sys.stderr, flush=True)
    return records


def main(arguments: Sequence[str]) -> int:
    """Run the comparison, print it and write it down."""
    args = parse(arguments)
    files = Files(args.deepobs, args.tutorial)
    tasks = {name: make_task(name, files) for name in args.tables}  # a missing file is told before anything runs
    # The baseline decides once, after all first epochs, so it comes out the same however many run at once.
    cells = [
        Cell(table, workers, method)
        for table in args.tables
        for workers in args.workers
        for method in args.methods
        if method != ONE_EPOCH or workers == min(args.workers)
    ]
    units = [Unit(cell, seed, args.trials, files) for cell in cells for seed in range(args.seeds)]
    timed = [method for method in args.methods if method != ONE_EPOCH]
    timing_units = [Unit(Cell(args.tables[0], 1, method), 0, TIMED_TRIALS[-1], files) for method in timed]
    records = run_units(units, args.processes)
    timings = dict(zip(timed, run_units(timing_units, 1), strict=True)) if args.timing else {}
    results = {cell: records[n * args.seeds : (n + 1) * args.seeds] for n, cell in enumerate(cells)}
    counts = (args.trials // 2, args.trials)
    epochs_of = {name: task.table.num_epochs for name, task in tasks.items()}
    targets = {table: verdicts(results, table, counts) for table in args.tables}
    texts = [regret_tables(results, counts, epochs_of)]
    texts += [f"{table}: targets\n\n{verdict_table(rows)}" for table, rows in targets.items() if rows]
    if timings:
        texts.append(f"{timing_table(timings)}\n\n{verdict_table(_timing_verdict(timings))}")
    text = "\n\n".join(texts)
    print(text)
    _write(args, text, results, timings)
    draw(results, epochs_of, args.trials, args.output / "regret.svg")
    print(f"\nwritten to {args.output}/: results.json, tables.md, regret.svg")
    return 0


def _timing_verdict(timings: Mapping[str, SearchRecord]) -> list[Verdict]:
    seconds = max((max(record.suggestion_seconds) for name, record in timings.items() if name == "ours"), default=0.0)
    text = f"a suggestion within {MOST_SUGGESTION_SECONDS} s up to {TIMED_TRIALS[-1]} trials"
    return [Verdict(text, f"{seconds:.3f} s at most", seconds <= MOST_SUGGESTION_SECONDS, None)] if seconds else []


def _write(
    args: argparse.Namespace, text: str, results: Mapping[Cell, list[SearchRecord]], timings: Mapping[str, SearchRecord]
) -> None:
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "tables.md").write_text(text + "\n", encoding="utf-8")
    content = {
        "command": ["python", "benchmarks/search_quality.py", *args.given],
        "machine": describe_machine(torch.device("cpu")),
        "searches": [
            {**dataclasses.asdict(cell), "seed": seed, **dataclasses.asdict(record)}
            for cell, records in results.items()
            for seed, record in enumerate(records)
        ],
        "suggestion_seconds": {method: record.suggestion_seconds for method, record in timings.items()},
    }
    (args.output / "results.json").write_text(json.dumps(content), encoding="utf-8")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the flags; names that do not exist are a `UserError`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every_method = [*METHODS, ONE_EPOCH]
    parser.add_argument("--seeds", type=positive_int, default=50)
    parser.add_argument("--trials", type=positive_int, default=20, help="of each search; also looked at after half")
    parser.add_argument("--tables", default=DEFAULT_TASKS, help=f"of {', '.join(TASKS)}; default {DEFAULT_TASKS}")
    parser.add_argument("--workers", default="1,4,16", help="numbers of trials at once; default 1,4,16")
    parser.add_argument("--methods", default=",".join(every_method), help=f"of {', '.join(every_method)}; default all")
    parser.add_argument("--processes", type=positive_int, default=2)
    parser.add_argument("--no-timing", dest="timing", action="store_false", help="leave out the long timed searches")
    parser.add_argument("--deepobs", type=Path, default=DEEPOBS, help="the table of DeepOBS's runs")
    parser.add_argument("--tutorial", type=Path, default=TUTORIAL, help="the table of the tutorial's space")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "results" / "search-quality")
    args = parser.parse_args(arguments)
    args.given = list(arguments)
    args.tables = _listed(args.tables, TASKS, "--tables")
    args.methods = _listed(args.methods, every_method, "--methods")
    try:
        args.workers = [positive_int(word) for word in args.workers.split(",")]
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--workers: {error}.") from None
    return args


def _listed(text: str, known: Sequence[str] | Mapping[str, Any], flag: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise UserError(f"{flag}: {word!r} is not one of {', '.join(known)}.")
    return words


if __name__ == "__main__":
    sys.exit(run_command(main))
