"""Publishes to the Hugging Face Hub, as one commit to a model repository."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import (
    BUSY_STATUSES,
    PublishError,
    RetryPolicy,
    TransientError,
    parse_retry_after,
    with_retries,
    within_seconds,
)
from tune_cifar.publish.target import Receipt, Say

Outcome = TypeVar("Outcome")

DEFAULT_ENDPOINT = "https://huggingface.co"
# https://huggingface.co/docs/huggingface_hub/package_reference/utilities#huggingface_hub.utils.validate_repo_id
_REPOSITORY = re.compile(r"hf://([A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})/?")


@dataclass(frozen=True)
class HuggingFaceTarget:
    """`hf://ORG/NAME`: the files at the root of that repository, which is made private if it is not there."""

    text: str
    repository: str
    policy: RetryPolicy

    @property
    def endpoint(self) -> str:
        """The Hub's address: HF_ENDPOINT or the public one."""
        return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")

    def check(self) -> None:
        """The client and a key must be there."""
        self.check_client()
        from huggingface_hub import get_token

        if not get_token():
            raise UserError(f"{self.text}: no key for the Hugging Face Hub; run `hf auth login` or set HF_TOKEN.")

    def check_client(self) -> None:
        """The client must be there."""
        if find_spec("huggingface_hub") is None:
            raise UserError(f"{self.text} needs huggingface_hub: pip install 'tune-cifar[publish]'.")

    def describe(self, name: str) -> str:
        """The repository."""
        return f"one commit to {self.endpoint}/{self.repository}, made private if it is new"

    def publish(self, bundle: Bundle, *, again: bool, recorded: PublishedModel | None, say: Say) -> Receipt:
        """Make the repository if needed and commit: all files appear at once. The Hub makes no empty commit."""
        # The client sets no time limit of its own on most of its requests.
        after = "; what was asked may still be done there"
        return within_seconds(self.policy.total_seconds, self.endpoint, lambda: self._publish(bundle, say), after=after)

    def _publish(self, bundle: Bundle, say: Say) -> Receipt:
        from huggingface_hub import CommitOperationAdd

        api = self._api()
        self._try(lambda: api.create_repo(self.repository, private=True, exist_ok=True), say)
        head = self._try(lambda: api.model_info(self.repository).sha, say)

        def commit() -> Any:
            additions = [CommitOperationAdd(file.name, str(file.path)) for file in bundle.files]
            message = f"{bundle.name}: {bundle.manifest.metric} {bundle.manifest.metric_value:.6g}"
            return api.create_commit(self.repository, additions, commit_message=message)

        done = self._try(commit, say)
        self._try(lambda: self._verify(api, bundle), say)
        return Receipt(uri=f"{self.endpoint}/{self.repository}", id=str(done.oid), existed=done.oid == head)

    def newest_commit(self, say: Say) -> str:
        """The hash of the main branch's last commit."""
        return str(self._try(lambda: self._api().model_info(self.repository).sha, say))

    def download(self, name: str, commit: str, target: Path, say: Say) -> None:
        """Bring the file `name` as of `commit`; raises `FileNotFoundError` where there is none."""
        from huggingface_hub.errors import RemoteEntryNotFoundError

        def get() -> str | None:
            try:
                folder = target.parent / ".hub"  # the client writes notes of its own beside the file
                return str(self._api().hf_hub_download(self.repository, name, revision=commit, local_dir=folder))
            except RemoteEntryNotFoundError:
                return None

        path = self._try(get, say)
        if path is None:
            raise FileNotFoundError(name)
        Path(path).replace(target)

    def _api(self) -> Any:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # they would fill a log with dozens of lines
        return HfApi(endpoint=self.endpoint, token=get_token())

    def _verify(self, api: Any, bundle: Bundle) -> None:
        names = [file.name for file in bundle.files]
        sizes = {info.path: info.size for info in api.get_paths_info(self.repository, names)}
        wrong = [file.name for file in bundle.files if sizes.get(file.name) != file.size_bytes]
        if wrong:
            raise PublishError(f"the commit to {self.repository} shows another size for {', '.join(wrong)}")

    def _try(self, action: Callable[[], Outcome], say: Say) -> Outcome:
        """Run a call of the client, which itself tries some of its requests again, but not all."""

        def call() -> Outcome:
            try:
                return action()
            except PublishError:
                raise
            except Exception as error:
                raise self._failure(error) from error

        return with_retries(call, self.policy, say)

    def _failure(self, error: BaseException) -> PublishError:
        """What went wrong, and whether it may pass."""
        from huggingface_hub.errors import HfHubHTTPError

        # What befell a large file comes wrapped in a RuntimeError that only names the file.
        while not isinstance(error, HfHubHTTPError) and error.__cause__ is not None:
            error = error.__cause__
        if isinstance(error, HfHubHTTPError):
            return _status_error(error, self.repository)
        text = f"{self.endpoint}: {type(error).__name__}: {error}"
        is_connection = isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "httpcore"))
        return TransientError(text) if is_connection else PublishError(text)


def parse_hugging_face(text: str, policy: RetryPolicy) -> HuggingFaceTarget:
    """Read `hf://ORG/NAME`; raises `UserError`."""
    match = _REPOSITORY.fullmatch(text)
    if match is None:
        raise UserError(f"{text}: write hf://ORG/NAME, of letters, digits, '.', '_' and '-'.")
    return HuggingFaceTarget(text, match[1], policy)


def _status_error(error: Any, repository: str) -> PublishError:
    status = error.response.status_code
    text = f"hf://{repository}: {status} {error.server_message or str(error)[:200]}"
    if status in BUSY_STATUSES:
        return TransientError(text, parse_retry_after(error.response.headers.get("Retry-After")))
    if status in (401, 403):
        return PublishError(f"{text}; a key is needed that may do this there")
    return PublishError(text)
