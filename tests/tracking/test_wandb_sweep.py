import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.wandb_helpers import KEY
from tests.tracking.wandb_server import WandbServer
from tune_cifar.errors import UserError
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.tracking.wandb_callback import SearchWandbCallback
from tune_cifar.tracking.wandb_search import finish_tracking
from tune_cifar.tracking.wandb_sweep import SWEEP_FILE, finish_sweep, open_sweep
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter
from tune_cifar.trial.data import load_dataset

FILE = """
method: bayes
name: mine
description: what it is for
entity: team
metric: {name: val_accuracy, goal: maximize}
parameters:
  lr: {min: 1e-4, max: 0.01}
  epochs: {value: 2}
run_cap: 3
"""


def read(folder: Path, text: str = FILE) -> SweepConfig:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return load_sweep(path, check_parameter, EPOCH_METRICS)


def test_the_server_gets_the_file_as_it_was_understood(server: WandbServer, tmp_path: Path) -> None:
    sweep, line = open_sweep(read(tmp_path), "cifar", tmp_path)
    assert sweep is not None, line
    served = server.sweeps[sweep.name]
    assert served.config == {
        "method": "bayes",
        "name": "mine",
        "description": "what it is for",
        "entity": "team",
        "metric": {"name": "val_accuracy", "goal": "maximize"},
        "parameters": {"lr": {"min": 0.0001, "max": 0.01}, "epochs": {"value": 2}},
        "run_cap": 3,
    }
    assert (served.project, served.entity) == ("cifar", "team")
    assert line == f"the runs join the sweep {server.url}/team/cifar/sweeps/sweep1"
    assert KEY not in (tmp_path / SWEEP_FILE).read_text()


def test_what_the_file_leaves_out_is_said(server: WandbServer, tmp_path: Path) -> None:
    folder = tmp_path / "my-search"
    folder.mkdir()
    text = "method: random\nparameters: {lr: {min: 0.1, max: 0.2}}\n"
    sweep, _ = open_sweep(read(tmp_path, text), "cifar", folder)
    assert sweep is not None
    config = server.sweeps[sweep.name].config
    assert config["name"] == "my-search"
    assert config["metric"] == {"name": "val_loss", "goal": "minimize"}


def test_early_stopping_that_only_we_have_is_not_sent(server: WandbServer, tmp_path: Path) -> None:
    curve, hyperband = (f"{FILE}early_terminate: {{type: {kind}, min_iter: 2}}\n" for kind in ("curve", "hyperband"))
    for text, sent in ((curve, None), (hyperband, {"type": "hyperband", "min_iter": 2})):
        sweep, line = open_sweep(read(tmp_path, text), "cifar", tmp_path)
        assert sweep is not None, line
        assert server.sweeps[sweep.name].config.get("early_terminate") == sent
        (tmp_path / SWEEP_FILE).unlink()


def test_the_sweep_says_where_it_is_also_where_flags_moved_it(server: WandbServer, tmp_path: Path) -> None:
    config = read(tmp_path, f"{FILE}project: of the file\n")
    sweep, line = open_sweep(replace(config, entity="other"), "moved", tmp_path)
    assert sweep is not None, line
    served = server.sweeps[sweep.name]
    assert (served.config["project"], served.config["entity"]) == ("moved", "other")
    assert (served.project, served.entity) == ("moved", "other")


def test_the_sweeps_address_can_be_followed_whatever_the_project_is_called(server: WandbServer, tmp_path: Path) -> None:
    sweep, line = open_sweep(read(tmp_path), "Über all", tmp_path)
    assert sweep is not None, line
    assert (sweep.project, sweep.url) == ("Über all", f"{server.url}/team/%C3%9Cber%20all/sweeps/sweep1")


def test_a_resumed_search_goes_on_with_its_sweep_and_finishes_it_once(server: WandbServer, tmp_path: Path) -> None:
    config = read(tmp_path)
    first, _ = open_sweep(config, "cifar", tmp_path)
    second, line = open_sweep(config, "cifar", tmp_path)
    assert first == second
    assert "sweeps/sweep1" in line
    assert list(server.sweeps) == ["sweep1"]
    assert finish_sweep(tmp_path) is None
    assert server.sweeps["sweep1"].state == "FINISHED"
    server.die()
    assert finish_sweep(tmp_path) is None
    assert json.loads((tmp_path / SWEEP_FILE).read_text())["finished"] is True


def test_a_search_that_ended_on_disk_finishes_its_sweep(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, tmp_path: Path
) -> None:
    """The server was gone for a while, and the runs since are on disk."""
    open_sweep(read(tmp_path), "cifar", tmp_path)
    callback = make_callback(mode="offline", sweep_id="sweep1")
    data = load_dataset("digits", train_images=100)
    (line,) = finish_tracking(callback, tmp_path, None, data, 0, complete=True)
    assert line == f"the sweep's page is {json.loads((tmp_path / SWEEP_FILE).read_text())['url']}"
    assert server.sweeps["sweep1"].state == "FINISHED"


@pytest.mark.parametrize("text", ["", "[]", '{"id": 1}'])
def test_a_damaged_note_of_the_sweep_is_named(server: WandbServer, tmp_path: Path, text: str) -> None:
    (tmp_path / SWEEP_FILE).write_text(text)
    with pytest.raises(
        UserError, match=r"wandb-sweep\.json cannot be read \(.*\)\. Remove it, and the search gets a new"
    ):
        open_sweep(read(tmp_path), "cifar", tmp_path)
    assert "wandb-sweep.json cannot be read" in (finish_sweep(tmp_path) or "")
    assert server.sweeps == {}


def refuse(server: WandbServer) -> None:
    server.refuse_sweeps = True


@pytest.mark.parametrize("trouble", [WandbServer.die, WandbServer.hang, refuse])
def test_without_a_sweep_there_is_one_line_in_bounded_time(server: WandbServer, tmp_path: Path, trouble: Any) -> None:
    trouble(server)
    started = time.monotonic()
    sweep, line = open_sweep(read(tmp_path), "cifar", tmp_path, timeout_seconds=2)
    assert time.monotonic() - started < 10
    assert sweep is None
    assert line.startswith("W&B made no sweep (")
    assert ("invalid sweep config" in line) == (trouble is refuse)
    assert line.endswith(f"); the search goes on, its runs grouped as {tmp_path.name}")
    assert "\n" not in line
    assert KEY not in line
    assert not (tmp_path / SWEEP_FILE).exists()


def test_a_sweep_that_cannot_be_finished_is_told(server: WandbServer, tmp_path: Path) -> None:
    assert finish_sweep(tmp_path) is None
    open_sweep(read(tmp_path), "cifar", tmp_path)
    server.die()
    line = finish_sweep(tmp_path, timeout_seconds=2)
    assert line is not None
    assert line.startswith("the sweep's page may still say running (")
