from dataclasses import replace
from pathlib import Path

import pytest

from tune_cifar.errors import UserError
from tune_cifar.tracking.wandb_run import RunTarget, TrialRun, find_run


def make_target(project: str = "cifar", tags: tuple[str, ...] = ()) -> RunTarget:
    return RunTarget(project, None, "search", Path("results"), None, tags, None, 20.0, 60.0)


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
