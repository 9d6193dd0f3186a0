"""How many cases there are, and how a command that was given one may end."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from tests.commands import run_here

LONGEST_MESSAGE_CHARACTERS = 20_000
MOST_CPU_SECONDS = 5.0

Command = Callable[[Sequence[str]], int]


def cases(usual: int) -> Iterator[Random]:
    """A seeded `Random` a case: `usual` of them, the same in every run, or as TUNE_CIFAR_FUZZ_CASES asks for.

    That number is for the tests of 100 usual cases, and others in proportion; TUNE_CIFAR_FUZZ_SEED makes other cases.
    """
    number = round(int(os.environ.get("TUNE_CIFAR_FUZZ_CASES", "100")) * usual / 100)
    first = int(os.environ.get("TUNE_CIFAR_FUZZ_SEED", "0")) * 1_000_000
    for case in range(first, first + max(1, number)):
        yield Random(case)


@contextlib.contextmanager
def within_time(case: object) -> Iterator[None]:
    """Fail if what is done inside takes long; counted in CPU time, since the machine may be busy."""
    start = time.process_time()
    yield
    seconds = time.process_time() - start
    assert seconds < MOST_CPU_SECONDS, f"{seconds:.1f} s for {case!r}"


def check_message(message: str, case: object) -> None:
    """Whether `message` is one that a user can read."""
    assert message.strip(), case
    if isinstance(case, Path):
        assert case.name in message, message
    assert len(message) < LONGEST_MESSAGE_CHARACTERS, (case, len(message), message[:500])
    assert "Traceback" not in message, (case, message)


def outcome(main: Command, arguments: Sequence[str], allowed: Sequence[int] = (0, 2)) -> tuple[int, str]:
    """The exit code of a command and what it said; fails for a code that is not `allowed`, and for no message."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), within_time(arguments):
        code = run_here(main, arguments)
    assert code in allowed, (arguments, code, out.getvalue()[-2000:], err.getvalue()[-2000:])
    if code == 2:
        check_message(err.getvalue(), arguments)
        assert "error: " in err.getvalue(), (arguments, err.getvalue())
    return code, out.getvalue() + err.getvalue()
