from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from tune_cifar.finalists import finalists
from tune_cifar.report.finish import print_finalists, write_results
from tune_cifar.results import TrialRecord
from tune_cifar.sweep.schema import Metric
from tune_cifar.trial.checkpoint import save_weights
from tune_cifar.trial.data import ImageDataset
from tune_cifar.trial.model import build_model

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


def test_a_better_model_takes_the_place_of_the_old_one_in_every_form(
    tmp_path: Path, make_dataset: Callable[..., ImageDataset]
) -> None:
    data = make_dataset()
    (tmp_path / "best").mkdir()
    for name in ("old.pth", "old.onnx", "manifest.json"):
        (tmp_path / "best" / name).touch()
    save_weights(build_model("ResNet18", num_classes=4, seed=0).state_dict(), tmp_path / "weights.pth")
    rows = [{"epoch": 1, "val_loss": 0.5, "val_accuracy": 0.5, "logged": [0.5], "epoch_runtime (seconds)": 1.0}]
    trial = TrialRecord(1, "t1", {"lr": 0.1, "epochs": 1}, "finished", rows)
    model = write_results(
        tmp_path,
        trials=[trial],
        best=trial,
        best_weights=tmp_path / "weights.pth",
        metric=LOSS,
        data=data,
        interrupted=False,
        wall_seconds=1.0,
    )
    assert model is not None
    best = tmp_path / "best"
    assert [path.name for path in (*best.glob("*.pth"), *best.glob("*.onnx"))] == [Path(model.model).name]
