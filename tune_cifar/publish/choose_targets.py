"""Reads what the user wrote after --publish or --to; every mistake is told at once, before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.publish.bucket_target import parse_bucket
from tune_cifar.publish.bundle import check_safetensors
from tune_cifar.publish.flags import FORMS
from tune_cifar.publish.folder_target import FolderTarget
from tune_cifar.publish.gradient_target import GradientTarget
from tune_cifar.publish.hugging_face_target import parse_hugging_face
from tune_cifar.publish.paperspace_target import PaperspaceTarget
from tune_cifar.publish.target import PublishOptions, Target
from tune_cifar.publish.wandb_target import WandbTarget


def choose_targets(texts: Sequence[str], options: PublishOptions) -> list[Target]:
    """The targets that `texts` name, each checked as far as this machine can; raises one `UserError` for all."""
    targets: list[Target] = []
    problems = []
    for text in dict.fromkeys(texts):
        try:
            target = _parse(text, options)
            target.check()
            targets.append(target)
        except UserError as error:
            problems.append(str(error))
    if texts:
        try:
            check_safetensors()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("The model could not be published:\n" + "\n".join(f"* {problem}" for problem in problems))
    return targets


def _parse(text: str, options: PublishOptions) -> Target:
    scheme, separator, rest = text.partition("://")
    if text == "gradient":
        return GradientTarget(text, options.gradient_project, options.policy)
    if text == "wandb":
        place = (options.wandb_project, options.wandb_entity, options.wandb_registry)
        return WandbTarget(text, *place, options.search, options.policy)
    if text.startswith("paperspace:"):
        if scheme != "paperspace:s3":
            raise UserError("paperspace: takes the bucket that gets the files: paperspace:s3://BUCKET/PREFIX.")
        bucket = parse_bucket(f"s3://{rest}", options.policy)
        ids = (options.storage_provider, options.gradient_project)
        return PaperspaceTarget(text, bucket, *ids, options.search, options.policy)
    if separator and scheme in ("s3", "gs"):
        return parse_bucket(text, options.policy)
    if separator and scheme == "hf":
        return parse_hugging_face(text, options.policy)
    if separator or not ("/" in text or text in (".", "..") or (text and Path(text).is_dir())):
        # A mistyped word must not become a folder of that name, nor an unset variable the current one.
        shown = f"{scheme}://" if separator else repr(text)
        raise UserError(f"{shown}: not a target; there are {FORMS} (with a / or of a folder that exists).")
    return FolderTarget(text, Path(text).expanduser())
