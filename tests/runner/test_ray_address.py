"""Which Ray a search joins, and that a dead one is no hindrance."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tune_cifar.errors import UserError
from tune_cifar.runner import ray_address
from tune_cifar.runner.ray_address import answers, cluster_address
from tune_cifar.runner.ray_session import ray_session


@pytest.fixture
def someone() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def _leave(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(ray_address, "read_ray_address", lambda: address)


def test_the_ray_that_was_started_here_is_joined(someone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _leave(someone, monkeypatch)
    assert cluster_address() == someone


def test_a_dead_one_is_not(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _leave(nobody, monkeypatch)
    assert cluster_address() is None


def test_one_that_is_asked_for_is_joined_whatever_was_left(
    someone: str, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave(someone, monkeypatch)
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    assert cluster_address() == nobody
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address() is None


def test_one_that_is_asked_for_and_dead_is_an_error_at_once(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    started = time.monotonic()
    with pytest.raises(UserError, match=f"No Ray cluster answers at {nobody}"), ray_session():
        pass
    assert time.monotonic() - started < 2 * ray_address.ANSWER_SECONDS


@pytest.mark.parametrize("address", ["auto", "ray://10.0.0.1:10001", "head", "a:b"])
def test_what_is_no_plain_address_is_left_to_ray(address: str) -> None:
    assert answers(address)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "no.such.host.invalid:6379"])
def test_an_address_that_nobody_can_have_answers_not(address: str) -> None:
    assert not answers(address)
