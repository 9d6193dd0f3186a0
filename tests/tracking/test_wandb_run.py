from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.errors import UserError
from tune_cifar.tracking.wandb_run import RunTarget, TrialRun, find_run, run_id, run_name


def make_target(project: str = "cifar", tags: tuple[str, ...] = ()) -> RunTarget:
    return RunTarget(project, None, "search", Path("results"), None, tags, None, 20.0, 60.0)


@pytest.mark.parametrize(
    ("config", "free", "name"),
    [
        (
            {"model": "ResNet18", "batch_size": 32, "lr": 0.00423, "epochs": 10},
            ("model", "batch_size", "lr"),
            "3-ResNet18-bs32-lr0.0042",
        ),
        ({"optimizer": {"lr": 1e-5, "nesterov": True}}, ("optimizer/lr", "optimizer/nesterov"), "3-lr1e-05-nesterov"),
        ({"nesterov": False, "weight_decay": 5e-4}, ("nesterov", "weight_decay"), "3-no_nesterov-wd0.0005"),
        ({"lr": 0.1}, (), "3"),
        ({"lr": 0.1}, ("absent",), "3"),
    ],
)
def test_run_names_tell_trials_apart(config: dict[str, Any], free: tuple[str, ...], name: str) -> None:
    assert run_name(3, config, free) == name


def test_run_names_stay_short() -> None:
    config = {f"parameter{number}": number for number in range(40)}
    name = run_name(12, config, tuple(config))
    assert 40 < len(name) <= 64
    assert name.startswith("12-parameter00-parameter11-")


def test_run_ids_are_plain_bounded_and_end_with_the_trial() -> None:
    assert run_id("my/search: #1?", "abc_00003") == "my-search-1-abc_00003"
    long = run_id("x" * 200, "abc_00003")
    assert len(long) == 64
    assert long.endswith("x-abc_00003")


@pytest.mark.parametrize("project", ["", "a/b", "what?", "x" * 129])
def test_a_project_that_wandb_refuses_is_the_users_mistake(project: str) -> None:
    with pytest.raises(UserError, match="project must be"):
        make_target(project)


@pytest.mark.parametrize("tag", ["", "t" * 65])
def test_a_tag_that_wandb_refuses_is_the_users_mistake(tag: str) -> None:
    make_target(tags=("t" * 64,))
    with pytest.raises(UserError, match="tag must be 1 to 64"):
        make_target(tags=("fine", tag))


@pytest.mark.parametrize(
    ("left", "found"),
    [
        ([], TrialRun("search-t")),
        (["offline-run-20260102_030405-search-t"], TrialRun("search-t")),
        (["run-20260102_030405-search-t"], TrialRun("search-t", sent=True)),
        (["run-20260102_030405-search-t2"], TrialRun("search-t")),
        (["run-1-search-t", "offline-run-2-search-t-offline"], TrialRun("search-t-offline")),
    ],
)
def test_the_run_of_an_earlier_process_is_found_by_its_folder(tmp_path: Path, left: list[str], found: TrialRun) -> None:
    for name in left:
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert find_run(replace(make_target(), folder=tmp_path), "t") == found
