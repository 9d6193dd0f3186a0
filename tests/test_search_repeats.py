"""Whole searches on scikit-learn's digits that start with a prior and train the best configurations again."""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
from pathlib import Path

import pytest

from tests.commands import command_line, environment, run, run_here
from tune_cifar import search

SWEEP = """
method: bayes
metric: {name: val_loss, goal: minimize}
early_terminate: {type: hyperband, min_iter: 1, eta: 1.5}
parameters:
  lr: {distribution: log_uniform_values, min: 0.0001, max: 0.003}
  optimizer: {parameters: {momentum: {values: [0.5, 0.9]}}}
  batch_size: {value: 32}
  epochs: {value: 2}
run_cap: 3
"""
# As W&B's runs table exports it; the last trial is better than any in the new search.
PRIOR = """"Name","State","lr","optimizer.momentum","batch_size","epochs","val_loss"
"one","finished","0.0002","0.5","32","2","2.4"
"two","finished","0.002","0.9","32","2","2.2"
"three","crashed","0.0025","0.9","32","2",""
"four","finished","0.01","0.9","32","2","2.1"
"five","running","0.001","0.9","32","2","2.1"
"six","finished","0.001","0.50","32.0","2","0.001"
"""
FLAGS = ("--data", "digits", "--train-images", "100", "--trials-at-once", "1", "--wandb", "disabled")
NEW_FLAGS = ("--repeat-best", "2", "--prior", "wandb.csv")


def _trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def _write_files(folder: Path, sweep: str = SWEEP) -> None:
    (folder / "sweep.yaml").write_text(sweep)
    (folder / "wandb.csv").write_text(PRIOR)


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A search of three trials and two repeats of each of the best two: its folder of results, and what it printed."""
    folder = tmp_path_factory.mktemp("repeated")
    _write_files(folder)
    home = {"HOME": str(folder), "RAY_AUTH_MODE": "disabled"}
    done = run("search", "sweep.yaml", *FLAGS, *NEW_FLAGS, "--name", "whole", folder=folder, **home)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return folder / "results" / "whole", done.stdout


def test_each_repeat_is_a_row_that_names_its_first_run(repeated: tuple[Path, str]) -> None:
    trials = _trials(repeated[0])
    own, repeats = trials[:3], trials[3:]
    assert [trial["repeat_of"] for trial in own] == ["", "", ""]
    best = sorted((row for row in own), key=lambda row: float(row["best_val_loss"]))[:2]
    assert [row["repeat_of"] for row in repeats] == [row["number"] for row in best] * 2
    assert [row["seed"] for row in trials] == ["0", "0", "0", "1", "1", "2", "2"]
    same = ("lr", "optimizer.momentum", "batch_size", "epochs", "precision")
    for row in repeats:
        first = trials[int(row["repeat_of"]) - 1]
        assert [row[name] for name in same] == [first[name] for name in same]
        assert row["best_val_loss"] != first["best_val_loss"]


def test_no_repeat_is_stopped_early(repeated: tuple[Path, str]) -> None:
    assert {(row["status"], row["epochs_trained"]) for row in _trials(repeated[0])[3:]} == {("finished", "2")}


def test_the_mean_over_the_seeds_chooses_the_winner(repeated: tuple[Path, str]) -> None:
    results, output = repeated
    trials = {row["number"]: row for row in _trials(results)}
    summary = json.loads((results / "summary.json").read_text())
    values: dict[str, list[float]] = {}
    for row in trials.values():
        values.setdefault(row["repeat_of"] or row["number"], []).append(float(row["best_val_loss"]))
    means = {number: statistics.fmean(found) for number, found in values.items() if len(found) == 3}
    assert len(means) == 2
    winner = min(means, key=lambda number: means[number])
    assert [(str(one["number"]), one["won"]) for one in summary["finalists"]] == [
        (winner, True),
        (max(means, key=lambda number: means[number]), False),
    ]
    assert summary["finalists"][0]["mean"] == pytest.approx(means[winner])
    assert summary["finalists"][0]["standard_deviation"] == pytest.approx(statistics.stdev(values[winner]))
    best = trials[str(summary["best"]["number"])]
    assert best["number"] == winner or best["repeat_of"] == winner
    assert float(best["best_val_loss"]) == min(values[winner])
    assert summary["complete"] is True
    assert f"finalist trial {winner}: val_loss {means[winner]:.4f} ± " in output
    assert f"winner   trial {winner} by the mean over its seeds; the model is its best run" in output
    manifest = json.loads((results / "best" / "manifest.json").read_text())
    assert manifest["trial_id"] == best["id"]


def test_the_prior_is_told_and_warms_the_model_alone(repeated: tuple[Path, str]) -> None:
    results, output = repeated
    assert (
        "prior    4 trials of wandb.csv; 2 left out: 1 with lr outside 0.0001 to 0.003, 1 that had not ended" in output
    )
    assert "trials   3 trials: by Gaussian process, which knows 4 prior trials (the file's run_cap)" in output
    assert "repeats  the best 2 with 2 other seeds each, after the trials" in output
    assert all(float(row["best_val_loss"]) > 0.001 for row in _trials(results))
    assert not re.search(r"spread evenly", output)


def _kill_when(line: str, command: list[str], folder: Path) -> None:
    """Run `command` until it prints `line`, a regular expression, and kill it there."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = []
    for printed in process.stdout:
        seen.append(printed)
        if re.search(line, printed):
            break
    process.kill()
    process.wait()
    process.stdout.close()
    assert re.search(line, seen[-1]), "".join(seen)


