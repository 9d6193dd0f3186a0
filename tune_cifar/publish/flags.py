"""The flags for publishing, the same for a search's --publish and for publishing by hand."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cifar.project_file import PROJECT_FILE
from tune_cifar.sweep.schema import SweepConfig

if TYPE_CHECKING:
    from tune_cifar.publish.publishing import Publishing

FORMS = "gradient, paperspace:s3://BUCKET/PREFIX, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, hf://ORG/NAME, wandb, FOLDER/"


def add_publish_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the flag called `name` (repeatable, into `publish`) and those that some targets need."""
    parser.add_argument(
        name,
        dest="publish",
        action="append",
        default=[],
        metavar="TARGET",
        help=f"where the best model goes; may be given several times (default: {PROJECT_FILE}): {FORMS}",
    )
    parser.add_argument("--gradient-project", metavar="ID", help="project at Paperspace (default: GRADIENT_PROJECT_ID)")
    parser.add_argument("--storage-provider", metavar="ID", help="Paperspace's id for the bucket, where it has one")
    parser.add_argument("--wandb-registry", metavar="NAME", help="W&B registry to link the model to")


def publishing_from(args: argparse.Namespace, folder: Path, config: SweepConfig) -> Publishing:
    """What the flags say for the search in `folder`; raises `UserError` for a wrong target or a missing key."""
    # torch, which checksums and weights need, takes seconds to import, and most searches are not published.
    from tune_cifar.publish.choose_targets import choose_targets
    from tune_cifar.publish.publishing import Publishing
    from tune_cifar.publish.target import PublishOptions

    options = PublishOptions(
        search=folder,
        wandb_project=config.project or "tune-cifar",
        wandb_entity=config.entity,
        wandb_registry=args.wandb_registry,
        gradient_project=args.gradient_project or os.environ.get("GRADIENT_PROJECT_ID") or None,
        storage_provider=args.storage_provider,
    )
    return Publishing(choose_targets(args.publish, options), options)
