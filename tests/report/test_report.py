"""The pages as text, and the command that writes them; test_browser.py looks at them as a reader does."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.commands import environment, run_here
from tests.report.searches import (
    METRIC,
    SETTINGS,
    SWEEP,
    add_repeats,
    make_predictions,
    make_search,
    make_trials,
    publish,
)
from tune_cifar.report import __main__ as command
from tune_cifar.report.report import try_report, write_report
from tune_cifar.results import TrialRecord
from tune_cifar.trials_file import TRIALS_JSON

MAX_BYTES = 6_000_000
SCRIPT = "<script>window.wasRun = true</script>"
PLANTED = f'# {SCRIPT}\ndescription: "{SCRIPT}"\n{SWEEP}'


class Texts(HTMLParser):
    """What a reader sees of a page, and the scripts in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self._inside = ""
        self._seen: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self._seen).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self.scripts.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self._seen.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def _read(path: Path) -> Texts:
    return Texts(path.read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that is complete, with repeats, published twice, and with its report."""
    trials = make_trials()
    add_repeats(trials)
    folder = make_search(tmp_path_factory.mktemp("searches") / "resnets", trials)
    publish(folder)
    write_report(folder)
    return folder


def test_the_report_has_all_its_parts_in_one_file(finished: Path) -> None:
    page = _read(finished / "report.html")
    summary = json.loads((finished / "summary.json").read_text())
    best = summary["best"]
    parts = ("Finalists", "Best so far", "Learning curves", "Parallel coordinates", "Importance", "Correlation")
    parts += ("Trials", "Confusion matrix", "Worst mistakes", "Published", "To run it again")
    for part in parts:
        assert part in page.text
    for told in (
        "resnets complete",
        f"Best val_loss {best['val_loss']:.4f} trial {best['number']}, epoch {best['epoch']}",
        f"Validation accuracy {best['val_accuracy']:.2%}",
        f"Test accuracy {best['test_accuracy']:.2%} 600 images",
        "Trials 28 20 finished, 6 stopped, 1 diverged, 1 failed",
        f"Epochs {summary['epochs_trained']}",
        "RuntimeError: CUDA out of memory",
        "s3://models/cifar/ResNet18-a 2026-11-23 16:30 UTC",
        "sha256:0f343b0931126a20f133d67c2b018a3b",
        "torch 2.15.0",
        "# The networks of the tutorial, and what else may matter method: bayes",
    ):
        assert told in page.text
    finalist = summary["finalists"][0]
    assert f"{finalist['number']} {finalist['mean']:.4f} ± {finalist['standard_deviation']:.4f}" in page.text


def test_nothing_is_fetched_and_the_file_is_small_enough_to_send(finished: Path) -> None:
    page = _read(finished / "report.html")
    assert (finished / "report.html").stat().st_size < MAX_BYTES
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert [script.get("src") for script in page.scripts] == [None] * 4
    policy = re.search(
        r'http-equiv="Content-Security-Policy" content="([^"]*)"', (finished / "report.html").read_text()
    )
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")


def test_the_report_of_thousands_of_trials_is_small_enough_too(tmp_path: Path) -> None:
    trials = make_trials(2500, num_epochs=20)
    for trial in trials:
        trial.config |= {"weight_decay": 1e-5 * trial.number, "stem": "imagenet", "lr_schedule": "onecycle"}
        trial.message = "a long story " * 20
    best = min(trials, key=lambda trial: trial.best_value(METRIC) or 9.0)
    more = [
        "weight_decay: {min: 0, max: 0.1}",
        "stem: {values: [imagenet, cifar]}",
        "lr_schedule: {values: [onecycle]}",
    ]
    sweep = SWEEP.replace("augment:", "\n  ".join([*more, "augment:"]))
    predictions = make_predictions([f"class {number}" for number in range(100)])
    path = write_report(make_search(tmp_path / "large", trials, sweep=sweep, predictions=predictions))
    assert path.stat().st_size < MAX_BYTES
    page = path.read_text()
    assert re.search(r"Of 2,500 trials \d+ are drawn: the best one and the first", page)
    assert re.search(r"Of 2,500 trials \d+ are here: the best one and the first; trials.csv has all", page)
    assert "The best 2,000 of 2,498 are drawn." in page
    assert f'<tr data-number="{best.number}" data-status="finished" class="best">' in page


def test_the_table_says_where_trials_ran_if_not_all_in_one_place(tmp_path: Path) -> None:
    trials = make_trials(4)
    for number, trial in enumerate(trials):
        trial.where = f"node-1 GPU {number % 2}"
    assert "node-1 GPU 1" in _read(write_report(make_search(tmp_path / "two", trials))).text
    for trial in trials:
        trial.where = "node-1"
    assert "node-1" not in _read(write_report(make_search(tmp_path / "one", trials))).text


def test_what_a_file_or_a_class_is_called_is_never_run(tmp_path: Path) -> None:
    trials = make_trials(10, num_epochs=2)
    for trial in trials:
        trial.message = SCRIPT
    predictions = make_predictions(class_names=(SCRIPT, '"><img src=x onerror=alert(1)>', "fine"))
    folder = make_search(tmp_path / "planted", trials, sweep=PLANTED, predictions=predictions)
    page = _read(write_report(folder))
    assert len(page.scripts) == 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert page.text.count(SCRIPT) > 12  # the description, the sweep file, ten messages, and mistakes


def test_a_search_that_runs_says_so_and_shows_what_is_known(tmp_path: Path) -> None:
    trials = make_trials(7)
    trials[-1].status, trials[-1].epochs = "running", trials[-1].epochs[:1]
    page = _read(write_report(make_search(tmp_path / "new", trials, state="running")))
    assert re.search(r"At \d\d:\d\d:\d\d on .* the search was running: 6 of 24 trials had ended", page.text)
    assert f"--resume --results {tmp_path} --name new" in page.text
    assert "Learning curves" in page.text
    assert "Test accuracy" not in page.text
    assert "Confusion matrix" not in page.text


def test_while_a_resumed_search_runs_what_it_had_at_its_interruption_is_not_told(tmp_path: Path) -> None:
    folder = make_search(tmp_path / "cut", make_trials(9), state="interrupted")
    text = _read(write_report(folder)).text
    assert "The search was interrupted: 9 of 24 trials have ended" in text
    assert "Test accuracy" in text
    document = json.loads((folder / TRIALS_JSON).read_text())
    (folder / TRIALS_JSON).write_text(json.dumps({**document, "state": "running"}))
    text = _read(write_report(folder)).text
    assert "Still running" in text
    assert "Test accuracy" not in text


@pytest.mark.parametrize("trials", [[], make_trials(1)[:1], [make_trials(6)[5]]])
def test_a_search_of_few_trials_says_what_is_missing(tmp_path: Path, trials: list[TrialRecord]) -> None:
    text = _read(write_report(make_search(tmp_path / "few", trials))).text
    assert "It takes 8 trials with different results and a parameter that varies" in text
    assert "Parallel coordinates" not in text


def test_trials_that_never_had_a_value_are_counted_where_none_can_be_drawn(tmp_path: Path) -> None:
    trials = make_trials(8)
    for trial in trials[:2]:
        trial.status, trial.epochs = "diverged", [{**trial.epochs[0], "val_loss": math.nan, "logged": []}]
    text = _read(write_report(make_search(tmp_path / "some", trials))).text
    assert "2 trials ended before the first val_loss that could be drawn" in text
    text = _read(write_report(make_search(tmp_path / "all", trials[:2]))).text
    assert "No trial ended with a result that counts: 2 diverged." in text


def test_before_the_first_trial_there_is_a_report_too(tmp_path: Path) -> None:
    folder = make_search(tmp_path / "early", [], state="running")
    (folder / TRIALS_JSON).unlink()
    text = _read(write_report(folder)).text
    assert "No trial has started yet." in text
    assert "No trial has ended with a result yet." in text


def test_the_command_needs_neither_torch_nor_ray(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results" / finished.name
    shutil.copytree(finished, folder)
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    program = (
        "import atexit, runpy, sys; sys.argv[1:] = ['results/resnets']; "
        "atexit.register(lambda: print({'torch', 'torchvision', 'ray', 'wandb'} & set(sys.modules))); "
        "runpy.run_module('tune_cifar.report', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "report   results/resnets/report.html\nset()\n"), done.stderr
    again = (folder / "report.html").read_bytes()
    assert again.replace(b"results/resnets", str(finished).encode()) == before
    assert not list(folder.glob("*.partial"))


def _compare(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *searches: Path
) -> Texts:
    monkeypatch.chdir(folder)
    assert run_here(command.main, list(map(str, searches))) == 0
    assert capsys.readouterr().out == "report   comparison.html\n"
    return _read(folder / "comparison.html")


def test_searches_are_compared_side_by_side(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_search(tmp_path / "results" / "other", make_trials(12, seed=4))
    page = _compare(tmp_path, monkeypatch, capsys, finished, other)
    for search in (finished, other):
        best = json.loads((search / "summary.json").read_text())["best"]
        assert re.search(rf"{search.name} complete \d+ {best['val_loss']:.4f} {best['val_accuracy']:.2%}", page.text)
    assert "Accuracy of each class" in page.text
    assert "may not compare" not in page.text
    (link,) = page.links
    assert (tmp_path / link).resolve() == finished / "report.html"
    assert (tmp_path / "comparison.html").stat().st_size < MAX_BYTES


def test_what_makes_searches_hard_to_compare_is_told(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = SWEEP.replace("{name: val_loss, goal: minimize}", "{name: val_accuracy, goal: maximize}")
    classes = make_predictions(("cat", "dog"))
    fewer = dataclasses.replace(SETTINGS, train_images=500)
    folder = tmp_path / "resnets"
    other = make_search(
        folder, make_trials(9), sweep=sweep, settings=fewer, predictions=classes, fingerprint="sha256:1"
    )
    running = make_search(tmp_path / "running", make_trials(4), state="running")
    page = _compare(tmp_path, monkeypatch, capsys, finished, other, running)
    assert "different metrics (minimize val_loss, maximize val_accuracy, minimize val_loss)" in page.text
    assert "different images" in page.text
    assert "different numbers of training images (--train-images: all, 500, all)" in page.text
    best = json.loads((finished / "summary.json").read_text())["best"]
    told = (
        rf"best by its metric .* val_loss {best['val_loss']:.4f} {best['val_accuracy']:.2%} .* val_accuracy 0\.\d{{4}} "
    )
    assert re.search(told, page.text)
    assert "best of all trials, also of those that a search does not choose" in page.text
    assert "Not every search is complete" in page.text
    assert "Accuracy of each class" not in page.text
    assert "Best val_accuracy so far" in page.text
    assert f"{finished} complete" in page.text
    assert f"{other} complete" in page.text


def test_output_says_where_the_page_goes(finished: Path, tmp_path: Path) -> None:
    assert run_here(command.main, [str(finished), "--output", str(tmp_path / "mine.html")]) == 0
    assert "resnets complete" in _read(tmp_path / "mine.html").text


def _summary_of(trial_id: str) -> str:
    data = {"name": "cifar10", "fingerprint": "sha256:0", "test_images": 1}
    best = {"trial_id": trial_id, "test_accuracy": 0.5, "model": "best/a.pth"}
    return json.dumps({"best": best, "data": data, "versions": {}})


def _mistakes_of(confusion: list[list[int]]) -> str:
    return json.dumps({"class_names": ["a", "b"], "confusion": confusion, "worst": []})


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, ["results"], "results is not the folder of a search"),
        ({}, ["missing"], "missing is not the folder of a search"),
        ({"search.json": "{"}, ["old"], "search.json cannot be read"),
        ({"summary.json": "{}", TRIALS_JSON: None}, ["old"], "has no trials.json"),
        ({"summary.json": "{"}, ["old"], "summary.json cannot be read"),
        ({"summary.json": "{}"}, ["old"], "summary.json cannot be read (best: Field required; data: Field required"),
        (
            {"summary.json": _summary_of("t9999")},
            ["old"],
            "the best trial of summary.json, 't9999', is not in trials.json",
        ),
        ({"best/mistakes.json": "{"}, ["old"], "mistakes.json cannot be read"),
        ({"best/mistakes.json": _mistakes_of([[0, 0], [0, 0]])}, ["old"], "confusion must count at least one image"),
        ({"best/mistakes.json": _mistakes_of([[1]])}, ["old"], "a row and a column for each of the 2 classes"),
        ({}, ["old", "--output", "nowhere/page.html"], "Choose a file that can be written by --output"),
        ({}, ["old"] * 7, "At most 6 searches can be told apart"),
        ({}, [], "the following arguments are required"),
    ],
)
def test_a_mistake_gets_one_clear_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str | None],
    arguments: list[str],
    message: str,
) -> None:
    make_search(tmp_path / "old", make_trials(2))
    for name, text in files.items():
        if text is None:
            (tmp_path / "old" / name).unlink()
        else:
            (tmp_path / "old" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert run_here(command.main, arguments) == 2
    assert message in capsys.readouterr().err


def test_a_search_ends_well_also_where_its_report_cannot_be_written(tmp_path: Path) -> None:
    folder = make_search(tmp_path / "search", make_trials(2))
    (folder / "report.html").mkdir()
    line = try_report(folder)
    assert line.startswith("warning  the report could not be written (IsADirectoryError")
    assert line.endswith(f"try again by: python -m tune_cifar.report {folder}")
    (folder / "report.html").rmdir()
    assert try_report(folder) == f"report   {folder / 'report.html'}"


def test_settings_stand_in_the_report_as_flags(tmp_path: Path) -> None:
    settings: Any = SETTINGS.__class__(**{**vars(SETTINGS), "prior": ["a.csv", "b"], "train_images": 5000})
    text = _read(write_report(make_search(tmp_path / "search", make_trials(2), settings=settings))).text
    assert "--train-images 5000" in text
    assert "--prior a.csv, b" in text
    assert "--count" not in text
