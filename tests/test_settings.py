from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from tune_cifar.errors import UserError
from tune_cifar.settings import (
    SearchSettings,
    default_name,
    load_settings,
    make_search_folder,
    newest_search,
    save_settings,
    search_folder,
)

SETTINGS = SearchSettings("digits", None, 5, 0, None, 0.5, None, "auto")


def _save(folder: Path) -> Path:
    folder.mkdir(parents=True)
    sweep = folder.parent / "my.sweep.yaml"
    sweep.write_text("method: grid\n")
    save_settings(folder, SETTINGS, sweep)
    return folder


def test_settings_and_sweep_file_read_back(tmp_path: Path) -> None:
    settings, sweep = load_settings(_save(tmp_path / "a"))
    assert settings == SETTINGS
    assert sweep.read_text() == "method: grid\n"


def test_a_sweep_file_without_a_suffix_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("method: grid\n")
    save_settings(tmp_path, SETTINGS, tmp_path / "mine")
    assert load_settings(tmp_path)[1].read_text() == "method: grid\n"


def test_a_list_of_paths_is_kept_and_compared(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (tmp_path / "sweep.yaml").write_text("")
    save_settings(folder, replace(SETTINGS, prior=["a", "b"]), tmp_path / "sweep.yaml")
    settings, _ = load_settings(folder)
    assert settings.resumed_with({"prior": ["a", "b"]}).prior == ["a", "b"]
    with pytest.raises(UserError, match="--prior was a and b and is now a"):
        settings.resumed_with({"prior": ["a"]})


def test_settings_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    folder = _save(tmp_path / "a")
    values = json.loads((folder / "search.json").read_text())
    for flag in ("repeat_best", "seeds", "prior"):
        del values[flag]
    (folder / "search.json").write_text(json.dumps(values))
    assert load_settings(folder)[0] == SETTINGS


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_broken_settings_are_named(tmp_path: Path, text: str) -> None:
    folder = _save(tmp_path / "a")
    (folder / "search.json").write_text(text)
    with pytest.raises(UserError, match=r"search\.json cannot be read"):
        load_settings(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"count": 0}, "count must be 1 or more, got 0"),
        ({"gpus_per_trial": -1}, "gpus_per_trial must be 0 or more, got -1.0"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": "1"}, "seed: should be a valid integer, got '1'"),
        ({"precision": "fp8"}, "precision must be one of auto, fp32, bf16, got 'fp8'"),
        ({"prior": "a"}, "prior: should be a valid array, got 'a'"),
    ],
)
def test_a_setting_that_no_flag_can_have_is_named(tmp_path: Path, change: dict[str, object], told: str) -> None:
    folder = _save(tmp_path / "a")
    path = folder / "search.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=rf"search\.json cannot be read \({told}"):
        load_settings(folder)


def test_a_resume_keeps_what_was_and_refuses_a_change() -> None:
    assert SETTINGS.resumed_with({"data": "digits", "count": None, "seed": None}) == SETTINGS
    with pytest.raises(UserError, match="--trials-at-once was not given and is now 3; --data was digits"):
        SETTINGS.resumed_with({"trials_at_once": 3, "data": "cifar10"})


def test_auto_is_kept_as_the_number_that_came_of_it() -> None:
    assert SETTINGS.resumed_with({"gpus_per_trial": "auto"}).gpus_per_trial == 0.5
    without = replace(SETTINGS, gpus_per_trial=None)
    with pytest.raises(UserError, match="--gpus-per-trial was not given and is now auto"):
        without.resumed_with({"gpus_per_trial": "auto"})
    with pytest.raises(UserError, match=r"--gpus-per-trial was 0.5 and is now 0.25"):
        SETTINGS.resumed_with({"gpus_per_trial": 0.25})
    with pytest.raises(UserError, match="--data was digits and is now auto"):
        SETTINGS.resumed_with({"data": "auto"})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a b", "ä", "x" * 101, ".hidden"])
def test_a_name_must_be_a_plain_folder_name(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        search_folder(Path("results"), name)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("sweep", "sweep"),
        ("My sweep, 2nd/3", "My-sweep-2nd-3"),
        ("Über alles", "Uber-alles"),
        (".hidden ", "hidden"),
        ("☃", "search"),
        ("x" * 300, "x" * 80),
    ],
)
def test_a_search_can_be_called_after_any_sweep(title: str, name: str) -> None:
    called = default_name(title, datetime(2026, 1, 2, 3, 4, 5))
    assert called == f"{name}-20260102-030405"
    assert search_folder(Path("results"), called).name == called


def test_of_two_searches_with_one_name_one_gets_the_folder(tmp_path: Path) -> None:
    make_search_folder(tmp_path / "a")
    with pytest.raises(UserError, match="--resume --name a"):
        make_search_folder(tmp_path / "a")


def test_results_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        make_search_folder(tmp_path / "file" / "a")


def test_the_newest_search_is_the_one_started_last(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no search"):
        newest_search(tmp_path)
    for age_seconds, name in ((10, "new"), (20, "old")):
        folder = _save(tmp_path / name)
        started = 1_700_000_000 - age_seconds
        os.utime(folder / "search.json", (started, started))
    assert newest_search(tmp_path).name == "new"
