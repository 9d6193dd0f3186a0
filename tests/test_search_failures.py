"""A whole search on scikit-learn's digits that cannot work at first, and is resumed once its cause is mended."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, run
from tests.tracking.wandb_helpers import read_run

SWEEP = """
method: random
metric: {name: val_loss, goal: minimize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.0003, max: 0.003}
  batch_size: {value: 32}
  epochs: {value: 2}
run_cap: 3
"""
# Python imports this file in each process; only Ray's workers, in which the trials run, are changed by it.
FAULTS = """
import importlib.abc, importlib.util, os, signal, sys
from pathlib import Path

FOLDER = Path(__file__).parent

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "tune_cifar.trial.training":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def load_and_change(module):
            load(module)
            change(module.TrainingRun)
        spec.loader.exec_module = load_and_change
        return spec

def change(run_class):
    epochs = run_class.epochs
    def faulty(self, on_trained):
        if (FOLDER / "broken").exists():
            raise RuntimeError(f"the accelerator {os.getpid()} does not answer")
        for result in epochs(self, on_trained):
            if result.epoch == 2:
                try:
                    (FOLDER / "killed").touch(exist_ok=False)
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            yield result
    run_class.epochs = faulty

if any("default_worker.py" in word for word in sys.orig_argv):
    sys.meta_path.insert(0, Finder())
"""

Runs = tuple[Path, "subprocess.CompletedProcess[str]", "subprocess.CompletedProcess[str]", str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The search's folder, what came of the start and of the resume, and the error file that the start named."""
    folder = tmp_path_factory.mktemp("failures")
    faults = folder / "faults"
    faults.mkdir()
    (faults / "sitecustomize.py").write_text(FAULTS)
    (faults / "broken").touch()
    (folder / "sweep.yaml").write_text(SWEEP)
    changes = {"HOME": str(folder), "RAY_AUTH_MODE": "disabled", "PYTHONPATH": f"{faults}:{REPOSITORY}"}
    flags = ("--data", "digits", "--train-images", "100", "--name", "faulty", "--trials-at-once", "2")
    started = run("search", "sweep.yaml", *flags, folder=folder, **changes)
    log = re.search(r"The whole error is in (\S+/error\.txt)\.", started.stdout)
    error = (folder / log[1]).read_text() if log else ""
    (faults / "broken").unlink()
    resumed = run("search", "--resume", folder=folder, **changes)
    return folder / "results" / "faulty", started, resumed, error


def test_a_search_whose_first_trials_all_fail_alike_stops_and_says_so(runs: Runs) -> None:
    _, started, _, error = runs
    assert started.returncode == 1, started.stderr + started.stdout
    cause = r"RuntimeError: the accelerator \d+ does not answer"
    told = rf"^stopped  the first 3 trials all failed before any had finished an epoch: {cause}\. "
    assert re.search(told, started.stdout, re.MULTILINE), started.stdout
    assert "go on with: python -m tune_cifar.search --resume --results results --name faulty" in started.stdout
    assert re.search(cause, error)
    assert "Traceback" not in started.stderr


def test_its_attempts_are_few(runs: Runs) -> None:
    _, started, _, _ = runs
    assert len(re.findall(r"^retry ", started.stdout, re.MULTILINE)) <= 3
    assert len(re.findall(r" started: ", started.stdout)) <= 6


def test_after_the_cause_is_mended_a_resume_trains_all_trials(runs: Runs) -> None:
    results, _, resumed, _ = runs
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    assert "those that failed start again" in resumed.stdout
    with (results / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["number"], row["status"], row["epochs_trained"]) for row in rows] == [
        (str(number), "finished", "2") for number in (1, 2, 3)
    ]
    summary = json.loads((results / "summary.json").read_text())
    assert (summary["complete"], summary["trials"]) == (True, {"finished": 3})


def test_a_killed_worker_costs_no_epoch_that_was_reported(runs: Runs) -> None:
    results, _, resumed, _ = runs
    assert (results.parents[1] / "faults" / "killed").exists()
    (line,) = re.findall(r"^retry    trial (\d): the trial's process was killed.*$", resumed.stdout, re.MULTILINE)
    assert re.search(r"^retry .*attempt 2 of 3, from (epoch 2|the beginning)$", resumed.stdout, re.MULTILINE)
    with (results / "trials.csv").open() as file:
        failures = {row["number"]: row["failures"] for row in csv.DictReader(file)}
    assert failures == {number: "1" if number == line else "0" for number in ("1", "2", "3")}
    assert "failed once" in (results / "report.html").read_text()


def test_the_killed_trials_wandb_run_is_whole(runs: Runs) -> None:
    results, _, _, _ = runs
    finished = [run for run in map(read_run, results.glob("wandb/*/run-*.wandb")) if run.exit_code == 0 and run.rows]
    assert len(finished) >= 3
    for one in finished:
        steps = sorted(one.rows)
        assert steps == list(range(steps[0], steps[0] + len(steps)))
        assert sum("val_loss" in row for row in one.rows.values()) in (0, 2)
