"""Fixtures for W&B: a fresh client for each test, a loopback server, and a callback to drive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.tracking.wandb_helpers import KEY
from tests.tracking.wandb_server import WandbServer
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.tracking.wandb_callback import SearchWandbCallback


@pytest.fixture
def fresh_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The W&B client reads the environment once, so each test starts it anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # else errors are sent to W&B
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def server(fresh_client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield running


@pytest.fixture
def make_callback(fresh_client: None, tmp_path: Path) -> Callable[..., SearchWandbCallback]:
    def make(**options: Any) -> SearchWandbCallback:
        settings: dict[str, Any] = {
            "project": "cifar",
            "group": "my search",
            "folder": tmp_path,
            "mode": "offline",
            "log": SearchLog("val_loss"),
            "metric": "val_loss",
            "goal": "minimize",
            "free_parameters": ("model", "optimizer/lr"),
        }
        callback = SearchWandbCallback(**settings | options)
        callback.setup()
        return callback

    return make
