from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from rich.console import Console

from tune_cifar.finalists import Repeats
from tune_cifar.results import Status, TrialRecord
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric
from tune_cifar.tracking.terminal import TerminalProgress, duration

LOSS = Metric("val_loss")


def _record(number: int, status: Status, losses: list[float], message: str = "") -> TrialRecord:
    rows: list[dict[str, Any]] = [
        {"epoch": epoch, "val_loss": loss, "epoch_runtime (seconds)": 10.0, "logged": [loss]}
        for epoch, loss in enumerate(losses, start=1)
    ]
    return TrialRecord(number, f"t{number}", {"lr": number / 1000, "epochs": 4}, status, rows, message)


class FakeTuneTrial:
    """What the callback reads of a Tune trial."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.config: dict[str, Any] = {}


def _progress(
    *records: TrialRecord, terminal: bool = False, height: int = 30, num_trials: int = 10
) -> tuple[TerminalProgress, io.StringIO]:
    log = SearchLog("val_loss")
    log.trials = {record.trial_id: record for record in records}
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, height=height, color_system=None)
    return TerminalProgress(log, LOSS, num_trials=num_trials, trials_at_once=2, console=console), output


def test_a_log_gets_one_plain_line_for_each_event() -> None:
    records = [_record(1, "finished", [0.5, 0.3, 0.4, 0.35]), _record(2, "failed", [0.9], "ValueError: [bad]")]
    progress, output = _progress(*records)
    progress.setup()
    progress.on_trial_start(0, [], FakeTuneTrial("t1"))
    progress.on_trial_result(0, [], FakeTuneTrial("t1"), {"epoch": 2, "val_loss": 0.3})
    progress.on_trial_complete(0, [], FakeTuneTrial("t1"))
    progress.on_trial_error(0, [], FakeTuneTrial("t2"))
    progress.on_experiment_end([])
    assert output.getvalue().splitlines() == [
        "[1/10] started: lr=0.001 epochs=4",
        "[1/10] epoch 2/4: val_loss 0.3000",
        "[1/10] finished: val_loss 0.3000 at epoch 2, 40 s | best val_loss 0.3000 (trial 1) | about 1 min 40 s left",
        "[2/10] failed: val_loss 0.9000 at epoch 1, 10 s | ValueError: [bad] | best val_loss 0.3000 (trial 1) | "
        "about 1 min 40 s left",
    ]


def test_a_terminal_gets_a_live_table_with_the_varied_parameters() -> None:
    progress, output = _progress(
        _record(1, "finished", [0.5, 0.25, 0.4, 0.35]), _record(2, "running", [0.9]), terminal=True
    )
    progress.setup()
    progress.on_experiment_end([])
    text = output.getvalue()
    header = next(line for line in text.splitlines() if "status" in line)
    assert "lr" in header
    assert "epochs" not in header
    assert "1/4" in text
    assert "0.2500" in text
    assert "1 finished · 1 running · 8 waiting · best val_loss 0.2500 (trial 1)" in text


def test_above_the_live_table_stands_why_a_trial_ended_early() -> None:
    progress, output = _progress(_record(1, "stopped", [0.5], "stopped at band 1: too high"), terminal=True)
    progress.setup()
    progress.on_trial_complete(0, [], FakeTuneTrial("t1"))
    progress.on_experiment_end([])
    assert "[1/10] stopped: val_loss 0.5000 at epoch 1, 10 s | stopped at band 1: too high" in output.getvalue()


def test_a_long_search_shows_the_newest_trials_and_the_best() -> None:
    records = [_record(number, "finished", [0.5 if number != 3 else 0.1]) for number in range(1, 101)]
    progress, output = _progress(*records, terminal=True, height=16, num_trials=100)
    progress.setup()
    progress.on_experiment_end([])
    shown = {int(line.split()[0]) for line in output.getvalue().splitlines() if "finished " in line and "·" not in line}
    assert {3, 100, 99} <= shown
    assert len(shown) <= 10


def _repeats(*values: float, status: Status = "finished") -> list[TrialRecord]:
    """Trials 1 and 2 and one repeat of each."""
    records = [_record(number, "finished", [value]) for number, value in enumerate(values, start=1)]
    for first, repeat in zip(records[:2], records[2:], strict=True):
        first.config["seed"] = 0
        repeat.config |= {**first.config, "seed": 1}
        repeat.repeat_of = first.number
        repeat.status = status
    return records


def test_under_the_table_stand_the_configurations_that_are_trained_again() -> None:
    progress, output = _progress(*_repeats(0.2, 0.3, 0.6, 0.3), terminal=True, num_trials=4)
    progress.log.repeats = Repeats(2, 1, 0)
    progress.setup()
    progress.on_experiment_end([])
    shown = output.getvalue()
    assert "trial 2: val_loss 0.3000 ± 0.0000 over 2 seeds (0.3000, 0.3000) <- the winner" in shown
    assert "trial 1: val_loss 0.4000 ± 0.2828 over 2 seeds (0.2000, 0.6000)" in shown


def test_there_is_no_winner_while_repeats_run() -> None:
    progress, output = _progress(*_repeats(0.2, 0.3, 0.6, 0.3, status="running"), terminal=True, num_trials=4)
    progress.log.repeats = Repeats(2, 1, 0)
    progress.setup()
    progress.on_experiment_end([])
    assert "trial 1: val_loss 0.2000 over 1 seed (0.2000)" in output.getvalue()
    assert "winner" not in output.getvalue()


def test_a_log_says_what_a_repeat_repeats() -> None:
    progress, output = _progress(*_repeats(0.2, 0.3, 0.6, 0.3))
    progress.on_trial_start(0, [], FakeTuneTrial("t4"))
    assert output.getvalue() == "[4/10] started: repeat of trial 2, lr=0.002 epochs=4 seed=1\n"


def test_the_time_left_follows_from_what_was_seen() -> None:
    assert _progress()[0].seconds_left() is None
    running_only, _ = _progress(_record(1, "running", [0.5]), num_trials=2)
    assert running_only.seconds_left() == pytest.approx((1 + 3 / 4) * 40 / 2)
    half_done, _ = _progress(_record(1, "finished", [1, 1, 1, 1]), _record(2, "running", [1, 1]), num_trials=4)
    assert half_done.seconds_left() == pytest.approx((2 + 2 / 4) * 40 / 2)


def test_pickling_leaves_the_terminal_behind() -> None:
    progress, _ = _progress(terminal=True)
    assert pickle.loads(pickle.dumps(progress)).__dict__ == {}  # noqa: S301 made here


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
