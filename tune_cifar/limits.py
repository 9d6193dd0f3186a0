"""How long a search may run, hang and take to end: limits of one start, which a resume need not repeat."""

from __future__ import annotations

import argparse
import math
import re
import time
from dataclasses import dataclass, field
from typing import Literal

from tune_cifar.command import positive_float

DEFAULT_GRACE_SECONDS = 30.0
"""What Kubernetes gives a pod (terminationGracePeriodSeconds,
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/) and Slurm a job (KillWait,
https://slurm.schedmd.com/slurm.conf.html) between SIGTERM and SIGKILL."""

Cause = Literal["interrupt", "SIGTERM", "time budget", "disk"]
"""What ends a search before its trials have: Ctrl-C, a scheduler, its time, or a disk that takes no more."""

_UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@dataclass(frozen=True)
class RunLimits:
    """`grace_seconds` pass at most from SIGTERM to the end of the process; `time_budget_seconds` None is no budget.

    A trial that was silent for `hang_seconds` is taken for hung: by default (None) after a multiple of the time that
    its epochs take, and with 0 never. `start_seconds` is the `time.monotonic()` at which the budget began.
    """

    grace_seconds: float = DEFAULT_GRACE_SECONDS
    time_budget_seconds: float | None = None
    hang_seconds: float | None = None
    start_seconds: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class EarlyEnd:
    """How a search ended that has trials left: why, what was the matter with the disk, and by when it must be over.

    `deadline_seconds` is a `time.monotonic()`, infinite where nobody waits.
    """

    cause: Cause
    disk_message: str = ""
    deadline_seconds: float = math.inf

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline_seconds - time.monotonic()


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    """Add --time-budget, --grace and --hang-timeout."""
    parser.add_argument(
        "--time-budget",
        type=parse_duration,
        metavar="TIME",
        help="after 90s, 30m, 2h or 1h30m start no trial, stop running ones after their epoch, and write the results",
    )
    parser.add_argument(
        "--grace",
        type=positive_float,
        default=DEFAULT_GRACE_SECONDS,
        metavar="SECONDS",
        help=f"how long after SIGTERM the search may still run (default {DEFAULT_GRACE_SECONDS:g})",
    )
    parser.add_argument(
        "--hang-timeout",
        type=_seconds_or_off,
        metavar="SECONDS",
        help="kill and retry a trial that reports no epoch for so long, or off (default: 10 times its slowest epoch, "
        "at least 2 minutes)",
    )


def limits_from(args: argparse.Namespace) -> RunLimits:
    """What the flags say; the time budget begins now."""
    return RunLimits(args.grace, args.time_budget, args.hang_timeout)


def _seconds_or_off(text: str) -> float:
    return 0.0 if text == "off" else positive_float(text)


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `30m`, `2h` or `1h30m`, as an argparse type."""
    match = _DURATION.fullmatch(text)
    if text.isdecimal():
        raise argparse.ArgumentTypeError(f"needs a unit: {text}s, {text}m or {text}h")
    counts = match.groups() if match else ()
    seconds = sum(int(count) * unit for count, unit in zip(counts, _UNIT_SECONDS.values(), strict=False) if count)
    if seconds == 0:
        raise argparse.ArgumentTypeError(f"must be a time above 0 such as 90s, 30m, 2h or 1h30m, got {text!r}")
    return float(seconds)


def show_duration(seconds: float) -> str:
    """Seconds as `parse_duration` reads them: 5400 is `1h30m`."""
    left, parts = round(seconds), []
    for unit, unit_seconds in _UNIT_SECONDS.items():
        count, left = divmod(left, unit_seconds)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
