"""What the commands share: flags of the same meaning, and one way to end in an error."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tune_cifar.errors import UserError

EXIT_NOTHING_FINISHED = 1
EXIT_NOT_PUBLISHED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def run_command(main: Callable[[Sequence[str]], int]) -> int:
    """Run `main` on the command line; a user's mistake becomes one message and exit code 2, Ctrl-C becomes 130."""
    # A scheduler that takes the machine away sends SIGTERM: end as gracefully as on Ctrl-C.
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        return main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED


def _as_interrupt(_signal: int, _frame: Any) -> None:
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
