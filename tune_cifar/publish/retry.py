"""Tries again what may pass by itself: a busy server or a broken connection, with growing waits and an end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tune_cifar.scrubbing import scrub

Outcome = TypeVar("Outcome")

BUSY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class PublishError(Exception):
    """One target could not take the model; the text says why and what may be left there, and holds no key.

    `status` is what an HTTP server answered, where it did.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(scrub(text))
        self.status = status


class TransientError(PublishError):
    """A failure that may pass; `retry_after_seconds` is what the server asked to wait, if it did."""

    def __init__(self, text: str, retry_after_seconds: float | None = None, status: int | None = None) -> None:
        super().__init__(text, status)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to try. `reply_seconds` is the silence after which a server is given up."""

    attempts: int = 5
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    reply_seconds: float = 60.0
    total_seconds: float = 600.0


def with_retries(action: Callable[[], Outcome], policy: RetryPolicy, say: Callable[[str], None]) -> Outcome:
    """Run `action`, again after each `TransientError` as `policy` allows; the last one is raised.

    A wait is drawn from the upper half of a bound that doubles, so that many clients do not come back at once
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/); what the server asks comes first.
    """
    start_seconds = time.monotonic()
    bound_seconds = policy.first_wait_seconds
    for attempt in range(1, policy.attempts + 1):
        try:
            return action()
        except TransientError as error:
            wait_seconds = bound_seconds * random.uniform(0.5, 1.0)  # noqa: S311 - no secret depends on it
            if error.retry_after_seconds is not None:
                wait_seconds = max(wait_seconds, error.retry_after_seconds)
            out_of_time = time.monotonic() - start_seconds + wait_seconds > policy.total_seconds
            if attempt == policy.attempts or out_of_time or wait_seconds > policy.longest_wait_seconds:
                raise
            say(f"{error}; trying again in {wait_seconds:.1f} s")
            time.sleep(wait_seconds)
            bound_seconds = min(2 * bound_seconds, policy.longest_wait_seconds)
    raise AssertionError("a policy has at least one attempt")


def parse_retry_after(value: str | None) -> float | None:
    """The seconds that a Retry-After header asks for: a number or a date (RFC 9110, section 10.2.3)."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def within_seconds(limit_seconds: float, what: str, action: Callable[[], Outcome], *, after: str = "") -> Outcome:
    """Run `action` in a thread and give it up after `limit_seconds`, for clients without a time limit of their own.

    `after` is added to what is told then.
    """
    outcomes: list[Outcome] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcomes.append(action())
        except BaseException as error:
            errors.append(error)

    # A daemon: a call that hangs for good must not keep the process alive.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_seconds)
    if errors:
        raise errors[0]
    if not outcomes:
        raise PublishError(f"{what} did not answer within {limit_seconds:g} s{after}")
    return outcomes[0]