def _without_times_and_ids(trials: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key not in ("id", "seconds")} for row in trials]


def test_a_search_killed_in_its_repeats_goes_on_to_the_same_winner(repeated: tuple[Path, str], tmp_path: Path) -> None:
    _write_files(tmp_path)
    command = command_line("search", "sweep.yaml", *FLAGS, *NEW_FLAGS, "--name", "cut")
    _kill_when(r"^\[5/7\] epoch 1/2", command, tmp_path)
    (tmp_path / "wandb.csv").unlink()  # the search has kept what it needs
    done = run("search", "--resume", "--name", "cut", folder=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "prior    4 trials of wandb.csv" in done.stdout
    assert "by Gaussian process, which knows 4 prior trials" in done.stdout
    results = tmp_path / "results" / "cut"
    assert _without_times_and_ids(_trials(results)) == _without_times_and_ids(_trials(repeated[0]))
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (results, repeated[0]))
    assert ours["finalists"] == theirs["finalists"]


def test_an_earlier_search_of_ours_is_a_prior(
    repeated: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_files(tmp_path)
    old = repeated[0]
    flags = ["sweep.yaml", "--dry-run", "--prior", str(old), "--prior", str(old / "trials.csv")]
    assert run_here(search.main, flags) == 0
    output = capsys.readouterr().out
    assert f"prior    7 trials of {old}\n" in output
    assert f"prior    7 trials of {old / 'trials.csv'}\n" in output
    assert "knows 14 prior trials" in output


@pytest.mark.parametrize(
    ("sweep", "flags", "message"),
    [
        (SWEEP, ["--seeds", "2"], "--seeds says how often --repeat-best"),
        (SWEEP, ["--repeat-best", "0"], "--repeat-best: must be a whole number above 0"),
        (SWEEP + "  \n", ["--prior", "nowhere"], "--prior nowhere: there is no such file or folder"),
        (SWEEP, ["--prior", "sweep.yaml"], "--prior sweep.yaml must be a folder of results"),
        (SWEEP.replace("bayes", "random"), ["--prior", "wandb.csv"], "has `method: random`. Leave it out."),
        (SWEEP.replace("epochs:", "seed: {values: [1, 2]}\n  epochs:"), ["--repeat-best", "2"], "searches seed itself"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sweep: str,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_files(tmp_path, sweep)
    assert run_here(search.main, ["sweep.yaml", *FLAGS, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_prior_without_a_usable_trial_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_files(tmp_path)
    (tmp_path / "wandb.csv").write_text("Name,State,lr\none,finished,0.001\n")
    assert run_here(search.main, ["sweep.yaml", "--dry-run", "--prior", "wandb.csv"]) == 0
    output = capsys.readouterr().out
    assert "warning  --prior wandb.csv: no trial to learn from; 1 left out: 1 without optimizer.momentum." in output
    assert "prior " not in output.replace("--prior ", "")
