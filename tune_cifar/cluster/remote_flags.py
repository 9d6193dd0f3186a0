"""The flags of a search on a cluster, and those that go on to the search there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

DEFAULT_REMOTE_RESULTS = "results"


def add_remote_flags(parser: argparse.ArgumentParser) -> None:
    """Add --address and what goes with it."""
    parser.add_argument(
        "--address",
        metavar="HEAD",
        help="run it on the cluster with that head: [USER@]HOST or a name from ~/.ssh/config; results are fetched",
    )
    parser.add_argument("--attach", metavar="NAME", help="with --address: watch that search, and fetch its results")
    parser.add_argument("--stop", metavar="NAME", help="with --address: end that search as Ctrl-C does here")
    parser.add_argument(
        "--remote-results",
        metavar="DIR",
        help="with --address: folder of results there, which its machines share (default ~/tune_cifar/results)",
    )


def check_remote_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End in argparse's way when these flags do not go together."""
    needing = {"--attach": args.attach, "--stop": args.stop, "--remote-results": args.remote_results}
    given = [flag for flag, value in needing.items() if value is not None]
    if given and not args.address:
        parser.error(f"{' and '.join(given)} needs --address HEAD")
    if args.attach is not None and args.stop is not None:
        parser.error("--attach and --stop are two commands: give one")
    if (args.attach or args.stop) and (args.sweep or args.resume or args.name or args.dry_run):
        parser.error("--attach NAME and --stop NAME are about a search that was started: leave out the rest")
    if args.address and args.resume and not args.name:
        parser.error("--resume with --address needs --name NAME")


def flags_for_head(arguments: Sequence[str], args: argparse.Namespace) -> list[str]:
    """The words of the command line that mean the same on the head: all but paths, names and the flags above.

    `args` is what the whole command line was read as.
    """
    local = argparse.ArgumentParser(add_help=False)
    for flag in ("--address", "--attach", "--stop", "--remote-results", "--results", "--name", "--prior"):
        local.add_argument(flag)
    local.add_argument("--dry-run", action="store_true")
    words = local.parse_known_args(arguments)[1]
    if args.sweep is not None:
        words.pop(_position_of_sweep(words, str(args.sweep)))
    return words


def _position_of_sweep(words: Sequence[str], sweep: str) -> int:
    """Where the sweep file is among the words: of several that could be it, the one that is no flag's value."""
    from tune_cifar.search_flags import parse_search_flags

    places = [number for number, word in enumerate(words) if str(Path(word)) == sweep]
    for place in places[:-1]:
        if parse_search_flags([*words[:place], "another.yaml", *words[place + 1 :]]).sweep == Path("another.yaml"):
            return place
    return places[-1]
