"""What the W&B tests share: fake trials, what a trial reports, and a reader of .wandb files."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.util import get_core_path

KEY = "0123456789abcdef" * 2 + "planted0"


@dataclass
class FakeTrial:
    """The part of a Ray trial that the callback reads."""

    trial_id: str
    config: dict[str, Any] = field(default_factory=lambda: {"model": "ResNet18", "optimizer": {"lr": 0.0042}})


@dataclass
class LoggedRun:
    """A run as it is in its .wandb file: rows by step, config, summary, exit code."""

    rows: dict[int, dict[str, Any]]
    num_rows: int
    config: dict[str, Any]
    summary: dict[str, Any]
    tags: list[str]
    name: str
    group: str
    exit_code: int | None
    notes: str = ""


def epoch_result(epoch: int, rows_per_epoch: int = 2, **changes: Any) -> dict[str, Any]:
    """What a trial reports after `epoch` epochs; the loss has its best value after the second."""
    first = (epoch - 1) * rows_per_epoch
    steps = range(first + 1, first + rows_per_epoch + 1)
    return {
        "epoch": epoch,
        "step": first + rows_per_epoch,
        "train_loss": 1 / (first + rows_per_epoch) if steps else 2.0,
        "train_log": [[step, step / rows_per_epoch, 1 / step] for step in steps],
        "val_loss": 0.5 + abs(epoch - 2),
        "val_accuracy": 0.1 * epoch,
        "epoch_runtime (seconds)": 2.0,
        "status": "running",
        "message": "",
        "trial_id": "abc",
        "time_total_s": 9.0,
        "config": {"lr": 1},
    } | changes


def read_run(file: Path) -> LoggedRun:
    """Read a .wandb file with W&B's own reader, a record a line."""
    # `wandb leet inspect` without its second of start and without its report to a server
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", file]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    logged = LoggedRun({}, 0, {}, {}, [], "", "", None)
    for record in map(json.loads, text.splitlines()):
        content = record.get(record["type"], {})
        if record["type"] == "run":
            logged.config = content.get("config", {}).get("update", logged.config)
            logged.tags = content.get("tags", logged.tags)
            logged.notes = content.get("notes", logged.notes)
            # One that was opened again online does not repeat them.
            logged.name, logged.group = content.get("display_name", logged.name), content.get("run_group", logged.group)
        elif record["type"] == "history":
            row = {key: value for key, value in content["item"].items() if not key.startswith("_")}
            logged.rows[content["step"]["num"]] = row
            logged.num_rows += 1
        elif record["type"] == "summary":
            logged.summary |= content.get("update", {})
        elif record["type"] == "exit":
            logged.exit_code = content.get("exit_code", 0)
    return logged


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what another thread or process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def run_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/*run-*/*.wandb"))
