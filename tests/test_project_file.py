"""tune_cifar.yaml, and the commands that read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands import run_here
from tune_cifar import search
from tune_cifar.errors import UserError
from tune_cifar.project_file import load_project
from tune_cifar.publish import __main__ as publish
from tune_cifar.search_flags import parse_search_flags, with_project

FULL = """
publish:
  - hf://team/resnet
  - gradient
gradient_project: p1
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _completed(*arguments: str) -> Sequence[str]:
    return with_project(arguments, parse_search_flags(arguments))


def test_without_a_file_nothing_is_published() -> None:
    assert load_project() is None
    assert _completed("sweep.yaml") == ["sweep.yaml"]


def test_its_targets_and_options_are_flags_of_the_search() -> None:
    Path("tune_cifar.yaml").write_text(FULL)
    targets = ["--publish", "hf://team/resnet", "--publish", "gradient"]
    assert _completed("sweep.yaml") == ["sweep.yaml", *targets, "--gradient-project", "p1"]
    given = ["--resume", "--gradient-project", "p2"]
    assert _completed(*given) == [*given, *targets]


@pytest.mark.parametrize("flags", [["--publish", "models/"], ["--no-publish"]])
def test_flags_go_first(flags: list[str]) -> None:
    Path("tune_cifar.yaml").write_text(FULL)
    assert _completed(*flags) == flags


def test_watching_a_search_on_a_cluster_publishes_nothing() -> None:
    Path("tune_cifar.yaml").write_text(FULL)
    flags = ["--address", "head", "--attach", "mine"]
    assert _completed(*flags) == flags


def test_every_mistake_of_the_file_is_told_at_once() -> None:
    Path("tune_cifar.yaml").write_text("publish: [models/, 3]\npublsh: x\nwandb_registry: [a]\n")
    with pytest.raises(UserError) as caught:
        load_project()
    assert str(caught.value).splitlines() == [
        "tune_cifar.yaml has 3 problems:",
        "tune_cifar.yaml:1: publish[1]: must be a target such as hf://ORG/NAME or models/, got 3.",
        "tune_cifar.yaml:2: publsh: is not a key of a project file here. Did you mean 'publish'?",
        "tune_cifar.yaml:3: wandb_registry: must be text, got ['a']. Put it in quotes.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "tune_cifar.yaml: the file is empty. A project file has at least `publish`."),
        ("- models/", "tune_cifar.yaml:1: must be a mapping with `publish`, got a list."),
        ("wandb_registry: r", "tune_cifar.yaml:1: `publish` is missing. Add a target or a list of them, such as"),
        ("publish: ''", "tune_cifar.yaml:1: publish: must be a target such as hf://ORG/NAME or models/, got ''."),
    ],
)
def test_a_file_that_says_nothing_is_a_mistake(text: str, message: str) -> None:
    Path("tune_cifar.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_project()
    assert str(caught.value).startswith(message)


def test_a_dry_run_shows_its_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tune_cifar.yaml").write_text("publish: models/\n")
    Path("sweep.yaml").write_text("method: random\nparameters: {lr: {min: 0.001, max: 0.01}}\nrun_cap: 1\n")
    assert run_here(search.main, ["sweep.yaml", "--data", "digits", "--dry-run"]) == 0
    assert "would    models/: to models/" in capsys.readouterr().out
    assert run_here(search.main, ["sweep.yaml", "--data", "digits", "--dry-run", "--no-publish"]) == 0
    assert "models/" not in capsys.readouterr().out
    assert run_here(search.main, ["sweep.yaml", "--no-publish", "--publish", "models/"]) == 2
    assert "--publish and --no-publish: give one" in capsys.readouterr().err


def test_publishing_by_hand_goes_where_it_says(
    search_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(publish.main, [str(search_folder)]) == 2
    assert "--to TARGET is needed, or `publish` in tune_cifar.yaml" in capsys.readouterr().err
    Path("tune_cifar.yaml").write_text("publish: models/\n")
    assert run_here(publish.main, [str(search_folder)]) == 0
    (published,) = json.loads((search_folder / "published.json").read_text())
    assert published["uri"].startswith((tmp_path / "models").as_uri())


@pytest.fixture
def search_folder(tmp_path: Path) -> Path:
    import torch

    from tests.publish.conftest import write_search

    return write_search(tmp_path / "results" / "small", {"layer.weight": torch.arange(12.0).reshape(3, 4)})
