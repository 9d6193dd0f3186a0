from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tune_cifar.publish.retry import (
    PublishError,
    RetryPolicy,
    TransientError,
    parse_retry_after,
    with_retries,
    within_seconds,
)

QUICK = RetryPolicy(attempts=4, first_wait_seconds=0.01)


def _failing(times: int, error: PublishError) -> Callable[[], str]:
    errors = [error] * times

    def action() -> str:
        if errors:
            raise errors.pop()
        return "done"

    return action


def test_what_passes_is_tried_again_with_growing_waits(said: list[str]) -> None:
    assert with_retries(_failing(3, TransientError("busy")), QUICK, said.append) == "done"
    waits = [float(line.split(" in ")[1].split()[0]) for line in said]
    assert len(waits) == 3
    assert all(line.startswith("busy; trying again in ") for line in said)


def test_the_last_failure_is_told(said: list[str]) -> None:
    with pytest.raises(TransientError, match="busy"):
        with_retries(_failing(4, TransientError("busy")), QUICK, said.append)
    assert len(said) == 3


def test_what_does_not_pass_is_not_tried_again(said: list[str]) -> None:
    with pytest.raises(PublishError, match="refused"):
        with_retries(_failing(1, PublishError("refused")), QUICK, said.append)
    assert said == []


def test_the_server_says_how_long_to_wait(said: list[str]) -> None:
    start = time.monotonic()
    assert with_retries(_failing(1, TransientError("slow down", 0.3)), QUICK, said.append) == "done"
    assert time.monotonic() - start >= 0.3


def test_a_wait_that_is_too_long_is_not_begun(said: list[str]) -> None:
    with pytest.raises(TransientError, match="tomorrow"):
        with_retries(_failing(1, TransientError("tomorrow", 86_400)), QUICK, said.append)
    out_of_time = RetryPolicy(first_wait_seconds=5, total_seconds=1)
    with pytest.raises(TransientError, match="busy"):
        with_retries(_failing(1, TransientError("busy")), out_of_time, said.append)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert parse_retry_after("7") == 7
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert parse_retry_after(None) is None
    assert parse_retry_after("soon") is None


def test_an_action_that_hangs_is_given_up() -> None:
    with pytest.raises(PublishError, match=r"the hub did not answer within 0\.05 s"):
        within_seconds(0.05, "the hub", lambda: time.sleep(0.5))
    assert within_seconds(5, "the hub", lambda: 3) == 3
    with pytest.raises(KeyError):
        within_seconds(5, "the hub", lambda: {}["x"])
