# ruff: noqa: E501 - the tables have a row a line

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.errors import UserError
from tune_cifar.sweep.prior_files import EarlierTrial, finite_number, read_earlier_trials, readings

OWN = """number,id,status,repeat_of,lr,optimizer.momentum,best_val_loss,best_epoch,message
1,a_1,finished,,0.01,0.9,0.5,2,
2,a_2,diverged,,1.0,,,,"diverged: val_loss is nan, at epoch 1"
3,a_3,waiting,,0.02,0.9,,,
"""
WANDB = (
    '\ufeff"Name","State","Created","lr","optimizer.momentum","val_loss"\n"one","finished","2024","0.01","0.9","0.5"\n'
)
WANDB += (
    '"two","crashed","2024","0.02","0.9",""\n"three","killed","2024","0.03","0.9","0.7"\n"four","running","","","",""\n'
)


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("as_folder", [True, False])
def test_reads_our_own_table_by_its_folder_or_itself(tmp_path: Path, as_folder: bool) -> None:
    path = _write(tmp_path, "trials.csv", OWN)
    first, second, third = read_earlier_trials(tmp_path if as_folder else path)
    assert first.values["lr"] == "0.01"
    assert first.values["best_val_loss"] == "0.5"
    assert [trial.end for trial in (first, second, third)] == ["ended", "failed", "open"]
    assert "optimizer.momentum" not in second.values
    assert all(trial.own for trial in (first, second, third))


def test_reads_the_table_that_wandb_exports(tmp_path: Path) -> None:
    trials = read_earlier_trials(_write(tmp_path, "wandb_export.CSV", WANDB))
    assert [trial.end for trial in trials] == ["ended", "failed", "ended", "open"]
    assert trials[0].values["val_loss"] == "0.5"
    assert not any(trial.own for trial in trials)


ROWS: list[dict[str, Any]] = [
    {"name": "one", "state": "finished", "config": {"lr": 0.01, "optimizer": {"momentum": 0.9}}, "summary": {"val_loss": 0.5}},
    {"name": "two", "state": "finished", "config": {"lr": 1.0}, "summary": {"status": "diverged", "val_loss": "NaN"}},
    {"name": "three", "state": "failed", "config": {"lr": 0.1}, "summary": {"status": "stopped early", "val_loss": {"min": 0.4}}},
]  # fmt: skip


def _as_pandas_writes(rows: list[dict[str, Any]]) -> str:
    lines = [",summary,config,name,state"]
    lines += [f'{i},"{r["summary"]}","{r["config"]}",{r["name"]},{r["state"]}' for i, r in enumerate(rows)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("runs.json", json.dumps(ROWS)),
        ("runs.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("project.csv", _as_pandas_writes(ROWS)),
    ],
)
def test_reads_the_rows_of_wandbs_api(tmp_path: Path, name: str, text: str) -> None:
    one, two, three = read_earlier_trials(_write(tmp_path, name, text))
    assert (one.values["lr"], one.values["optimizer.momentum"], one.values["val_loss"]) == (0.01, 0.9, 0.5)
    assert three.values["val_loss.min"] == 0.4
    assert [trial.end for trial in (one, two, three)] == ["ended", "failed", "ended"]


def test_one_run_in_json_needs_no_list(tmp_path: Path) -> None:
    assert read_earlier_trials(_write(tmp_path, "run.json", json.dumps({"config": {"lr": 1}}))) == [
        EarlierTrial({"config": {"lr": 1}, "lr": 1}, "ended")
    ]


def test_a_table_without_rows_holds_no_trial(tmp_path: Path) -> None:
    assert read_earlier_trials(_write(tmp_path, "a.csv", "Name,State\n")) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "missing: there is no such file or folder"),
        ("missing.csv", None, "missing.csv: there is no such file or folder"),
        ("folder", "", "there is no trials.csv in that folder, which a search writes when it ends"),
        ("a.parquet", b"PAR1", "must be a folder of results, a trials.csv, or runs exported from W&B"),
        ("a.csv", b"", "a.csv cannot be read: the file is empty"),
        ("a.csv", b"Name,lr\n\xff\xfe\x00", "a.csv cannot be read"),
        ("a.csv", b'Name,lr\n"one,0.1\n', "a.csv cannot be read"),
        ("a.json", b"{", "a.json cannot be read"),
        ("a.json", b"[" * 100_000, "a.json cannot be read"),
        ("a.json", b'[{"config": 3}]', "a.json cannot be read: run 1 is no mapping with a `config` and a `summary`"),
        ("a.jsonl", b'{"config": {}}\nnull\n', "a.jsonl cannot be read: run 2 is no mapping"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, content: bytes | str | None, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()
    with pytest.raises(UserError) as error:
        read_earlier_trials(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"--prior {tmp_path}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32", 32),
        ("32.0", 32.0),
        ("1e-4", 1e-4),
        ("true", True),
        ("True", True),
        ("False", False),
        ("[1, 'a']", [1, "a"]),
        ('[1, "a"]', [1, "a"]),
        ("{'a': None}", {"a": None}),
        ("ResNet18", "ResNet18"),
        ("10and 3", "10and 3"),
        ("[" * 5_000, "[" * 5_000),
        ("1" * 10_000, "1" * 10_000),
        ("", ""),
        (7, 7),
        (None, None),
    ],
)
def test_text_is_read_as_what_it_stands_for(text: Any, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, *others = readings(text)
    assert (first, type(first)) == (value, type(value))
    assert first == text or others[-1] == text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("0.5", 0.5),
        (3, 3.0),
        ("NaN", None),
        ("Infinity", None),
        (True, None),
        ("nan", None),
        (10**400, None),
        ("", None),
    ],
)
def test_a_score_is_a_finite_number(value: Any, number: float | None) -> None:
    assert finite_number(value) == number
