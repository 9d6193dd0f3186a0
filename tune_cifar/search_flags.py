"""The flags of `python -m tune_cifar.search`, apart from what the command does with them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tune_cifar.bucket_address import BucketAddress, parse_address
from tune_cifar.cluster.remote_flags import add_remote_flags, check_remote_flags
from tune_cifar.command import add_data_flags, non_negative_float, positive_float, positive_int
from tune_cifar.errors import UserError
from tune_cifar.finalists import DEFAULT_SEEDS
from tune_cifar.limits import add_limit_flags
from tune_cifar.project_file import PROJECT_FILE, load_project
from tune_cifar.publish.flags import add_publish_flags
from tune_cifar.publish.retry import RetryPolicy
from tune_cifar.settings import SearchSettings
from tune_cifar.trial.config import PRECISION_CHOICES, check_parameter

DEFAULT_SWEEP = Path("configs/sweep.yaml")
DEFAULT_RESULTS = Path("results")


def parse_search_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; a flag that was not given is None, which a resume must be able to tell."""
    parser = argparse.ArgumentParser(
        prog="python -m tune_cifar.search", description="Run a Weights & Biases sweep file on Ray Tune."
    )
    parser.add_argument("sweep", nargs="?", type=Path, metavar="SWEEP.yaml", help=f"default {DEFAULT_SWEEP}")
    add_data_flags(parser)
    parser.add_argument(
        "--count", type=positive_int, metavar="N", help="number of trials (default: run_cap of the file)"
    )
    parser.add_argument("--name", help="name of the search (default: the file's, with date and time)")
    parser.add_argument(
        "--results",
        default=str(DEFAULT_RESULTS),
        metavar="DIR",
        help=f"default {DEFAULT_RESULTS}; s3://BUCKET/PREFIX keeps checkpoints and a copy of all results there",
    )
    parser.add_argument("--trials-at-once", type=positive_int, metavar="N", help="default: one a GPU, else one a core")
    parser.add_argument("--cpus-per-trial", type=positive_float, metavar="X", help="default 1")
    parser.add_argument(
        "--gpus-per-trial",
        type=_number_or_auto,
        metavar="X",
        help="default 1 where there are GPUs; 0.25 lets four trials share one, auto measures how many should",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISION_CHOICES,
        help="number format of matrix products (default auto: bf16 where the processor is made for it)",
    )
    parser.add_argument(
        "--repeat-best",
        type=positive_int,
        metavar="K",
        help="train the best K configurations again with other seeds, and choose by the mean over all seeds",
    )
    parser.add_argument(
        "--seeds", type=positive_int, metavar="S", help=f"other seeds for each of them (default {DEFAULT_SEEDS})"
    )
    parser.add_argument(
        "--prior",
        action="append",
        metavar="PATH",
        help="start with what an earlier search found: results/NAME, a trials.csv, or runs exported from W&B as "
        ".csv, .json or .jsonl; can be given several times",
    )
    parser.add_argument(
        "--max-failures",
        type=_whole_number,
        metavar="N",
        help="how often a trial that fails is tried again from its last checkpoint (default 2)",
    )
    parser.add_argument("--seed", type=_seed, metavar="N", help="of the searcher and of each trial (default 0)")
    parser.add_argument("--wandb-project", metavar="NAME", help="default: the file's, WANDB_PROJECT, or tune-cifar")
    parser.add_argument("--wandb-entity", metavar="NAME", help="user or team; default: the file's, or WANDB_ENTITY")
    parser.add_argument("--wandb", choices=["online", "offline", "disabled"], help="default: online if a key is found")
    parser.add_argument(
        "--prediction-images",
        type=_images_or_all,
        metavar="N",
        help="test images in the best model's table of predictions: a number (default 128), all, or 0 for no table",
    )
    add_limit_flags(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the search of --name, or with the newest")
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="with --resume, when Ray's state is damaged or of another version: go on from what the trials left behind",
    )
    parser.add_argument(
        "--export", choices=["onnx"], help="onnx: write the best model as best/<model>.onnx too, and publish it"
    )
    add_publish_flags(parser, "--publish")
    parser.add_argument("--no-publish", action="store_true", help=f"publish nowhere, whatever {PROJECT_FILE} says")
    add_remote_flags(parser)
    parser.add_argument("--quiet", action="store_true", help="print warnings, notes, errors and results alone")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    args = parser.parse_args(arguments)
    args.results, args.bucket = _results_places(args.results)
    if args.bucket and args.address:
        parser.error("--results s3://… with --address: log in to the head, and start the search there")
    if args.bucket and args.resume and not args.name:
        parser.error("--resume with --results s3://… needs --name NAME")
    if args.publish and args.no_publish:
        parser.error("--publish and --no-publish: give one")
    check_remote_flags(parser, args)
    return args


def with_project(arguments: Sequence[str], args: argparse.Namespace) -> list[str]:
    """The command line, read as `args`, with the flags for publishing that it leaves to the project's file."""
    if args.publish or args.no_publish or args.attach or args.stop:
        return list(arguments)
    project = load_project()
    return [*arguments, *(project.flags(args, "--publish") if project else [])]


def _results_places(text: str) -> tuple[Path, BucketAddress | None]:
    """The local folder of results, and the place in a bucket."""
    if text.startswith("s3://"):
        return DEFAULT_RESULTS, parse_address(text, RetryPolicy())
    if "://" in text:
        raise UserError("--results takes a folder or s3://BUCKET/PREFIX, and no other kind of address.")
    return Path(text), None


def _seed(text: str) -> int:
    try:
        seed = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if problem := check_parameter("seed", seed):
        raise argparse.ArgumentTypeError(problem)
    return seed


def _number_or_auto(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return non_negative_float(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be a number, 0 or above, or auto, got {text!r}") from None


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or above, got {text!r}")
    return int(text)


def _images_or_all(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or above, or all, got {text!r}")
    return int(text)


def default_flags(args: argparse.Namespace) -> dict[str, object]:
    """The values of a new search's flags that have a default, as given or not."""
    given = {"data": args.data or "cifar10", "seed": args.seed or 0, "precision": args.precision or "auto"}
    given["max_failures"] = SearchSettings.max_failures if args.max_failures is None else args.max_failures
    images = args.prediction_images
    given["prediction_images"] = SearchSettings.prediction_images if images is None else images
    return {**given, "seeds": DEFAULT_SEEDS if args.repeat_best and args.seeds is None else args.seeds}
