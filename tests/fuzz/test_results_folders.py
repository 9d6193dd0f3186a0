"""Damaged files in the folder of a search: whatever reads it works on, or says which file is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import torch

from tests.fuzz.mutations import damaged_bytes, damaged_value
from tests.fuzz.outcomes import cases, check_message, outcome, within_time
from tests.report.searches import SWEEP, add_repeats, make_search, make_trials, publish
from tune_cifar import evaluate, export, search
from tune_cifar.errors import UserError
from tune_cifar.publish import __main__ as publish_command
from tune_cifar.publish.best_model import write_model
from tune_cifar.report import __main__ as report
from tune_cifar.report.comparison import make_comparison
from tune_cifar.report.report import make_page
from tune_cifar.report.search_files import read_search
from tune_cifar.settings import SETTINGS_FILE, SWEEP_SHA256, SearchSettings
from tune_cifar.sweep.prior import Prior, save_prior
from tune_cifar.sweep.searcher import PriorTrial
from tune_cifar.trial.config import TrialConfig

SAVED = ("search.json", "trials.json", "summary.json", "published.json", "prior.json", "best/mistakes.json")
POINT = {"model": 0, "batch_size": 1, "optimizer/lr": 0.001, "optimizer/momentum": 0.9, "augment": 1}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with every file that one can have."""
    trials = make_trials(7, 3)  # too few for a random forest, which takes longer than all else together
    add_repeats(trials)
    settings = SearchSettings("digits", 100, None, 0, None, None, 2, "auto", prior=["old"], repeat_best=2, seeds=2)
    folder = make_search(tmp_path_factory.mktemp("results") / "healthy", trials, settings=settings)
    publish(folder)
    save_prior(folder, Prior((PriorTrial(POINT, 0.5),), ("1 trial of old",), ()))
    write_model(
        folder / "best",
        {"layer.weight": torch.arange(12.0).reshape(3, 4)},
        config=TrialConfig(lr=0.1),
        trial_id="t0001",
        epoch=1,
        metric="val_loss",
        metric_value=0.5,
        scores={"test_accuracy": 0.5},
        class_names=tuple("0123456789"),
        data="digits",
        data_fingerprint="sha256:1",
        versions={"torch": "2"},
    )
    return folder


@pytest.fixture
def broken(healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to be damaged, in `results` of the working folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(healthy, "results/broken"))


def damage(random: Random, healthy: Path, broken: Path, names: Sequence[str]) -> str:
    """Put every file right and then damage one, in its bytes or in its values."""
    for name in names:
        shutil.copyfile(healthy / name, broken / name)
    name = random.choice(names)
    path = broken / name
    if random.random() < 0.35:
        path.write_bytes(damaged_bytes(random, path.read_bytes()))
    else:
        path.write_text(json.dumps(damaged_value(random, json.loads(path.read_text()))))
    return name


def test_reports_of_damaged_searches(healthy: Path, broken: Path) -> None:
    told = []
    for random in cases(200):
        name = damage(random, healthy, broken, SAVED)
        with within_time(name):
            try:
                found = read_search(broken)
                make_page(found)
                if random.random() < 0.25:
                    make_comparison([found, found], broken)
            except UserError as error:
                check_message(str(error), broken)
                told.append(name)
    assert {"search.json", "trials.json", "summary.json", "published.json", "best/mistakes.json"} <= set(told)


def test_commands_on_damaged_searches(healthy: Path, broken: Path) -> None:
    codes: set[tuple[str, int]] = set()
    names = (*SAVED, "best/manifest.json")
    for random in cases(80):
        name = damage(random, healthy, broken, names)
        commands = {
            "publish": (publish_command.main, ["results/broken", "--to", "models/", "--dry-run"]),
            "resume": (search.main, ["--resume", "--name", "broken", "--dry-run"]),
            "evaluate": (evaluate.main, ["results/broken", "--data", "digits"]),
            "export": (export.main, ["results/broken", "onnx"]),
        }
        if name not in ("search.json", "best/manifest.json"):
            del commands["evaluate"], commands["export"]
        for command, (main, arguments) in commands.items():
            codes.add((command, outcome(main, arguments)[0]))
    assert codes >= {("publish", 0), ("publish", 2), ("resume", 0), ("resume", 2), ("evaluate", 2), ("export", 2)}
    assert ("evaluate", 0) not in codes


def test_publishing_damaged_searches(healthy: Path, broken: Path) -> None:
    names = ("published.json", "summary.json", "best/manifest.json", "search.json")
    codes = set()
    for random in cases(60):
        damage(random, healthy, broken, names)
        codes.add(outcome(publish_command.main, ["results/broken", "--to", "models/"], allowed=(0, 1, 2))[0])
    assert {0, 2} <= codes


def test_the_report_command_on_damaged_searches(healthy: Path, broken: Path) -> None:
    for random in cases(12):
        damage(random, healthy, broken, SAVED)
        outcome(report.main, ["results/broken"])


def test_damaged_priors(healthy: Path, broken: Path) -> None:
    """Tables of our own and of W&B, as --prior takes them."""
    runs = [{"config": {"lr": 0.01, "model": "ResNet18"}, "summary": {"val_loss": 0.5}, "state": "finished"}] * 3
    own = "number,id,status,repeat_of,lr,model,best_val_loss\n1,a,finished,,0.01,ResNet18,0.5\n"
    files = {
        "runs.json": json.dumps(runs).encode(),
        "runs.jsonl": "\n".join(map(json.dumps, runs)).encode(),
        "trials.csv": own.encode(),
    }
    sweep = (
        "method: bayes\nmetric: {name: val_loss}\nparameters: {lr: {min: 0.001, max: 0.1}, model: {value: ResNet18}}\n"
    )
    Path("sweep.yaml").write_text(sweep)
    codes = set()
    for random in cases(200):
        name = random.choice(sorted(files))
        content = damaged_bytes(random, files[name])
        if name == "runs.json" and random.random() < 0.5:
            content = json.dumps(damaged_value(random, runs)).encode()
        Path(name).write_bytes(content)
        codes.add(outcome(search.main, ["sweep.yaml", "--dry-run", "--prior", name])[0])
    assert codes == {0, 2}


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "missing"])
@pytest.mark.parametrize("name", [*SAVED, "sweep.yaml", "best/manifest.json", "best"])
def test_entries_of_a_search_that_are_no_files(healthy: Path, broken: Path, name: str, kind: str) -> None:
    import os

    path = broken / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
    outcome(report.main, ["results/broken"])
    outcome(publish_command.main, ["results/broken", "--to", "models/", "--dry-run"])
    outcome(search.main, ["--resume", "--name", "broken", "--dry-run"])
    outcome(evaluate.main, ["results/broken", "--data", "digits"])


def test_the_sweep_file_of_a_search_is_checked_again(healthy: Path, broken: Path) -> None:
    # A search of an earlier version: it kept no checksum of the file.
    settings = json.loads((broken / SETTINGS_FILE).read_text())
    (broken / SETTINGS_FILE).write_text(json.dumps({**settings, SWEEP_SHA256: None}))
    for random in cases(40):
        (broken / "sweep.yaml").write_bytes(damaged_bytes(random, SWEEP.encode()))
        outcome(search.main, ["--resume", "--name", "broken", "--dry-run"])
        try:
            make_page(read_search(broken))
        except UserError as error:
            check_message(str(error), broken)
