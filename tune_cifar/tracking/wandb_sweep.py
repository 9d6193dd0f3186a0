"""Creates the W&B sweep that an online search's runs join, so that W&B's sweep page has its charts of them.

No agent is involved: a sweep is a record on the server, and a run belongs to it that names it when it is created.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import wandb
import yaml

from tune_cifar.errors import UserError
from tune_cifar.files import replace_text
from tune_cifar.saved_json import read_json
from tune_cifar.sweep.schema import CurveStopping, SweepConfig
from tune_cifar.tracking.wandb_mode import set_up_client

SWEEP_FILE = "wandb-sweep.json"
"""Stands in the search's folder, so that a resumed search goes on with its sweep."""

TIMEOUT_SECONDS = 15

# The mutation of `wandb.sweep`, which itself has no time limit, prints, and sets the environment's project (0.31).
_CREATE = """
mutation UpsertSweep($config: String, $description: String, $entityName: String, $projectName: String) {
    upsertSweep(input: {
        config: $config, description: $description, entityName: $entityName, projectName: $projectName
    }) {
        sweep { id name project { name entity { name } } }
    }
}
"""
_FINISH = """
mutation UpsertSweep($id: ID, $state: String, $entityName: String, $projectName: String) {
    upsertSweep(input: {id: $id, state: $state, entityName: $entityName, projectName: $projectName}) {
        sweep { name }
    }
}
"""


@dataclass(frozen=True)
class WandbSweep:
    """A sweep on the server: `name` is what its address and its runs call it, `id` what changes of it need."""

    id: str
    name: str
    project: str
    entity: str
    url: str
    finished: bool = False


def open_sweep(
    config: SweepConfig, project: str, folder: Path, *, timeout_seconds: int = TIMEOUT_SECONDS
) -> tuple[WandbSweep | None, str]:
    """Create the sweep of the search in `folder`, or take the one it has; None where W&B made none, and why.

    The key is the client's own matter: it is not read here. Returns within about twice `timeout_seconds`. Raises
    `UserError` where the file that tells which sweep it has is damaged.
    """
    sweep = saved_sweep(folder)
    if sweep:
        return sweep, f"the runs join the sweep {sweep.url}"
    variables = {
        "config": yaml.safe_dump(_as_wandb_has_it(config, project, folder.name)),
        "description": config.description,
        "entityName": config.entity,
        "projectName": project,
    }
    try:
        set_up_client()
        answer = _ask(_CREATE, variables, timeout_seconds)["upsertSweep"]["sweep"]
        place = answer["project"]
        entity = place["entity"]["name"]
        # A project's name may have spaces, at which a terminal ends a link.
        page = quote(f"{entity}/{place['name']}/sweeps/{answer['name']}")
        url = f"{wandb.setup().settings.app_url}/{page}"
        sweep = WandbSweep(answer["id"], answer["name"], place["name"], entity, url)
    except Exception as error:  # whatever it is, the runs are still grouped by the search's name
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return None, f"W&B made no sweep ({reason}); the search goes on, its runs grouped as {folder.name}"
    _save(folder / SWEEP_FILE, sweep)
    return sweep, f"the runs join the sweep {sweep.url}"


def finish_sweep(folder: Path, *, timeout_seconds: int = TIMEOUT_SECONDS) -> str | None:
    """Mark the sweep of a search that has ended as finished on its page; a line where that did not work."""
    try:
        sweep = saved_sweep(folder)
    except UserError as error:  # the end of a search is no time to give up
        return str(error)
    if sweep is None or sweep.finished:
        return None
    variables = {"id": sweep.id, "state": "FINISHED", "entityName": sweep.entity, "projectName": sweep.project}
    try:
        _ask(_FINISH, variables, timeout_seconds)
    except Exception as error:
        return f"the sweep's page may still say running ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    _save(folder / SWEEP_FILE, replace(sweep, finished=True))
    return None


def _as_wandb_has_it(config: SweepConfig, project: str, search_name: str) -> dict[str, Any]:
    """The sweep file as W&B's server takes it: with what it requires, and with what is inferred here said."""
    document = {"name": search_name, **config.document}
    document.setdefault("metric", {"name": config.metric.name, "goal": config.metric.goal})
    # A flag may have taken the place of what the file says.
    document |= {key: value for key, value in (("project", project), ("entity", config.entity)) if key in document}
    if isinstance(config.early_terminate, CurveStopping):
        del document["early_terminate"]  # W&B has no such type, and its server takes none that it does not know
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def _ask(query: str, variables: dict[str, Any], timeout_seconds: int) -> dict[str, Any]:
    api = wandb.Api(timeout=timeout_seconds)
    answer: dict[str, Any] = api._service_api.execute_graphql(query, variables, timeout=timeout_seconds)
    return answer


def sweep_page(folder: Path) -> str | None:
    """A line that says where the sweep of the search in `folder` is looked at, if it has one."""
    try:
        sweep = saved_sweep(folder)
    except UserError:  # `finish_sweep` has told
        return None
    return f"the sweep's page is {sweep.url}" if sweep else None


def saved_sweep(folder: Path) -> WandbSweep | None:
    """The sweep that the search in `folder` has; raises `UserError` where the file that tells it is damaged."""
    path = folder / SWEEP_FILE
    if not path.is_file():
        return None
    try:
        return read_json(path, WandbSweep)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Remove it, and the search gets a new sweep.") from None


def _save(path: Path, sweep: WandbSweep) -> None:
    replace_text(path, json.dumps(asdict(sweep), indent=2) + "\n")
