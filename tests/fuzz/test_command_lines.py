"""Any flag with any value: a command does what was asked for, or says in one message what is wrong with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.commands import command_line, environment
from tests.fuzz.outcomes import Command, cases, check_message, outcome
from tune_cifar import evaluate, export, search, train
from tune_cifar.publish import __main__ as publish_command
from tune_cifar.report import __main__ as report

SWEEP = "method: bayes\nmetric: {name: val_loss}\nparameters: {lr: {min: 0.001, max: 0.1}, epochs: {value: 1}}\n"

VALUES: Sequence[str] = (
    *("", " ", "0", "-0", "1", "2", "-1", "3.7", "1e3", "1e999", "-1e999", "nan", "inf", "1_000", "٣", "0x10", "1,5"),
    *("9" * 19, "9" * 40, "9" * 400, "9" * 5000, "1e-320", "1e308", "true", "None", "auto", "all", "digits", "cifar10"),
    *("/", "//", ".", "..", "~", "~nobody", "/dev/null", "/dev/full", "results", "sweep.yaml", "missing", "a/b/c", "é"),
    *(
        "\udcff\udcfe",
        "a\nb",
        "\x1b[31m",
        "{x}",
        "%s",
        "$HOME",
        "*",
        "x" * 300,
        "x" * 3_000,
        "-",
        "--",
        "@sweep.yaml",
    ),
    *(
        "s3://",
        "s3:///",
        "s3://a b/c",
        "s3://b/../c",
        "gs://",
        "hf://",
        "hf://a",
        "hf://a/b/c",
        "wandb",
        "wandb:a",
        "gradient",
    ),
    *("paperspace:", "paperspace:s3://", "file://", "file:///", "http://[", "x://y", "://", "ResNet18", "vgg", "bf16"),
)

FLAGS: dict[str, tuple[str, ...]] = {
    "search": (
        *("--data", "--train-images", "--count", "--name", "--results", "--trials-at-once", "--cpus-per-trial"),
        *("--gpus-per-trial", "--precision", "--repeat-best", "--seeds", "--prior", "--seed", "--wandb-project"),
        *("--wandb-entity", "--wandb", "--prediction-images", "--resume", "--publish", "--quiet", "--gradient-project"),
        *("--storage-provider", "--wandb-registry", "--unknown", "--re"),
    ),
    "train": (
        *("--model", "--lr", "--batch-size", "--epochs", "--momentum", "--weight-decay", "--nesterov", "--no-nesterov"),
        *("--label-smoothing", "--augment", "--lr-schedule", "--stem", "--precision", "--seed", "--train-images"),
        *("--cpu-threads", "--output", "--unknown"),
    ),
    "evaluate": ("--data", "--train-images", "--model", "--stem", "--cpu-threads"),
    "export": ("--data", "--cpu-threads"),
    "publish": ("--to", "--again", "--gradient-project", "--storage-provider", "--wandb-registry"),
    "report": ("--output",),
}
WITHOUT_VALUE = ("--resume", "--quiet", "--nesterov", "--no-nesterov", "--again")
MAINS: dict[str, Command] = {
    "search": search.main,
    "train": train.main,
    "evaluate": evaluate.main,
    "export": export.main,
    "publish": publish_command.main,
    "report": report.main,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a sweep file, where no flag can reach a network."""
    monkeypatch.chdir(tmp_path)
    # Nobody listens there: what would ask a server for a model is told so at once.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def flags_of(random: Random, command: str, most: int = 4) -> list[str]:
    """Some flags of `command`, each with a value of any kind."""
    words = []
    for flag in random.sample(FLAGS[command], min(len(FLAGS[command]), random.randint(1, most))):
        words += [flag] if flag in WITHOUT_VALUE else [f"{flag}={random.choice(VALUES)}"]
    return words


@pytest.mark.timeout(300)
def test_searches_of_any_flags(folder: Path) -> None:
    codes = set()
    for random in cases(300):
        file = ["sweep.yaml"] if random.random() < 0.9 else random.sample(VALUES, 1)
        arguments = [*flags_of(random, "search"), "--dry-run", "--", *file]
        codes.add(outcome(search.main, arguments)[0])
    assert codes == {0, 2}


@pytest.mark.parametrize("command", ["train", "evaluate", "export", "publish", "report"])
@pytest.mark.timeout(300)
def test_other_commands_of_any_flags(folder: Path, command: str) -> None:
    """Their data or their search is missing, so that none of them gets to work."""
    offline = [value for value in VALUES if not value.startswith(("hf://a/", "s3://", "gs://", "wandb:"))]
    for random in cases(80):
        words = {
            "train": ["--data", "missing"],
            "evaluate": ["--", random.choice(offline)],
            "export": ["--", random.choice(offline), random.choice(["onnx", "", "x"])],
            "publish": ["--dry-run", "--", random.choice(offline)],
            "report": ["--", *random.sample(offline, random.randint(1, 3))],
        }
        outcome(MAINS[command], [*flags_of(random, command), *words[command]], allowed=(2,))


REAL: Sequence[tuple[str, list[str]]] = (
    ("search", ["/dev/zero"]),
    ("search", ["pipe.yaml"]),
    ("search", [".", "--dry-run"]),
    ("search", ["sweep.yaml", "--count", "0"]),
    ("search", ["sweep.yaml", "--data", "missing"]),
    ("search", ["--resume", "--results", "missing"]),
    ("search", ["sweep.yaml", "--dry-run", "--results", "\udcff"]),
    ("train", ["--epochs", "9" * 400]),
    ("train", ["--data", "digits", "--output", "sweep.yaml"]),
    ("evaluate", ["pipe.yaml"]),
    ("publish", ["missing", "--to", "models/"]),
    ("report", ["missing", "\udcff"]),
)


@pytest.mark.parametrize("number", range(len(REAL)))
def test_commands_in_processes_of_their_own(folder: Path, number: int) -> None:
    """What the same process cannot show: streams of a terminal, and an end that never comes."""
    os.mkfifo("pipe.yaml")
    module, arguments = REAL[number]
    done = subprocess.run(
        command_line(module, *arguments),
        cwd=folder,
        env=environment(PYTHONIOENCODING="ascii:strict"),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=240,
        check=False,
    )
    assert done.returncode == (0 if "--results" in arguments and "--dry-run" in arguments else 2), done.stderr
    if done.returncode:
        check_message(done.stderr, arguments)
        assert "error: " in done.stderr
