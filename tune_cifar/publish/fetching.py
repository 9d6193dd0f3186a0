"""Brings a model back from where it was published, checked against its manifest before anything reads it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from tune_cifar.errors import UserError
from tune_cifar.publish.manifest import (
    MANIFEST_FILE,
    Manifest,
    difference,
    file_sha256,
    find_manifest,
    parse_manifest,
    read_manifest,
)
from tune_cifar.publish.model_file import is_form, unwrap_form
from tune_cifar.publish.remote_models import RemoteModel, find_remote_model
from tune_cifar.publish.retry import PublishError, RetryPolicy, within_seconds
from tune_cifar.publish.target import Say
from tune_cifar.report.finish import BEST_FOLDER
from tune_cifar.scrubbing import scrub
from tune_cifar.settings import SETTINGS_FILE
from tune_cifar.trial.data.source import default_cache_folder

_CACHE = "models"
_MEGABYTE = 1e6


@dataclass(frozen=True)
class FetchedModel:
    """A model on this machine: its weights, what its manifest says of them, and where it came from in words."""

    path: Path
    manifest: Manifest | None
    shown: str


@contextlib.contextmanager
def fetched_model(source: str, say: Say, policy: RetryPolicy | None = None) -> Iterator[FetchedModel]:
    """Inside `with`, the model that `source` names, whose size and sha256 are those of its manifest if it has one.

    A file of this machine is read where it is. What comes from elsewhere is kept by its sha256 below `models` in the
    user's cache; what no manifest vouches for, or came in the form of Gradient's SDK, is kept inside the `with` only.
    `say` gets a line on what was done. Raises `UserError` for whatever is wrong; no part of a file is left then.
    """
    with contextlib.ExitStack() as stack:
        try:
            model = _fetch(source, stack, say, policy or RetryPolicy())
        except PublishError as error:
            raise UserError(f"{scrub(source)} could not be fetched: {error}") from error
        except OSError as error:
            place = error.filename or scrub(source)
            raise UserError(f"{place}: the model cannot be read or kept: {error.strerror or error}.") from error
        yield model


def _fetch(source: str, stack: contextlib.ExitStack, say: Say, policy: RetryPolicy) -> FetchedModel:
    shown = scrub(source)
    remote = within_seconds(policy.total_seconds, shown, lambda: find_remote_model(source, policy, say))
    if remote:
        return _bring(remote, shown, stack, say, policy)
    path = _local_file(source)
    content = _without_form(path, stack, say)
    return FetchedModel(content, read_manifest(content, path.parent), str(path))


def _bring(remote: RemoteModel, shown: str, stack: contextlib.ExitStack, say: Say, policy: RetryPolicy) -> FetchedModel:
    """Copy the manifest and the weights into a folder of their own, and from there whole weights into the cache."""
    staging = _staging(stack)

    def get(name: str) -> Path:
        target = staging / name
        within_seconds(policy.total_seconds, shown, lambda: remote.copy(name, target))
        return target

    manifest = None
    with contextlib.suppress(FileNotFoundError):
        manifest = parse_manifest(get(MANIFEST_FILE).read_bytes(), f"{MANIFEST_FILE} of {shown}")
    name = remote.file or (manifest.file if manifest else None)
    if name is None:
        raise UserError(f"{shown} has no {MANIFEST_FILE}, so it is no model that publish wrote.")
    sha256 = manifest.sha256_of(name) if manifest else None
    kept = staging.parent / sha256 / name if sha256 else None
    if kept and kept.is_file() and file_sha256(kept) == sha256:
        say(f"cached   {kept}, sha256 as in the manifest")
        return FetchedModel(kept, manifest, shown)
    try:
        path = get(name)
    except FileNotFoundError:
        raise UserError(f"{shown}: there is no file {name}.") from None
    megabytes = path.stat().st_size / _MEGABYTE
    path = _without_form(path, stack, say)
    if manifest is None or kept is None:
        say(f"fetched  {megabytes:.1f} MB, with no manifest to check it against")
        return FetchedModel(path, None, shown)
    problem = difference(path, manifest, name)
    if problem:
        raise UserError(f"{name} of {shown} is not the file that {MANIFEST_FILE} there describes: {problem}.")
    kept.parent.mkdir(exist_ok=True)
    path.replace(kept)
    say(f"fetched  {megabytes:.1f} MB to {kept}, sha256 as in the manifest")
    return FetchedModel(kept, manifest, shown)


def _local_file(source: str) -> Path:
    """The file that a path means: itself, or the one that a manifest names, in a folder or in the best/ of a search."""
    path = Path(unquote(source.removeprefix("file://")) if source.startswith("file://") else source).expanduser()
    if (path / SETTINGS_FILE).is_file():
        path = path / BEST_FOLDER
    if path.is_dir():
        inside = sorted(manifest.parent for manifest in path.glob(f"*/{MANIFEST_FILE}"))
        if inside and not (path / MANIFEST_FILE).is_file():
            raise UserError(f"{path} holds models in folders of their own; name one: {', '.join(map(str, inside))}.")
        path = path / find_manifest(path).file
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    return path


def _without_form(path: Path, stack: contextlib.ExitStack, say: Say) -> Path:
    """`path`, or the file within it where it is an upload of Paperspace's SDK."""
    if not is_form(path):
        return path
    content = unwrap_form(path, _staging(stack))
    say(f"note     took {content.name} out of the multipart form in which Paperspace's SDK uploads files")
    return content


def _staging(stack: contextlib.ExitStack) -> Path:
    """A folder for the time of `stack`, on the cache's disk, so that a whole file can be renamed into the cache."""
    cache = default_cache_folder() / _CACHE
    cache.mkdir(parents=True, exist_ok=True)
    # A thread that was given up may still write here.
    folder = tempfile.TemporaryDirectory(prefix=".partial-", dir=cache, ignore_cleanup_errors=True)
    return Path(stack.enter_context(folder))
