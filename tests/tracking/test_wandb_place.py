from __future__ import annotations

from pathlib import Path

import pytest

from tune_cifar.errors import UserError
from tune_cifar.settings import SearchSettings
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.tracking.wandb_place import choose_place, describe_place, in_place
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter

IN_FILE = "project: of-file\nentity: team-of-file\n"
ENVIRONMENT = {"WANDB_PROJECT": "of-environment", "WANDB_ENTITY": "team-of-environment"}
SETTINGS = SearchSettings("digits", None, 5, 0, None, 0.5, None, "auto")


def _config(folder: Path, more: str = "") -> SweepConfig:
    path = folder / "sweep.yaml"
    path.write_text(f"method: random\nparameters: {{lr: {{min: 0.1, max: 0.2}}}}\n{more}")
    return load_sweep(path, check_parameter, EPOCH_METRICS)


@pytest.mark.parametrize(
    ("in_file", "flags", "environment", "project", "entity"),
    [
        (IN_FILE, ("of-flag", "team-of-flag"), ENVIRONMENT, "of-flag", "team-of-flag"),
        (IN_FILE, (None, None), ENVIRONMENT, "of-file", "team-of-file"),
        ("", (None, None), ENVIRONMENT, "of-environment", "team-of-environment"),
        ("", (None, "team-of-flag"), {"WANDB_PROJECT": "", "WANDB_ENTITY": ""}, "tune-cifar", "team-of-flag"),
        ("", (None, None), {}, "tune-cifar", None),
    ],
)
def test_flags_come_before_the_file_and_the_file_before_the_environment(
    tmp_path: Path,
    in_file: str,
    flags: tuple[str | None, str | None],
    environment: dict[str, str],
    project: str,
    entity: str | None,
) -> None:
    place = choose_place(_config(tmp_path, in_file), *flags, environment)
    assert place == {"wandb_project": project, "wandb_entity": entity}


@pytest.mark.parametrize(
    ("project", "entity", "message"),
    [
        ("team/cifar", None, r"--wandb-project must be .* got 'team/cifar'"),
        ("", None, "--wandb-project must be 1 to 128 characters"),
        (None, "a team", "--wandb-entity must be a W&B user or team"),
        (None, "", "--wandb-entity must be"),
    ],
)
def test_what_wandb_would_refuse_is_named(
    tmp_path: Path, project: str | None, entity: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        choose_place(_config(tmp_path), project, entity, {})


def test_the_environments_mistake_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="WANDB_PROJECT must be"):
        choose_place(_config(tmp_path), None, None, {"WANDB_PROJECT": "a/b"})


def test_a_search_stays_where_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SearchSettings(**{**SETTINGS.__dict__, "wandb_project": "cifar", "wandb_entity": "team"})
    monkeypatch.setenv("WANDB_PROJECT", "elsewhere")
    config = in_place(_config(tmp_path, IN_FILE), settings)
    assert (config.project, config.entity) == ("cifar", "team")
    assert describe_place(config) == "project cifar of team"


def test_a_search_of_an_earlier_version_is_where_its_file_says(tmp_path: Path) -> None:
    config = in_place(_config(tmp_path, IN_FILE), SETTINGS)
    assert (config.project, config.entity) == ("of-file", "team-of-file")
    without = in_place(_config(tmp_path), SETTINGS)
    assert (without.project, without.entity) == ("tune-cifar", None)
    assert describe_place(without) == "project tune-cifar of your default entity"
