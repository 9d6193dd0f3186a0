from __future__ import annotations

import io
import pickle
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tune_cifar.console import SearchConsole
from tune_cifar.finalists import Repeats
from tune_cifar.results import Status, TrialRecord
from tune_cifar.runner.progress import ProgressBoard
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.sweep.schema import Metric
from tune_cifar.tracking import terminal
from tune_cifar.tracking.search_table import SearchTable, duration
from tune_cifar.tracking.terminal import TerminalProgress
from tune_cifar.trial.progress import EpochProgress

LOSS = Metric("val_loss")
REPEATS = Repeats(2, 1, 0)


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


class FakeTerminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class FakeBoard(ProgressBoard):
    """A board whose trials are not run by Ray."""

    def __init__(self, progress: dict[str, EpochProgress]) -> None:
        self.progress = progress

    def news(self) -> dict[str, EpochProgress]:
        return self.progress


def _progress(
    *records: TrialRecord,
    terminal: bool = False,
    height: int = 30,
    width: int = 120,
    num_trials: int = 10,
    quiet: bool = False,
    running: dict[str, EpochProgress] | None = None,
    repeats: Repeats | None = None,
) -> tuple[TerminalProgress, io.StringIO]:
    log = SearchLog("val_loss", repeats)
    log.trials = {record.trial_id: record for record in records}
    output = FakeTerminal() if terminal else io.StringIO()
    console = SearchConsole(
        quiet=quiet,
        file=output,
        force_terminal=terminal,
        force_interactive=terminal,
        width=width,
        height=height,
        color_system=None,
    )
    board = FakeBoard(running) if running else None
    return TerminalProgress(log, LOSS, num_trials=num_trials, trials_at_once=2, console=console, board=board), output


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
    assert "2/4" in text
    assert "0.2500" in text
    assert "1 finished · 1 running · 8 waiting · best val_loss 0.2500 (trial 1)" in text


def _last_table(output: io.StringIO) -> list[str]:
    """The table drawn last."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue().rpartition("status")[2])
    return [line for line in text.splitlines() if line.strip()]


def _draw(progress: TerminalProgress) -> None:
    """Let Tune's loop come by, and wait for the terminal to be drawn."""
    progress.setup()
    deadline_seconds = time.monotonic() + 10
    progress.on_step_begin(0, [])
    while progress._outdated and time.monotonic() < deadline_seconds:
        progress.on_step_begin(0, [])
    assert progress.live is not None
    progress.live.refresh()
    progress.live.stop()


def test_a_table_that_takes_long_is_drawn_less_often_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    progress, _ = _progress(_record(1, "running", [0.9]), terminal=True)
    now, drawn, draw = 100.0, 0, SearchTable.draw

    def draw_slowly(*arguments: Any, **options: Any) -> Any:
        nonlocal now, drawn
        now, drawn = now + 0.1, drawn + 1
        return draw(*arguments, **options)

    monkeypatch.setattr(SearchTable, "draw", draw_slowly)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    progress.setup()
    trial: Any = SimpleNamespace(trial_id="t1", config={})
    for _ in range(4):
        progress.on_trial_start(0, [], trial)
        progress.on_step_begin(0, [])
        assert drawn == 1
    now += 1.0
    progress.on_step_begin(0, [])
    assert drawn == 2
    progress.on_step_begin(0, [])
    assert drawn == 2
    progress.on_trial_start(0, [], trial)
    progress.on_experiment_end([])
    assert drawn == 3


def test_a_running_trial_shows_how_far_its_epoch_is() -> None:
    running = {"t2": EpochProgress(3, 0.62, 1234.4), "t1": EpochProgress(4, 0.9, 99.0)}
    records = [_record(1, "finished", [0.5, 0.25, 0.4, 0.35]), _record(2, "running", [0.9, 0.8])]
    progress, output = _progress(*records, terminal=True, running=running)
    _draw(progress)
    header, finished, trial, _ = _last_table(output)
    assert header.split() == ["lr", "epoch", "%", "images/s", "val_loss", "at", "epoch", "time"]
    assert trial.split()[2:] == ["0.002", "3/4", "━━━━━━", "62%", "1,234", "0.8000", "2", "20", "s"]
    assert finished.split()[2:] == ["0.001", "4/4", "0.2500", "2", "40", "s"]
    progress.on_experiment_end([])


