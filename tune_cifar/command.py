"""What the commands share: flags of the same meaning, and one way to end in an error."""

from __future__ import annotations

import argparse
import io
import itertools
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tune_cifar.errors import UserError

EXIT_NOTHING_FINISHED = 1
EXIT_NOT_PUBLISHED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
"""As a shell tells it: 128 and the number of the signal, 2 for Ctrl-C and 15 for SIGTERM."""

_MOST_THREADS = 1024

_terminated = False


def run_command(main: Callable[[Sequence[str]], int]) -> int:
    """Run `main` on the command line; a mistake becomes one message and exit code 2, Ctrl-C 130 and SIGTERM 143."""
    # Ray blocks SIGINT in the jobs that are submitted to it (ray 2.60, JobSupervisor), and it ends a search here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # A scheduler that takes the machine away sends SIGTERM: what is open is closed as on Ctrl-C.
    signal.signal(signal.SIGTERM, _as_interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name of a file need not be text, and not every terminal has every character.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return main(_checked(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_USER_ERROR
    except OSError as error:
        if error.filename is None:
            raise
        # A disk that is full, a name that is too long, a folder that may not be read: where, is all that helps.
        print(f"error: {error.filename}: {error.strerror or error}.", file=sys.stderr)  # noqa: T201
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)  # noqa: T201
        return EXIT_TERMINATED if _terminated else EXIT_INTERRUPTED


def _checked(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments, none of which is a flag of the value `--`: of that argparse (Python 3.11) makes an empty list."""
    for word in itertools.takewhile(lambda word: word != "--", arguments):
        if word.startswith("--") and word.endswith("=--"):
            raise UserError(f"{word}: a value cannot be --, which ends the flags. Give another one.")
    return arguments


def _as_interrupt(_signal: int, _frame: Any) -> None:
    global _terminated
    _terminated = True
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A script's `command &` ignores Ctrl-C, which then belongs to others; SIGTERM is still for this process.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add --data and --train-images, the same for every command that reads images."""
    parser.add_argument(
        "--data",
        metavar="cifar10|digits|PATH",
        help="the images: cifar10 (downloaded once; the default), digits (comes with scikit-learn), or a folder "
        "with cifar-10-batches-py, with Hugging Face parquet files, or with train/CLASS and test/CLASS",
    )
    parser.add_argument("--train-images", type=positive_int, metavar="N", help="train on N images only")


def positive_int(text: str) -> int:
    """A whole number above 0, as an argparse type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return value


def thread_count(text: str) -> int:
    """A number of threads that a machine can have, as an argparse type: torch ends without a word at far more."""
    value = positive_int(text)
    if value > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"must be at most {_MOST_THREADS}, got {text}")
    return value


def positive_float(text: str) -> float:
    """A number above 0, as an argparse type."""
    value = non_negative_float(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0, got 0")
    return value


def non_negative_float(text: str) -> float:
    """A finite number from 0 up, as an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number, 0 or above, got {text!r}")
    return value
