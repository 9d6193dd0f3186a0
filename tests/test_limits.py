from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_cifar.limits import DEFAULT_GRACE_SECONDS, add_limit_flags, limits_from, parse_duration, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1h1m1s", 3661), ("2h5s", 7205)]
)
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "h", "2 h", "30min", "1m2h", "-5s", "1.5h", "5s "])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 90s, 30m, 2h or 1h30m, got"):
        parse_duration(text)


def test_a_number_without_a_unit_is_refused_with_the_fix() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="needs a unit: 90s, 90m or 90h"):
        parse_duration("90")


@given(st.integers(1, 10**6))
def test_a_shown_time_is_read_again(seconds: int) -> None:
    assert parse_duration(show_duration(seconds)) == seconds


def _limits(*flags: str) -> tuple[float, float | None, float | None]:
    parser = argparse.ArgumentParser()
    add_limit_flags(parser)
    limits = limits_from(parser.parse_args(flags))
    return limits.grace_seconds, limits.time_budget_seconds, limits.hang_seconds


def test_flags_become_limits() -> None:
    assert _limits() == (DEFAULT_GRACE_SECONDS, None, None)
    assert _limits("--grace", "5", "--time-budget", "1h30m", "--hang-timeout", "90") == (5.0, 5400.0, 90.0)
    assert _limits("--hang-timeout", "off")[2] == 0.0
