"""A search that is killed and loses Ray's state, and what can be seen of its processes while it runs."""

from __future__ import annotations

import csv
import ipaddress
import json
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.commands import command_line, environment, run, run_here
from tests.tracking.tensorboard_helpers import read_scalars
from tests.tracking.wandb_helpers import read_run
from tune_cifar import search
from tune_cifar.results import TrialRecord
from tune_cifar.runner.searcher import SweepSearch
from tune_cifar.runner.state_commit import finish_commit
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.searcher import plan_search
from tune_cifar.sweep.space import SearchSpace
from tune_cifar.trial.config import EPOCH_METRICS, check_parameter
from tune_cifar.trials_file import load_trials

SWEEP = """
method: random
metric: {name: val_loss, goal: minimize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.0003, max: 0.03}
  batch_size: {values: [16, 32]}
  epochs: {value: 2}
run_cap: 3
"""
FLAGS = ("--data", "digits", "--train-images", "100", "--trials-at-once", "1")


@dataclass(frozen=True)
class Killed:
    """A search that was killed in its second trial, and what was seen shortly before."""

    folder: Path
    pid: int
    listening: tuple[str, ...]
    second: subprocess.CompletedProcess[str]
    trials: tuple[TrialRecord, ...]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    home = tmp_path_factory.mktemp("killed")
    (home / "sweep.yaml").write_text(SWEEP)
    variables = {"HOME": str(home), "RAY_AUTH_MODE": "token", "PYTHONUNBUFFERED": "1"}
    command = command_line("search", "sweep.yaml", *FLAGS, "--name", "cut")
    process = subprocess.Popen(
        command,
        cwd=home,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("[2/3] epoch 1/2"):
                break
        assert process.poll() is None, "".join(printed)
        listening = tuple(_listening(process.pid))
        process.send_signal(signal.SIGSTOP)  # it shall not come to its end meanwhile
        second = run("search", "--resume", "--name", "cut", folder=home)
    finally:
        process.kill()
        process.communicate()
    saved = load_trials(home / "results" / "cut")
    assert saved is not None
    return Killed(home / "results" / "cut", process.pid, listening, second, saved.trials)


def _listening(pid: int) -> Iterator[str]:
    """The addresses on which a process and its descendants accept connections, each with the name of the process."""
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        for connection in one.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                yield f"{connection.laddr.ip} {one.name()}"


def _copy(killed: Killed, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(killed.folder, tmp_path / "results" / "cut"))
    # The kill may hit a commit of Tune's state, which the next process finishes, whatever else it then finds.
    finish_commit(copy / "ray")
    return copy


def test_what_a_search_starts_listens_on_this_machine_alone(killed: Killed) -> None:
    names = {place.partition(" ")[2] for place in killed.listening}
    assert {"gcs_server", "raylet"} <= names
    for place in killed.listening:
        address = ipaddress.ip_address(place.partition(" ")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        assert (mapped or address).is_loopback, killed.listening


def test_rays_token_is_for_its_owner_alone(killed: Killed) -> None:
    token = killed.folder.parents[1] / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_while_a_search_runs_a_second_one_in_its_folder_is_refused(killed: Killed) -> None:
    assert killed.second.returncode == 2
    assert f"belongs to a search that is running: process {killed.pid} on " in killed.second.stderr
    assert killed.second.stderr.startswith("error: ")


def test_a_rebuilt_search_loses_nothing_and_runs_nothing_twice(killed: Killed, tmp_path: Path) -> None:
    results = _copy(killed, tmp_path)
    (state,) = (results / "ray").glob("searcher-state-*")
    state.write_bytes(b"")
    done = run("search", "--resume", "--rebuild", "--name", "cut", folder=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Ray's old state is kept in results/cut/ray/old-state-1" in done.stdout
    assert "rebuild  1 trial has ended and will not run again" in done.stdout
    assert re.findall(r"^\[(\d)/3\] started", done.stdout, re.MULTILINE) == ["2", "3"]
    with (results / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    assert [(trial["number"], trial["status"], trial["epochs_trained"]) for trial in trials] == [
        (number, "finished", "2") for number in "123"
    ]
    saved = load_trials(results)
    assert saved is not None
    # trials.json is written every few seconds, so it need not have had the last epochs before the search was killed.
    for before, after in zip(killed.trials, saved.trials, strict=False):
        assert (after.trial_id, after.config) == (before.trial_id, before.config)
        assert after.epochs[: len(before.epochs)] == before.epochs
    assert [(float(trial["lr"]), int(trial["batch_size"])) for trial in trials] == _draws(results / "sweep.yaml")
    for trial in saved.trials:
        losses = [row["val_loss"] for row in trial.epochs]
        wandb_file = min(results.glob(f"wandb/*/run-*{trial.trial_id}.wandb"))  # a later one marks the best run
        assert [row["val_loss"] for _, row in sorted(read_run(wandb_file).rows.items())] == losses
        (points,) = results.glob(f"tensorboard/{trial.number}-*")
        assert list(read_scalars(points)["val_loss"].values()) == pytest.approx(losses)
    assert json.loads((results / "summary.json").read_text())["complete"] is True
    assert len(list((results / "best").glob("*.pth"))) == 1


def _draws(sweep: Path) -> list[tuple[float, int]]:
    """What a search of the sweep file that nothing disturbs tries."""
    config = load_sweep(sweep, check_parameter, EPOCH_METRICS)
    space = SearchSpace(config)
    searcher = SweepSearch(space, plan_search(config, space, num_trials=3, seed=0, trials_at_once=1), config.metric)
    configs = [searcher.suggest(str(number)) for number in range(3)]
    return [(config["lr"], config["batch_size"]) for config in configs if isinstance(config, dict)]


def test_a_state_that_ray_cannot_load_ends_the_resume_and_changes_nothing(killed: Killed, tmp_path: Path) -> None:
    """Each byte of it is a pickle's, but the class that it names is not there: only loading finds that."""
    results = _copy(killed, tmp_path)
    (state,) = (results / "ray").glob("searcher-state-*")
    content = state.read_bytes()
    assert b"tune_cifar.sweep.space" in content
    state.write_bytes(content.replace(b"tune_cifar.sweep.space", b"tune_cifar.sweep.spice"))
    before = _state(results)
    done = run("search", "--resume", "--name", "cut", "--wandb", "disabled", folder=tmp_path)
    assert done.returncode == 2, done.stderr + done.stdout
    assert "error: Ray cannot take up its state in results/cut/ray. Nothing was started" in done.stderr
    assert "`--resume --rebuild --name cut`" in done.stderr
    assert "Traceback" not in done.stderr
    assert "started:" not in done.stdout
    assert _state(results) == before


def _state(results: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in results.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("search.json", b"", "search.json cannot be read"),
        ("sweep.yaml", b"", "sweep.yaml"),
        ("sweep.yaml", SWEEP.replace("0.03", "0.04").encode(), "sweep.yaml is not what the search was started with"),
        ("ray/tuner.pkl", b"", "tuner.pkl is damaged (it is empty)"),
        ("ray/versions.json", b'{"ray": "1.0"}', "versions.json is damaged"),
    ],
)
def test_a_damaged_file_is_told_before_anything_starts(
    killed: Killed, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, message: str
) -> None:
    results = _copy(killed, tmp_path)
    (results / name).write_bytes(content)
    before = _state(results)
    assert run_here(search.main, ["--resume", "--results", str(results.parent), "--name", "cut"]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert _state(results) == before


def test_rebuild_is_for_a_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(search.main, ["--rebuild", "--results", str(tmp_path)]) == 2
    assert "Give --resume too" in capsys.readouterr().err
