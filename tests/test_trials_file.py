from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.errors import UserError
from tune_cifar.results import TrialRecord
from tune_cifar.trials_file import TRIALS_JSON, EndedTexts, load_trials, save_trials


def _row(epoch: int, loss: float) -> dict[str, Any]:
    times = {"epoch_runtime (seconds)": 2.0, "reported_at": 1.7e9}
    return {"epoch": epoch, "val_loss": loss, "val_accuracy": 0.5, "logged": [loss], **times}


def _trial(number: int, *losses: float) -> TrialRecord:
    rows = [_row(epoch, loss) for epoch, loss in enumerate(losses, start=1)]
    return TrialRecord(number, f"t{number}", {"optimizer": {"lr": 0.1}}, "finished", rows, "why", repeat_of=None)


def test_what_is_saved_is_loaded_by_number(tmp_path: Path) -> None:
    first, second = _trial(1, 0.5, 0.25), _trial(2)
    second.repeat_of, second.status = 1, "running"
    save_trials(tmp_path, [second, first], "running")
    saved = load_trials(tmp_path)
    assert saved is not None
    assert (saved.state, saved.trials) == ("running", (first, second))
    assert [path.name for path in tmp_path.iterdir()] == [TRIALS_JSON]


def test_what_was_written_before_is_written_again_as_it_is_now(tmp_path: Path) -> None:
    """The texts that are kept give the file that writing all anew gives, whatever has become of a trial."""
    texts: EndedTexts = {}
    trials = [_trial(1, 0.5), _trial(2, 0.4, 0.3), _trial(3)]
    trials[1].status = "running"
    changes: list[Callable[[], Any]] = [
        lambda: None,
        lambda: setattr(trials[1], "status", "finished"),
        lambda: setattr(trials[0], "status", "running"),
        lambda: trials[0].add_epoch(_row(2, 0.2)),
        lambda: setattr(trials[0], "status", "finished"),
        lambda: trials.append(_trial(4, 0.9)),
    ]
    for change in changes:
        change()
        save_trials(tmp_path, trials, "running", texts)
        kept = json.loads((tmp_path / TRIALS_JSON).read_text())
        save_trials(tmp_path, trials, "running")
        assert kept["trials"] == json.loads((tmp_path / TRIALS_JSON).read_text())["trials"]
    assert len({key[0] for key in texts}) == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_json_does_not_have_comes_back_as_nan(tmp_path: Path, value: float) -> None:
    trial = _trial(1, 0.5)
    trial.add_epoch({**_row(2, value), "logged": []})
    save_trials(tmp_path, [trial], "complete")
    document = json.loads((tmp_path / TRIALS_JSON).read_text(), parse_constant=pytest.fail)
    assert document["trials"][0]["epochs"][1]["val_loss"] is None
    saved = load_trials(tmp_path)
    assert saved is not None
    assert math.isnan(saved.trials[0].epochs[1]["val_loss"])


def test_a_search_without_a_trial_has_no_file(tmp_path: Path) -> None:
    assert load_trials(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", '{"state": "running"}', '{"state": 1, "written_at": 1, "trials": [{}]}'])
def test_a_broken_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / TRIALS_JSON).write_text(text)
    with pytest.raises(UserError, match=r"trials\.json cannot be read"):
        load_trials(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"number": 0}, "the trials must have ascending numbers from 1 on"),
        ({"number": "1"}, r"trials\[0\]\.number: should be a valid integer, got '1'"),
        ({"status": "won"}, r"trials\[0\]\.status: should be 'waiting', .*got 'won'"),
        ({"repeat_of": 1}, "trial 1 cannot repeat trial 1"),
        ({"config": {"lr": [0.1]}}, r"trial 1: lr must be a text, a number or a boolean, got \[0\.1\]"),
        ({"epochs": [{}]}, "trial 1, the epoch after 0: epoch must be a whole number above 0, got None"),
        ({"epochs": [_row(1, 0.5), _row(1, 0.4)]}, "trial 1, the epoch after 1: epoch must be .* above 1, got 1"),
        ({"epochs": [{**_row(1, 0.5), "logged": None}]}, "logged must be a list of numbers"),
        ({"epochs": [{**_row(1, 0.5), "reported_at": 1e300}]}, "reported_at must be a number of seconds, got 1e"),
        ({"epochs": [{**_row(1, 0.5), "val_loss": "low"}]}, "val_loss must be a number, got 'low'"),
        ({"epochs": [{**_row(1, 0.5), "val_loss": True}]}, "val_loss must be a number, got True"),
    ],
)
def test_what_no_search_writes_is_told(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    save_trials(tmp_path, [_trial(1, 0.5)], "complete")
    path = tmp_path / TRIALS_JSON
    document = json.loads(path.read_text())
    document["trials"][0].update(change)
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=rf"trials\.json cannot be read \(.*{told}"):
        load_trials(tmp_path)
