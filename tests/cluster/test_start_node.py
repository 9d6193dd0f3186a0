"""Ray's start on a machine must carry the token's mode and the cluster's mark, and nobody's key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tune_cifar.cluster import start_node
from tune_cifar.errors import UserError


class StartedError(Exception):
    """Stands for the moment at which the process becomes Ray's."""


def test_it_becomes_ray_start(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, Any] = {}

    def become(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        started.update(program=program, arguments=arguments, environment=environment)
        raise StartedError

    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setattr(start_node, "stop", lambda: (0, []))
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 51000 10.0.0.1 22")
    monkeypatch.setenv("WANDB_API_KEY", "a-key-of-somebody")
    with pytest.raises(StartedError):
        start_node.main(["ray", "start", "--head"])
    ray = str(Path(sys.executable).parent / "ray")
    assert started["program"] == ray
    assert started["arguments"] == [ray, "start", "--head", "--node-ip-address=10.0.0.1"]
    environment = started["environment"]
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["TUNE_CIFAR_CLUSTER"] == "yes"
    assert "a-key-of-somebody" not in environment.values()


def test_it_starts_nothing_beside_a_ray_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_node, "stop", lambda: (1, ["17 raylet"]))
    with pytest.raises(UserError, match="17 raylet"):
        start_node.main(["ray", "start", "--head"])
    with pytest.raises(UserError, match="takes `ray start`"):
        start_node.main(["ray", "stop"])