def test_a_narrow_terminal_has_no_bar() -> None:
    progress, output = _progress(
        _record(1, "running", []), terminal=True, width=80, running={"t1": EpochProgress(1, 0.5, 10.0)}
    )
    _draw(progress)
    header, trial, _ = _last_table(output)
    assert header.split() == ["epoch", "%", "val_loss", "at", "epoch", "time"]
    assert trial.split() == ["1", "running", "1/4", "50%", "0", "s"]


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (40, "epoch % val_loss time"),
        (80, "model lr batch_size epoch % val_loss at epoch time"),
        (110, "model lr batch_size lr_schedule nesterov epoch % val_loss at epoch time"),
        (140, "model lr batch_size lr_schedule nesterov epoch % images/s val_loss at epoch time"),
    ],
)
def test_a_terminal_too_narrow_for_all_parameters_shows_fewer_and_cuts_none(width: int, header: str) -> None:
    records = [_record(1, "finished", [0.5] * 4), _record(2, "running", [0.4])]
    for record in records:
        even = record.number % 2 == 0
        record.config = {
            "model": f"ResNet{record.number}8",
            "lr": record.number / 1000,
            "batch_size": record.number * 32,
            "lr_schedule": "cosine" if even else "constant",
            "nesterov": even,
            "epochs": 4,
        }
    running = {"t2": EpochProgress(2, 0.5, 1234.0)}
    progress, output = _progress(*records, terminal=True, width=width, running=running)
    _draw(progress)
    lines = _last_table(output)
    assert " ".join(lines[0].split()) == header
    assert (lines[1].split()[1], lines[2].split()[1]) == ("finished", "running")
    assert not any("…" in line or len(line) > width for line in lines)


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (None, "3/4 0%"),
        (EpochProgress(2, 1.0, 10.0), "3/4 0%"),  # of the epoch whose result is there
        (EpochProgress(3, 1.0, 10.0), "3/4 100%"),  # trained, and being scored
        (EpochProgress(4, 0.25, 10.0), "4/4 25%"),  # a result is still on its way
    ],
)
def test_progress_and_results_come_at_different_times(progress: EpochProgress | None, shown: str) -> None:
    running = {"t1": progress} if progress else {"other": EpochProgress(1, 0.0, 0.0)}
    view, output = _progress(_record(1, "running", [0.5, 0.4]), terminal=True, width=80, running=running)
    _draw(view)
    assert " ".join(_last_table(output)[1].split()[2:4]) == shown


def test_the_last_table_has_no_progress() -> None:
    progress, output = _progress(
        _record(1, "finished", [0.5]), terminal=True, running={"t1": EpochProgress(1, 0.5, 10.0)}
    )
    progress.setup()
    progress.on_experiment_end([])
    assert _last_table(output)[0].split() == ["epoch", "val_loss", "at", "epoch", "time"]


def test_quiet_says_notes_and_failures_alone() -> None:
    records = [_record(1, "finished", [0.5]), _record(2, "failed", [0.9], "ValueError: [bad]")]
    progress, output = _progress(*records, terminal=True, quiet=True)
    progress.setup()
    progress.on_trial_start(0, [], FakeTuneTrial("t1"))
    progress.on_trial_result(0, [], FakeTuneTrial("t1"), {"epoch": 1, "val_loss": 0.5, "notes": ["runs slower"]})
    progress.on_trial_complete(0, [], FakeTuneTrial("t1"))
    progress.on_trial_error(0, [], FakeTuneTrial("t2"))
    progress.on_experiment_end([])
    assert output.getvalue().splitlines() == [
        "note     trial 1 and maybe others: runs slower",
        "[2/10] failed: val_loss 0.9000 at epoch 1, 10 s | ValueError: [bad]",
    ]


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
    progress, output = _progress(*_repeats(0.2, 0.3, 0.6, 0.3), terminal=True, num_trials=4, repeats=REPEATS)
    progress.setup()
    progress.on_experiment_end([])
    shown = output.getvalue()
    assert "trial 2: val_loss 0.3000 ± 0.0000 over 2 seeds (0.3000, 0.3000) <- the winner" in shown
    assert "trial 1: val_loss 0.4000 ± 0.2828 over 2 seeds (0.2000, 0.6000)" in shown


def test_there_is_no_winner_while_repeats_run() -> None:
    progress, output = _progress(
        *_repeats(0.2, 0.3, 0.6, 0.3, status="running"), terminal=True, num_trials=4, repeats=REPEATS
    )
    progress.setup()
    progress.on_experiment_end([])
    assert "trial 1: val_loss 0.2000 over 1 seed (0.2000)" in output.getvalue()
    assert "winner" not in output.getvalue()


def test_a_log_says_what_a_repeat_repeats() -> None:
    progress, output = _progress(*_repeats(0.2, 0.3, 0.6, 0.3))
    progress.on_trial_start(0, [], FakeTuneTrial("t4"))
    assert output.getvalue() == "[4/10] started: repeat of trial 2, lr=0.002 epochs=4 seed=1\n"


def _seconds_left(
    *records: TrialRecord, num_trials: int = 10, running: dict[str, EpochProgress] | None = None
) -> float | None:
    return SearchTable(LOSS, num_trials, 2).seconds_left(records, running or {})


def test_the_time_left_follows_from_what_was_seen() -> None:
    assert _seconds_left() is None
    assert _seconds_left(_record(1, "running", [0.5]), num_trials=2) == pytest.approx((1 + 3 / 4) * 40 / 2)
    half_done = [_record(1, "finished", [1, 1, 1, 1]), _record(2, "running", [1, 1])]
    assert _seconds_left(*half_done, num_trials=4) == pytest.approx((2 + 2 / 4) * 40 / 2)
    in_third_epoch = {"t2": EpochProgress(3, 0.5, 1.0)}
    assert _seconds_left(*half_done, num_trials=4, running=in_third_epoch) == pytest.approx((2 + 1.5 / 4) * 40 / 2)


def test_pickling_leaves_the_terminal_behind() -> None:
    progress, _ = _progress(terminal=True)
    assert pickle.loads(pickle.dumps(progress)).__dict__ == {}  # noqa: S301 made here


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
