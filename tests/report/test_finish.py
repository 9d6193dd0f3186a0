from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tune_cifar.finalists import finalists
from tune_cifar.report.finish import print_finalists
from tune_cifar.results import TrialRecord
from tune_cifar.sweep.schema import Metric

LOSS = Metric("val_loss")


def _trial(number: int, loss: float, seed: int, repeat_of: int | None = None) -> TrialRecord:
    rows: list[dict[str, Any]] = [{"epoch": 1, "val_loss": loss, "logged": [loss]}]
    return TrialRecord(number, f"t{number}", {"lr": 0.1, "seed": seed}, "finished", rows, repeat_of=repeat_of)


TRIALS = [_trial(1, 0.5, 0), _trial(2, 0.3, 1, repeat_of=1)]


def _printed(*, complete: bool, trials: list[TrialRecord]) -> list[str]:
    found = finalists(trials, LOSS)
    console = Console(file=io.StringIO(), width=80)
    print_finalists(found, found[0] if found and complete else None, trials[-1], LOSS, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_winner_and_the_run_that_is_published_are_told() -> None:
    assert _printed(complete=True, trials=TRIALS) == [
        "",
        "finalist trial 1: val_loss 0.4000 ± 0.1414 over 2 seeds (0.5000, 0.3000) <- the winner",
        "winner   trial 1 by the mean over its seeds; the model is its best run, trial 2",
    ]


def test_there_is_no_winner_while_repeats_are_left() -> None:
    assert _printed(complete=False, trials=TRIALS) == [
        "",
        "finalist trial 1: val_loss 0.4000 ± 0.1414 over 2 seeds (0.5000, 0.3000)",
        "winner   none yet: repeats are left, so the best model is that of a single run",
    ]


def test_without_repeats_nothing_is_said() -> None:
    assert _printed(complete=True, trials=TRIALS[:1]) == []
