"""Publishes to Paperspace as it is today: the bytes into an S3 bucket, and a record of them by the v1 API.

The v1 API takes no files (https://docs.digitalocean.com/reference/paperspace/pspace/api-reference/): its models are
names with a description, and deployments mount a bucket.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.publish.bucket_target import BucketTarget
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.deployment import write_deployment
from tune_cifar.publish.gradient_target import check_paperspace_key
from tune_cifar.publish.http_api import PAPERSPACE_URL, JsonApi
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import PublishError, RetryPolicy, with_retries
from tune_cifar.publish.target import Receipt, Say

_PAGE_SIZE = 50


@dataclass(frozen=True)
class PaperspaceTarget:
    """`paperspace:s3://BUCKET/PREFIX`: files in the bucket, a model record that names them, a deployment spec.

    `search` is the folder that gets the spec; `storage_provider` and `project_id` are ids at Paperspace, if known.
    """

    text: str
    bucket: BucketTarget
    storage_provider: str | None
    project_id: str | None
    search: Path
    policy: RetryPolicy

    @property
    def url(self) -> str:
        """The API's base address."""
        return os.environ.get("PAPERSPACE_API_URL") or PAPERSPACE_URL

    def check(self) -> None:
        """Both keys must be there, Paperspace's and the bucket's."""
        check_paperspace_key(self.text)
        if not self.url.startswith(("https://", "http://")):
            raise UserError(f"PAPERSPACE_API_URL must start with https://, got {self.url!r}.")
        self.bucket.check()

    def describe(self, name: str) -> str:
        """The bucket and the record."""
        return f"{self.bucket.describe(name)}; then a model record {name} at {self.url}, and a deployment spec"

    def publish(self, bundle: Bundle, *, again: bool, recorded: PublishedModel | None, say: Say) -> Receipt:
        """Put the bytes, register them, write the deployment spec."""
        stored = self.bucket.publish(bundle, again=again, recorded=recorded, say=say)
        api = JsonApi(self.url, os.environ["PAPERSPACE_API_KEY"], self.policy.reply_seconds)
        description = _describe(bundle, stored.uri)

        def find() -> set[str]:
            return {model["id"] for model in _models(api) if _is_same(model, bundle.name, description)}

        try:
            before = with_retries(find, self.policy, say)
            existed = bool(before) and not again
            model_id = min(before) if existed else self._register(api, bundle.name, description, find, before, say)
        except PublishError as error:
            raise PublishError(f"{error}; the files are whole at {stored.uri}, but no record names them") from error
        spec = write_deployment(self.search, bundle, self.bucket)
        say(f"registered as {model_id}, the bytes are at {stored.uri}; {spec} mounts them in a deployment")
        return Receipt(uri=stored.uri, id=model_id, existed=existed)

    def _register(
        self, api: JsonApi, name: str, description: str, find: Callable[[], set[str]], before: set[str], say: Say
    ) -> str:
        """Create the record once, whatever happens to the connection."""
        body = {"name": name, "description": description}
        if self.storage_provider:
            body["storageProviderId"] = self.storage_provider
        if self.project_id:
            body["projectId"] = self.project_id

        def create() -> str:
            # A connection that broke may have broken after the record was made.
            made = find() - before
            return min(made) if made else str(api.request("POST", "/models", body=body)["id"])

        return with_retries(create, self.policy, say)


def _models(api: JsonApi) -> Iterator[dict[str, Any]]:
    """Every model record of the team, a page at a time."""
    query = {"limit": str(_PAGE_SIZE)}
    while True:
        page = api.request("GET", "/models", query=query)
        yield from page["items"]
        if not page.get("hasMore"):
            return
        query = {"limit": str(_PAGE_SIZE), "after": str(page["nextPage"])}


def _is_same(model: dict[str, Any], name: str, description: str) -> bool:
    return model.get("name") == name and model.get("description") == description


def _describe(bundle: Bundle, uri: str) -> str:
    weights = bundle.weights
    score = f"{bundle.manifest.metric} {bundle.manifest.metric_value:.6g}"
    return f"{uri}/{weights.name} sha256:{weights.sha256} ({weights.size_bytes} bytes; {score})"
