"""A whole search that sends its runs to a W&B server, here the loopback one, with a key that must stay where it is."""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.commands import command_line, environment, run
from tests.tracking.wandb_helpers import KEY
from tests.tracking.wandb_server import WandbServer
from tune_cifar.scrubbing import SECRET_VARIABLES

SWEEP = """
method: random
metric: {name: val_loss, goal: minimize}
description: a search for tests
parameters:
  lr: {distribution: log_uniform_values, min: 0.0003, max: 0.003}
  batch_size: {value: 32}
  epochs: {value: 2}
run_cap: 2
"""
# One of each kind that a user may have in the environment.
OTHER_KEYS = {
    name: f"planted-{number}-c4f1b7" for number, name in enumerate(SECRET_VARIABLES) if name != "WANDB_API_KEY"
}
FLAGS = ("--data", "digits", "--train-images", "100", "--wandb", "online", "--prediction-images", "20")


@dataclass
class OnlineSearch:
    """One search that has ended, its server, and what could be seen of its processes while it ran."""

    folder: Path
    ray_folder: Path
    home: dict[str, str]
    server: WandbServer
    output: str = ""
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    command_lines: set[str] = field(default_factory=set)

    @property
    def results(self) -> Path:
        return self.folder / "results" / "online"

    def look_at(self, process: psutil.Process, command: list[str]) -> None:
        try:
            name, arguments, variables = process.name(), process.cmdline(), process.environ()
        except psutil.Error:  # it has just ended
            return
        if arguments == command:  # it has just been forked, and is about to become another program
            return
        self.command_lines.add(" ".join(arguments))
        self.environments[name] = variables


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineSearch]:
    folder = tmp_path_factory.mktemp("online")
    (folder / "sweep.yaml").write_text(SWEEP)
    # Ray's sockets lie in this folder, and the path of a socket has about a hundred characters at most.
    with tempfile.TemporaryDirectory(prefix="ray") as ray_folder, WandbServer() as server:
        home = {
            "HOME": str(folder),
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": ray_folder,
            "WANDB_BASE_URL": server.url,
            "WANDB_API_KEY": KEY,
            **OTHER_KEYS,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_PROJECT": "charts",
        }
        search = OnlineSearch(folder, Path(ray_folder), home, server)
        with (folder / "output.txt").open("w") as output:
            command = command_line("search", folder / "sweep.yaml", *FLAGS, "--name", "online")
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(**home),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            while process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    search.look_at(child, command)
                time.sleep(0.5)
        search.output = (folder / "output.txt").read_text()
        assert process.returncode == 0, search.output
        yield search


