"""Keeps the README true: every command in it is run by a test or by CI, and every file it names is there."""

from __future__ import annotations

import re

from tests.commands import REPOSITORY

RUN_BY = {
    "make search": ".ci/run",
    "make test": ".ci/run",
    "source .venv/bin/activate": "the way tests run, with that environment's python",
    "python -m tune_cifar.search configs/sweep.yaml --dry-run": "test_search.py",
    "python -m tune_cifar.search configs/sweep.yaml": "test_search.py",
    "python -m tune_cifar.search --resume --name NAME": "test_search.py",
    "python -m tune_cifar.publish results/NAME --to TARGET": "publish/test_publishing.py",
    "python -m tune_cifar.report results/NAME": "report/test_report.py",
    "python -m tune_cifar.report results/A results/B ...": "report/test_report.py",
    "python -m tune_cifar.evaluate MODEL": "publish/test_round_trip.py",
    "make cluster-up": "cluster/test_launch.py",
    "make cluster-down": "cluster/test_launch.py",
    "python -m tune_cifar.search configs/sweep.yaml --address HEAD --remote-results /mnt/shared/results": (
        "cluster/test_remote_search.py"
    ),
    "python -m tune_cifar.search --address HEAD --attach NAME": "cluster/test_remote_search.py",
    "python -m tune_cifar.search --address HEAD --stop NAME": "cluster/test_remote_search.py",
    "python -m tune_cifar.export results/NAME onnx": "test_export.py",
}


def test_every_command_is_run_somewhere() -> None:
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    commands = {line.partition("#")[0].strip() for block in blocks for line in block.splitlines()} - {""}
    assert commands == set(RUN_BY)
    ci = (REPOSITORY / ".ci" / "run").read_text()
    assert all(command in ci for command, place in RUN_BY.items() if place == ".ci/run")


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (REPOSITORY / "README.md").read_text())
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
