"""Whole searches on real images (scikit-learn's digits), run as a user runs them."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torchvision

from tests.commands import REPOSITORY, command_line, environment, run, run_here, run_on_terminal
from tests.tracking.tensorboard_helpers import read_parameters, read_scalars
from tests.tracking.wandb_helpers import KEY, read_run
from tests.tracking.wandb_server import WandbServer
from tune_cifar import search
from tune_cifar.command import EXIT_TERMINATED
from tune_cifar.report.mistakes import load_mistakes
from tune_cifar.report.report import write_report
from tune_cifar.trials_file import load_trials

SWEEP = """
method: bayes
metric: {name: val_loss, goal: minimize}
parameters:
  lr: {distribution: log_uniform_values, min: 0.0003, max: 0.03}
  batch_size: {values: [16, 32]}
  model: {value: ResNet18}
  epochs: {value: 2}
run_cap: 3
"""
SMALL = ("--data", "digits", "--train-images", "100")


def _write_sweep(folder: Path, text: str = SWEEP) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def _trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One search of three trials that has ended: its folder of results, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    home = {"HOME": str(folder), "RAY_AUTH_MODE": "disabled"}
    flags = (*SMALL, "--name", "small", "--gpus-per-trial", "auto", "--publish", "models/", "--export", "onnx")
    done = run("search", _write_sweep(folder), *flags, folder=folder, **home)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return folder / "results" / "small", done.stdout


def test_summary_tells_the_best_trial_and_what_it_cost(finished: tuple[Path, str]) -> None:
    results, _ = finished
    summary = _summary(results)
    assert (summary["name"], summary["metric"], summary["mode"]) == ("small", "val_loss", "min")
    assert summary["complete"] is True
    assert summary["trials"] == {"finished": 3}
    assert summary["epochs_trained"] == 6
    assert summary["data"]["train_images"] == 100
    assert summary["data"]["fingerprint"].startswith("sha256:")
    assert {"torch", "ray", "optuna", "tune_cifar"} <= set(summary["versions"])
    rows = _trials(results)
    best = min(rows, key=lambda row: float(row["best_val_loss"]))
    assert summary["best"]["trial_id"] == best["id"]
    assert summary["best"]["val_loss"] == float(best["best_val_loss"])
    assert summary["best"]["epoch"] == int(best["best_epoch"])
    assert summary["best"]["config"]["lr"] == float(best["lr"])


def test_trials_csv_has_a_row_a_trial_with_every_parameter(finished: tuple[Path, str]) -> None:
    rows = _trials(finished[0])
    assert [row["number"] for row in rows] == ["1", "2", "3"]
    assert {row["status"] for row in rows} == {"finished"}
    for row in rows:
        assert 0.0003 <= float(row["lr"]) <= 0.03
        assert row["batch_size"] in ("16", "32")
        assert (row["model"], row["epochs"], row["seed"]) == ("ResNet18", "2", "0")
        assert float(row["seconds"]) > 0
    assert len({row["lr"] for row in rows}) == 3


def test_the_best_model_is_a_plain_state_dict_with_a_true_manifest(finished: tuple[Path, str]) -> None:
    results, _ = finished
    summary = _summary(results)
    path = results / summary["best"]["model"]
    config = summary["best"]["config"]
    assert path.name == f"ResNet18-epchs-2-bs-{config['batch_size']}-lr-{round(config['lr'], 6)}.pth"
    torchvision.models.resnet18(num_classes=10).load_state_dict(torch.load(path, weights_only=True))
    manifest = json.loads((results / "best" / "manifest.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["trial_id"] == summary["best"]["trial_id"]
    assert manifest["metric_value"] == summary["best"]["val_loss"]
    assert manifest["config"]["lr"] == config["lr"]


def test_the_best_model_is_published_when_the_search_has_ended(finished: tuple[Path, str]) -> None:
    results, output = finished
    (published,) = _summary(results)["published"]
    assert f"done     models/: is there: {published['uri']}" in output
    place = results.parents[1] / "models" / published["name"]
    best = results / _summary(results)["best"]["model"]
    assert (place / best.name).read_bytes() == best.read_bytes()
    assert published["sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()


def test_the_best_model_is_exported_before_it_is_published(finished: tuple[Path, str]) -> None:
    results, output = finished
    (published,) = _summary(results)["published"]
    exported = (results / _summary(results)["best"]["model"]).with_suffix(".onnx")
    assert "MB, predicts as torch does on 256 test images" in output
    place = results.parents[1] / "models" / published["name"]
    assert (place / exported.name).read_bytes() == exported.read_bytes()


def test_the_report_is_written_at_the_end_and_tells_where_the_model_was_published(finished: tuple[Path, str]) -> None:
    results, output = finished
    page = (results / "report.html").read_text()
    (published,) = _summary(results)["published"]
    assert output.count("report   results/small/report.html") == 1
    assert published["uri"] in page
    saved, mistakes = load_trials(results), load_mistakes(results / "best")
    assert saved is not None
    assert saved.state == "complete"
    for trial, row in zip(saved.trials, _trials(results), strict=True):
        assert (trial.trial_id, trial.status, len(trial.epochs)) == (row["id"], row["status"], 2)
        first, second = (epoch["reported_at"] for epoch in trial.epochs)
        assert 0 < second - first < 600
    assert mistakes is not None
    accuracy = 1 - mistakes.num_wrong / mistakes.num_images
    assert accuracy == pytest.approx(_summary(results)["best"]["test_accuracy"])


def test_a_wrong_target_ends_a_search_before_it_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    arguments = [str(_write_sweep(tmp_path)), *SMALL, "--results", str(results), "--publish", "modles"]
    assert run_here(search.main, arguments) == 2
    assert "'modles': not a target" in capsys.readouterr().err
    assert not results.exists()


def test_an_export_is_planned_and_what_it_lacks_is_told_before_the_search_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(_write_sweep(tmp_path)), *SMALL, "--results", str(tmp_path / "results"), "--export", "onnx"]
    assert run_here(search.main, [*arguments, "--dry-run"]) == 0
    assert "export   at the end the best model as ONNX" in capsys.readouterr().out
    monkeypatch.setattr("tune_cifar.publish.onnx_export.find_spec", lambda name: None)
    assert run_here(search.main, arguments) == 2
    assert "pip install 'tune-cifar[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_output_says_what_was_chosen_and_what_comes_next(finished: tuple[Path, str]) -> None:
    results, output = finished
    assert "digits: 100 training, 144 validation, 359 test images" in output
    assert re.search(r"trials +3 trials: 2 spread evenly, then", output)
    assert "no key for" in output
    assert len(re.findall(r"^\[\d/3\] started: ", output, re.MULTILINE)) == 3
    assert len(re.findall(r"^\[\d/3\] finished: val_loss \d", output, re.MULTILINE)) == 3
    assert len(re.findall(r"^\[\d/3\] epoch [12]/2: val_loss \S+$", output, re.MULTILINE)) == 6
    assert len([line for line in output.splitlines() if line.startswith("[")]) == 3 + 3 + 6
    assert "\x1b" not in output
    assert "wandb    project tune-cifar of your default entity" in output
    assert f"python -m tune_cifar.evaluate results/small/{_summary(results)['best']['model']} --data digits" in output
    assert "wandb sync results/small/wandb" in output


def test_auto_is_kept_as_a_number_and_is_silent_without_a_gpu(finished: tuple[Path, str]) -> None:
    results, output = finished
    gpus_per_trial = json.loads((results / "search.json").read_text())["gpus_per_trial"]
    if torch.cuda.is_available():
        assert gpus_per_trial in (1.0, 0.5, 0.25, 0.125)
        assert re.search(r"sharing +(one trial|[248] trials) a GPU: ", output)
    else:
        assert gpus_per_trial == 0.0
        assert "sharing" not in output
        assert "MPS" not in output


def test_evaluate_as_printed_gives_the_same_test_accuracy(finished: tuple[Path, str]) -> None:
    results, output = finished
    (command,) = re.findall(r"next +python -m tune_cifar\.evaluate (.*)", output)
    done = run("evaluate", *command.split(), folder=results.parent.parent)
    assert done.returncode == 0, done.stderr
    accuracy = _summary(results)["best"]["test_accuracy"]
    assert f"accuracy {accuracy:.4f} on 359 images of digits" in done.stdout
    assert f"{accuracy:.4f} when it was written" in done.stdout


def test_train_as_printed_repeats_the_best_trial_to_the_digit(finished: tuple[Path, str]) -> None:
    results, output = finished
    (command,) = re.findall(r"python -m tune_cifar\.train (.*)", output)
    done = run("train", *command.split(), folder=results.parent.parent)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((results.parent / "train" / "manifest.json").read_text())
    last_epoch = _rows_of_trial(results, _summary(results)["best"]["trial_id"])[-1]
    assert manifest["scores"]["val_loss"] == last_epoch["val_loss"]
    assert manifest["scores"]["val_accuracy"] == last_epoch["val_accuracy"]


def _rows_of_trial(results: Path, trial_id: str) -> list[dict[str, Any]]:
    path = results / "ray" / f"trial-{trial_id}" / "result.json"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_trial_is_one_complete_wandb_run(finished: tuple[Path, str]) -> None:
    results, _ = finished
    files = sorted(results.glob("wandb/*/run-*.wandb"))
    # The best trial's run has a second file, written later, which adds its mark.
    runs = {path.stem.removeprefix("run-"): read_run(path) for path in reversed(files)}
    assert (len(files), len(runs)) == (4, 3)
    for trial in _trials(results):
        run = next(run for run_id, run in runs.items() if trial["id"] in run_id)
        assert run.exit_code == 0
        assert run.config["lr"] == float(trial["lr"])
        logged = [row["val_loss"] for _, row in sorted(run.rows.items()) if "val_loss" in row]
        epochs = _rows_of_trial(results, trial["id"])
        assert logged == [epoch["val_loss"] for epoch in epochs]
        names = {name for row in run.rows.values() for name in row}
        assert {
            "train_loss",
            "epoch",
            "val_accuracy",
            "epoch_runtime (seconds)",
            "avg epoch runtime (seconds)",
        } <= names


def test_each_trial_is_one_tensorboard_run(finished: tuple[Path, str]) -> None:
    results, _ = finished
    assert not list(results.glob("ray/**/events.out.*"))
    runs = {path.name.partition("-")[0]: path for path in (results / "tensorboard").iterdir()}
    assert len(runs) == 3
    for trial in _trials(results):
        run = runs[trial["number"]]
        assert re.fullmatch(r"\d-lr\S+-bs(16|32)", run.name)
        scalars = read_scalars(run)
        tags = {"train_loss", "val_loss", "val_accuracy", "lr", "epoch_runtime_seconds", "best_val_loss"}
        assert set(scalars) == tags
        epochs = _rows_of_trial(results, trial["id"])
        assert scalars["val_loss"] == {row["epoch"]: pytest.approx(row["val_loss"]) for row in epochs}
        assert scalars["best_val_loss"][2] == pytest.approx(float(trial["best_val_loss"]))
        parameters = read_parameters(run)
        assert (parameters["lr"], parameters["batch_size"]) == (float(trial["lr"]), int(trial["batch_size"]))


def test_the_printed_command_uploads_everything_also_from_a_copy(finished: tuple[Path, str], tmp_path: Path) -> None:
    results, output = finished
    shutil.copytree(results, tmp_path / "results" / "small")
    (command,) = re.findall(r"^wandb +(wandb sync .*)$", output, re.MULTILINE)
    tool, *arguments = shlex.split(command)
    with WandbServer() as server:
        variables = environment(WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY, WANDB_ERROR_REPORTING="false")
        path = Path(sys.executable).parent / tool
        subprocess.run([path, *arguments], cwd=tmp_path, env=variables, check=True, capture_output=True)
    best = _summary(results)["best"]
    assert len(server.runs) == 3
    for trial in _trials(results):
        served = server.runs[f"small-{trial['id']}"]
        is_best = trial["id"] == best["trial_id"]
        assert served.exit_code == 0
        assert [row["val_loss"] for row in served.metrics] == [
            epoch["val_loss"] for epoch in _rows_of_trial(results, trial["id"])
        ]
        assert served.display_name.startswith(f"{trial['number']}-lr")
        assert (served.group, served.tags) == ("small", ["bayes", "digits"] + ["best"] * is_best)
        assert served.summary.get("Notes") == (Path(best["model"]).stem if is_best else None)
        assert served.summary["best_val_loss"] == float(trial["best_val_loss"])
    (artifact,) = server.artifacts
    assert (artifact.name, artifact.kind, artifact.committed) == ("cifar10_image_predictions", "predictions", True)
    assert artifact.run_id == f"small-{best['trial_id']}"
    table = json.loads(artifact.files["cifar10_predictions.table.json"])
    assert len(table["data"]) == 128
    assert {image["path"] for image, *_ in table["data"]} < set(artifact.files)


def test_a_name_is_used_once(finished: tuple[Path, str]) -> None:
    folder = finished[0].parent.parent
    done = run("search", folder / "sweep.yaml", *SMALL, "--name", "small", folder=folder)
    assert done.returncode == 2
    assert done.stderr == (
        "error: results/small exists. Go on with that search by --resume --name small, or choose another --name.\n"
    )


def test_resuming_a_finished_search_runs_nothing_and_keeps_its_results(finished: tuple[Path, str]) -> None:
    results, _ = finished
    before = _trials(results)
    done = run("search", "--resume", "--name", "small", folder=results.parent.parent)
    assert done.returncode == 0, done.stderr
    assert "started:" not in done.stdout
    assert _trials(results) == before


def test_a_resume_cannot_change_the_search(finished: tuple[Path, str]) -> None:
    folder = finished[0].parent.parent
    done = run("search", "--resume", "--name", "small", "--seed", "7", "--data", "cifar10", folder=folder)
    assert done.returncode == 2
    assert "--data was digits and is now cifar10; --seed was 0 and is now 7" in done.stderr


LONG_SWEEP = SWEEP.replace("epochs: {value: 2}", "epochs: {value: 4}").replace("run_cap: 3", "run_cap: 4")
LONG = ("--data", "digits", "--train-images", "250")  # epochs long enough to be seen under way


@pytest.fixture
def start_long_search(tmp_path: Path) -> Iterator[Any]:
    """Start or resume a search of four trials of four epochs, one at a time, and wait until trial `running` runs."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *flags: str, running: int = 2) -> subprocess.Popen[str]:
        what = () if "--resume" in flags else (_write_sweep(tmp_path, LONG_SWEEP), *LONG, "--trials-at-once", "1")
        process = subprocess.Popen(
            command_line("search", *what, "--name", name, *flags),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            ended = list((tmp_path / "results" / name).glob("ray/trial-*/checkpoint_000003"))
            under_way = list((tmp_path / "results" / name).glob("ray/trial-*/checkpoint_00000[012]"))
            if len(ended) >= running - 1 and len({path.parent for path in ended + under_way}) >= running:
                return process
            time.sleep(0.05)
        process.kill()
        pytest.fail(f"the search did not get to its trial {running}: {process.communicate()}")

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def on_a_terminal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The long search when nothing happens to it, on a terminal: its folder of results, and all that was drawn."""
    folder = tmp_path_factory.mktemp("undisturbed")
    flags = (*LONG, "--name", "long", "--trials-at-once", "1", "--wandb", "disabled")
    home = {"HOME": str(folder), "RAY_AUTH_MODE": "disabled", "COLUMNS": "120"}
    exit_code, drawn = run_on_terminal("search", _write_sweep(folder, LONG_SWEEP), *flags, folder=folder, **home)
    assert exit_code == 0, drawn
    return folder / "results" / "long", drawn


@pytest.fixture(scope="module")
def undisturbed(on_a_terminal: tuple[Path, str]) -> list[dict[str, str]]:
    """The trials of the long search when nothing happens to it."""
    return _trials(on_a_terminal[0])


def test_a_terminal_shows_the_progress_of_running_epochs(on_a_terminal: tuple[Path, str]) -> None:
    drawn = on_a_terminal[1]
    assert "\x1b[" in drawn
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    rows = [
        (int(match["epoch"]), int(match["percent"]), float(match["speed"]))
        for match in re.finditer(
            r"^\d +running .* (?P<epoch>\d)/4 +━\S+ +(?P<percent>\d+)% +(?P<speed>[\d,]+) ", text, re.MULTILINE
        )
    ]
    assert {epoch for epoch, _, _ in rows} <= {1, 2, 3, 4}
    assert any(0 < percent <= 100 and speed > 0 for _, percent, speed in rows), rows
    last_table = text.rpartition("status")[2]
    assert len(re.findall(r"^\d +finished .* 4/4 ", last_table, re.MULTILINE)) == 4
    assert "%" not in last_table
    assert "Traceback" not in text


def _without_times_and_ids(trials: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key not in ("id", "seconds")} for row in trials]


def _is_read_as(results: Path, state: str) -> None:
    saved = load_trials(results)
    assert saved is not None
    assert saved.state == state
    assert saved.trials[0].status == "finished"
    assert state in write_report(results).read_text()


def test_a_search_that_is_ended_twice_goes_on_to_the_same_results(
    start_long_search: Any, undisturbed: list[dict[str, str]], tmp_path: Path
) -> None:
    results = tmp_path / "results" / "cut"
    process = start_long_search("cut")
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_TERMINATED, errors + output
    assert "SIGTERM  the search ends within 30s; " in output
    assert "go on with: python -m tune_cifar.search --resume --results results --name cut" in output
    assert "Traceback" not in errors
    assert _summary(results)["stopped_by"] == "SIGTERM"
    assert _summary(results)["complete"] is False
    assert _trials(results)[0]["status"] == "finished"
    _is_read_as(results, "interrupted")
    process = start_long_search("cut", "--resume", running=3)
    process.kill()
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    _is_read_as(results, "running")
    done = run("search", "--resume", "--name", "cut", "--quiet", folder=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert _summary(results)["complete"] is True
    assert done.stdout.lstrip().startswith("trials   4 finished; all of them in ")
    assert _without_times_and_ids(_trials(results)) == _without_times_and_ids(undisturbed)
    for trial in _trials(results):
        logged = read_run(min(results.glob(f"wandb/*/run-*{trial['id']}.wandb")))
        epochs = {row["epoch"]: row["val_loss"] for row in _rows_of_trial(results, trial["id"])}
        assert [row["val_loss"] for _, row in sorted(logged.rows.items())] == [epochs[epoch] for epoch in (1, 2, 3, 4)]
        assert (logged.num_rows, logged.exit_code) == (4, 0)
        (run_folder,) = results.glob(f"tensorboard/{trial['number']}-*")
        points = read_scalars(run_folder)["val_loss"]
        assert points == {epoch: pytest.approx(epochs[epoch]) for epoch in (1, 2, 3, 4)}


def _worker_of(process: subprocess.Popen[str]) -> psutil.Process:
    """The one process that trains for a search: Ray's actor among its descendants."""
    (worker,) = (
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if any("ImplicitFunc" in part for part in child.cmdline())
    )
    return worker


def test_a_trial_whose_process_dies_is_failed_and_the_search_goes_on(start_long_search: Any, tmp_path: Path) -> None:
    process = start_long_search("hit", "--max-failures", "0")
    _worker_of(process).kill()
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors + output
    results = tmp_path / "results" / "hit"
    trials = _trials(results)
    assert [trial["status"] for trial in trials] == ["finished", "failed", "finished", "finished"]
    assert trials[1]["message"]
    assert f"failed   trial 2: {trials[1]['message']}" in output
    runs = {trial["id"]: read_run(next(results.glob(f"wandb/*/run-*{trial['id']}*.wandb"))) for trial in trials}
    assert [runs[trial["id"]].exit_code for trial in trials] == [0, 1, 0, 0]


def test_trials_that_are_stopped_or_diverge_are_told_apart_with_the_reason(tmp_path: Path) -> None:
    text = "method: grid\nmetric: {name: val_loss}\nearly_terminate: {type: hyperband, min_iter: 1}\n"
    text += "parameters: {lr: {values: [0.0005, 1.0, 1.0e+30]}, epochs: {value: 2}}\n"
    flags = (*SMALL, "--name", "wild", "--wandb", "disabled", "--trials-at-once", "1")
    done = run("search", _write_sweep(tmp_path, text), *flags, folder=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    good, worse, wild = _trials(tmp_path / "results" / "wild")
    assert (good["status"], good["epochs_trained"]) == ("finished", "2")
    assert (worse["status"], worse["epochs"], worse["epochs_trained"]) == ("stopped", "2", "1")
    assert worse["message"].startswith("stopped at band 1: val_loss")
    assert worse["message"] in done.stdout
    assert (wild["status"], wild["best_val_loss"]) == ("diverged", "")
    assert re.fullmatch(r"diverged: (train|val)_loss is nan .*epoch.*", wild["message"])
    assert _summary(tmp_path / "results" / "wild")["trials"] == {"finished": 1, "stopped": 1, "diverged": 1}


@pytest.mark.parametrize(
    ("sweep", "flags", "message"),
    [
        (None, ["missing.yaml"], "missing.yaml"),
        ("", ["sweep.yaml"], "empty"),
        ("method: [", ["sweep.yaml"], "sweep.yaml:1"),
        ("just a text", ["sweep.yaml"], "sweep.yaml"),
        (SWEEP.replace("lr:", "lrr:"), ["sweep.yaml"], "did you mean 'lr'"),
        (SWEEP.replace("ResNet18", "VGG16"), ["sweep.yaml"], "must be a torchvision ResNet, got 'VGG16'"),
        (SWEEP.replace("val_loss", "val_los"), ["sweep.yaml"], "val_los"),
        (SWEEP, ["sweep.yaml", "--data", "nowhere"], "nowhere"),
        (SWEEP, ["sweep.yaml", "--data", "empty"], "empty"),
        (SWEEP, ["sweep.yaml", "--data", "digits", "--train-images", "5000"], "must be from 10 to"),
        (SWEEP, ["sweep.yaml", "--data", "digits", "--train-images", "0"], "--train-images"),
        (SWEEP, ["sweep.yaml", "--data", "digits", "--count", "-1"], "--count"),
        (SWEEP, ["sweep.yaml", "--data", "digits", "--name", "../up"], "--name '../up' must be at most"),
        (SWEEP, ["sweep.yaml", "--data", "digits", "--wandb", "online"], "there is no W&B key"),
        (SWEEP, ["sweep.yaml", "--dry-run", "--cpus-per-trial", "1000"], "No machine can hold a trial"),
        (SWEEP, ["sweep.yaml", "--dry-run", "--gpus-per-trial", "all"], "must be a number, 0 or above, or auto"),
        (SWEEP, ["sweep.yaml", "--dry-run", "--prediction-images", "-1"], "must be a whole number, 0 or above, or all"),
        (SWEEP, ["--resume"], "There is no search in results to resume"),
        (SWEEP, ["--resume", "--name", "unknown"], "is not the folder of a search"),
    ],
)
def test_a_mistake_gets_one_clear_message(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    sweep: str | None,
    flags: list[str],
    message: str,
) -> None:
    if sweep is not None:
        _write_sweep(tmp_path, sweep)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_here(search.main, flags) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.startswith(("error: ", "usage: "))
    assert not list(tmp_path.glob("results/*"))


def test_a_mistake_ends_the_process_with_2_and_no_traceback(tmp_path: Path) -> None:
    done = run("search", _write_sweep(tmp_path, SWEEP.replace("lr:", "lrr:")), folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr + done.stdout


def test_dry_run_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(search.main, [str(_write_sweep(tmp_path)), "--dry-run", "--gpus-per-trial", "auto"]) == 0
    told = "sharing  auto is measured when the search starts" in capsys.readouterr().out
    assert told == torch.cuda.is_available()


def test_dry_run_prints_the_plan_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(search.main, [str(REPOSITORY / "configs" / "sweep.yaml"), "--dry-run"]) == 0
    output = capsys.readouterr().out
    for text in ("batch_size", "0.0001 to 0.01", "10 trials", "cifar10", "Nothing was started"):
        assert text in output
    assert list(tmp_path.iterdir()) == []


def test_dry_run_says_what_would_be_published_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    targets = ["--publish", "models/", "--publish", "s3://bucket/p?endpoint_override=minio:9"]
    assert run_here(search.main, [str(_write_sweep(tmp_path)), "--dry-run", *targets]) == 0
    output = capsys.readouterr().out
    assert "publish  at the end the best model as .pth and .safetensors, a model card and manifest.json\n" in output
    assert "would    models/: to models/<model>-epchs-<n>-bs-<n>-lr-<x>/\n" in output
    place = "s3://bucket/p/<model>-epchs-<n>-bs-<n>-lr-<x>/ at https://minio:9\n"
    assert f"would    s3://bucket/p?…: to {place}" in output
    assert "planted" not in output
    assert not (tmp_path / "models").exists()


def test_the_tutorials_sweep_runs_on_real_images(tmp_path: Path, real_cifar10: Path) -> None:
    flags = ("--data", real_cifar10, "--train-images", "256", "--count", "1", "--wandb", "disabled")
    done = run("search", REPOSITORY / "configs" / "sweep.yaml", *flags, "--name", "real", folder=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    (trial,) = _trials(tmp_path / "results" / "real")
    assert (trial["status"], trial["epochs"]) == ("finished", "5")
    summary = _summary(tmp_path / "results" / "real")
    assert (summary["data"]["validation_images"], summary["data"]["test_images"]) == (5000, 10000)
    assert summary["best"]["test_accuracy"] > 0.1


TARGET_SWEEP = """
method: random
metric: {name: val_accuracy, goal: maximize, target: 0.01}
parameters: {lr: {min: 0.001, max: 0.002}, epochs: {value: 2}}
run_cap: 5
"""
HOPELESS_SWEEP = "method: grid\nparameters: {lr: {values: [1.0e+30]}, epochs: {value: 1}}\n"


@pytest.fixture(scope="module")
def at_the_same_time(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, subprocess.CompletedProcess[str]]]:
    """Two searches that run side by side: one reaches its target in the first trial, in the other nothing finishes."""
    folder = tmp_path_factory.mktemp("two")
    ray_folder = tempfile.mkdtemp(prefix="ray")  # short: the names of Ray's sockets are below it
    processes = {}
    for name, text in {"target": TARGET_SWEEP, "hopeless": HOPELESS_SWEEP}.items():
        sweep = folder / f"{name}.yaml"
        sweep.write_text(text)
        flags = (*SMALL, "--name", name, "--wandb", "disabled", "--trials-at-once", "1")
        processes[name] = subprocess.Popen(
            command_line("search", sweep, *flags),
            cwd=folder,
            # Each looks for a Ray to join, as it does for a user, but not among those of other tests.
            env=environment(HOME=str(folder), RAY_AUTH_MODE="disabled", RAY_ADDRESS="", RAY_TMPDIR=ray_folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    ended = {}
    for name, process in processes.items():
        output, errors = process.communicate(timeout=300)
        ended[name] = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    shutil.rmtree(ray_folder, ignore_errors=True)
    return folder / "results", ended


def test_two_searches_at_once_do_not_share_a_ray(at_the_same_time: tuple[Path, Any]) -> None:
    results, ended = at_the_same_time
    assert all("a Ray of its own" in done.stdout for done in ended.values()), ended
    assert {path.name for path in results.iterdir()} == {"target", "hopeless"}


def test_the_search_ends_at_the_target(at_the_same_time: tuple[Path, Any]) -> None:
    results, ended = at_the_same_time
    assert ended["target"].returncode == 0, ended["target"]
    (trial,) = _trials(results / "target")
    assert (trial["status"], trial["epochs_trained"], trial["message"]) == ("stopped", "1", "reached the target 0.01")
    summary = _summary(results / "target")
    assert summary["complete"] is True
    assert summary["best"]["epoch"] == 1


def test_a_search_in_which_nothing_finishes_exits_with_1(at_the_same_time: tuple[Path, Any]) -> None:
    results, ended = at_the_same_time
    assert ended["hopeless"].returncode == 1, ended["hopeless"]
    assert "best     none: no trial finished" in ended["hopeless"].stdout
    assert _summary(results / "hopeless")["best"] is None