def _trials(search: OnlineSearch) -> list[dict[str, str]]:
    with (search.results / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def _best(search: OnlineSearch) -> dict[str, str]:
    best: dict[str, str] = json.loads((search.results / "summary.json").read_text())["best"]
    return best


def test_every_run_arrives_in_the_searchs_sweep_and_group(online: OnlineSearch) -> None:
    (sweep,) = online.server.sweeps
    assert f"wandb    the runs join the sweep {online.server.url}/tester/charts/sweeps/{sweep}" in online.output
    assert "wandb    project charts of your default entity" in online.output
    assert online.server.sweeps[sweep].state == "FINISHED"
    assert online.server.sweeps[sweep].config["parameters"]["lr"]["min"] == 0.0003
    assert len(online.server.runs) == 2
    for trial in _trials(online):
        served = online.server.runs[f"online-{trial['id']}"]
        assert served.project == "charts"
        assert (served.sweep, served.group, served.notes) == (sweep, "online", "a search for tests")
        assert served.display_name.startswith(f"{trial['number']}-lr")
        assert [row["epoch"] for row in served.metrics] == [1, 2]
        assert [row["_step"] for row in served.metrics] == [1, 2]
        assert served.exit_code == 0
        assert served.config["lr"] == float(trial["lr"])


def test_the_best_run_is_marked_and_has_the_table(online: OnlineSearch) -> None:
    best = _best(online)
    for trial in _trials(online):
        served = online.server.runs[f"online-{trial['id']}"]
        is_best = trial["id"] == best["trial_id"]
        assert served.tags == ["random", "digits"] + ["best"] * is_best
        assert served.summary.get("Notes") == (Path(best["model"]).stem if is_best else None)
    (artifact,) = online.server.artifacts
    assert (artifact.name, artifact.kind) == ("cifar10_image_predictions", "predictions")
    assert artifact.run_id == f"online-{best['trial_id']}"
    table = json.loads(artifact.files["cifar10_predictions.table.json"])
    assert table["columns"] == ["image", "label", "prediction", *(f"score_{digit}" for digit in range(10))]
    with (online.results / "best" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row[1:3] for row in table["data"]] == [[row["label"], row["prediction"]] for row in rows]
    assert len(rows) == 20
    assert "wandb sync" not in online.output


def test_the_key_is_in_no_file_no_output_and_no_process_of_rays(online: OnlineSearch) -> None:
    assert online.server.keys == {KEY}
    session_files = [path for path in online.ray_folder.rglob("*") if path.is_file()]
    own_files = [path for path in online.folder.rglob("*") if path.is_file()]
    assert {"raylet.out", "gcs_server.out"} <= {path.name for path in session_files}
    assert {"tuner.pkl", "summary.json", "search.json", "sweep.yaml"} <= {path.name for path in own_files}
    texts = {path: path.read_bytes() for path in session_files + own_files}
    keys = {KEY, *OTHER_KEYS.values()}
    assert [(path, key) for path, text in texts.items() for key in keys if key.encode() in text] == []
    assert not any(key in line for line in online.command_lines for key in keys)
    assert "raylet" in online.environments
    of_trials = [name for name in online.environments if "ImplicitFunc" in name or name.startswith("ray::")]
    assert of_trials, online.environments.keys()
    holders = {name for name, variables in online.environments.items() if keys & set(variables.values())}
    assert not {name for name in holders if "wandb" not in name}


def test_the_best_run_is_told_where_its_model_was_published_by_hand(online: OnlineSearch) -> None:
    best = _best(online)
    served = online.server.runs[f"online-{best['trial_id']}"]
    before, rows = dict(served.summary), len(served.metrics)
    done = run("publish", online.results, "--to", "models/", folder=online.folder, **online.home)
    assert done.returncode == 0, done.stdout + done.stderr
    uri = (online.folder / "models" / Path(best["model"]).stem).as_uri()
    assert "wandb    the best trial's run says where its model is\n" in done.stdout
    changed = {name: value for name, value in served.summary.items() if before.get(name) != value}
    assert changed.pop("published") == [uri]
    assert [name for name in changed if not name.startswith("_")] == []
    assert (served.tags, len(served.metrics)) == (["random", "digits", "best"], rows)
    assert len(online.server.artifacts) == 1
    again = run("publish", online.results, "--to", "models/", folder=online.folder, **online.home)
    assert (again.returncode, "wandb  " in again.stdout) == (0, False)


def test_resuming_the_finished_search_tells_wandb_nothing_twice(online: OnlineSearch) -> None:
    before = {run_id: list(served.rows) for run_id, served in online.server.runs.items()}
    elsewhere = {**online.home, "WANDB_PROJECT": "elsewhere"}
    done = run("search", "--resume", "--name", "online", "--wandb", "online", folder=online.folder, **elsewhere)
    assert done.returncode == 0, done.stderr
    assert "wandb    project charts of your default entity" in done.stdout
    assert f"the runs join the sweep {online.server.url}/tester/charts/" in done.stdout
    assert len(online.server.sweeps) == 1
    assert len(online.server.artifacts) == 1
    assert {run_id: served.rows for run_id, served in online.server.runs.items()} == before
