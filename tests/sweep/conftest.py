"""Reads sweep files from text, so that a test shows the file it is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.errors import UserError
from tune_cifar.sweep.load import load_sweep
from tune_cifar.sweep.schema import SweepConfig
from tune_cifar.sweep.trial_rules import ParameterCheck

ReadSweep = Callable[..., SweepConfig]


def accept_all(name: str, value: Any) -> str | None:
    """A trial that takes every parameter."""
    return None


@pytest.fixture
def read_sweep(tmp_path: Path) -> ReadSweep:
    """`read_sweep(text)` gives the config of the sweep file `text`."""

    def read(text: str, check: ParameterCheck = accept_all, metric_names: tuple[str, ...] = ()) -> SweepConfig:
        path = tmp_path / "sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return load_sweep(path, check, metric_names)

    return read


@pytest.fixture
def problems_of(read_sweep: ReadSweep, tmp_path: Path) -> Callable[..., list[str]]:
    """`problems_of(text)` gives the lines of the error of `text`, without the folder, or an empty list."""

    def problems(text: str, **options: Any) -> list[str]:
        try:
            read_sweep(text, **options)
        except UserError as error:
            return str(error).replace(f"{tmp_path}/", "").splitlines()
        return []

    return problems
