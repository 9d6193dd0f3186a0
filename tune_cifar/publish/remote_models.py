"""Finds the places from which a published model comes back, a function a scheme."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.publish.bucket_target import CHUNK_BYTES, parse_bucket
from tune_cifar.publish.hugging_face_target import parse_hugging_face
from tune_cifar.publish.model_file import MODEL_SUFFIXES
from tune_cifar.publish.retry import PublishError, RetryPolicy
from tune_cifar.publish.target import Say
from tune_cifar.tracking.wandb_mode import check_key

SOURCES = (
    "results/NAME, FOLDER/, MODEL.pth or .safetensors, s3://…, gs://…, hf://ORG/NAME, wandb:ENTITY/PROJECT/NAME:ALIAS"
)

_ARTIFACT = re.compile(r"[^/:\s]+/[^/:\s]+/[^/:\s]+:[^/:\s]+")


@dataclass(frozen=True)
class RemoteModel:
    """A model that is elsewhere: `copy(name, target)` brings one of its files, or raises `FileNotFoundError`.

    `file` is the file that the user named, None for the one that the manifest names.
    """

    copy: Callable[[str, Path], None]
    file: str | None = None


def find_remote_model(source: str, policy: RetryPolicy, say: Say) -> RemoteModel | None:
    """The place that `source` names, None if that is a path on this machine.

    Raises `UserError` for a mistake in it or a missing key, `PublishError` when the place does not answer.
    """
    scheme, separator, _ = source.partition("://")
    if source.startswith("wandb:"):
        return _in_wandb(source, policy)
    if not separator or scheme == "file":
        return None
    if scheme in ("s3", "gs"):
        return _in_bucket(source, policy)
    if scheme == "hf":
        return _on_the_hub(source, policy, say)
    raise UserError(f"{scheme}:// is no place that a model comes from; there are {SOURCES}.")


def _in_bucket(source: str, policy: RetryPolicy) -> RemoteModel:
    """`s3://BUCKET/FOLDER` as publish wrote it, or a file `s3://BUCKET/FOLDER/MODEL.pth`; queries as for publish."""
    bucket = parse_bucket(source, policy)
    bucket.check()
    folder, _, last = bucket.path.rpartition("/")
    is_file = last.endswith(MODEL_SUFFIXES)
    place = folder if is_file else bucket.path
    try:
        store = bucket.open_store()
    except OSError as error:
        raise PublishError(f"connecting failed: {error}") from error

    def copy(name: str, target: Path) -> None:
        try:
            with store.open_input_stream(f"{place}/{name}") as stream, target.open("wb") as file:
                # Each read is a request: in the default pieces of 64 kB a model would take hundreds.
                shutil.copyfileobj(stream, file, CHUNK_BYTES)
        except FileNotFoundError:
            raise
        except OSError as error:  # pyarrow's only class for what goes wrong at a store
            raise PublishError(f"reading {name} failed: {error}") from error

    return RemoteModel(copy, last if is_file else None)


def _on_the_hub(source: str, policy: RetryPolicy, say: Say) -> RemoteModel:
    """`hf://ORG/NAME`, the newest commit of its main branch; a public one needs no key."""
    repository = parse_hugging_face(source, policy)
    repository.check_client()
    # All files are of one commit, even if another is made meanwhile.
    commit = repository.newest_commit(say)

    def copy(name: str, target: Path) -> None:
        repository.download(name, commit, target, say)

    return RemoteModel(copy)


def _in_wandb(source: str, policy: RetryPolicy) -> RemoteModel:
    """`wandb:ENTITY/PROJECT/NAME:ALIAS`, an artifact; also `wandb://…`, as published.json has it."""
    address = source.removeprefix("wandb:").removeprefix("//")
    if not _ARTIFACT.fullmatch(address):
        raise UserError(f"{source}: write wandb:ENTITY/PROJECT/NAME:ALIAS, such as wandb:me/cifar/best-model:best.")
    check_key(source)
    import wandb

    try:
        artifact = wandb.Api(timeout=max(1, round(policy.reply_seconds))).artifact(address)
        names = set(artifact.manifest.entries)
    except (wandb.Error, ValueError, OSError) as error:
        raise PublishError(f"W&B: {type(error).__name__}: {error}") from error

    def copy(name: str, target: Path) -> None:
        if name not in names:
            raise FileNotFoundError(name)
        try:
            artifact.download(root=str(target.parent), path_prefix=name, skip_cache=True)
        except (wandb.Error, ValueError, OSError) as error:
            raise PublishError(f"W&B: {type(error).__name__}: {error}") from error

    return RemoteModel(copy)
