"""Reads the address of a place in object storage, S3 or Google's, and opens its store through pyarrow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tune_cifar.errors import UserError
from tune_cifar.publish.retry import RetryPolicy

# What a query after the address may say, by pyarrow's names (https://arrow.apache.org/docs/python/filesystems.html).
_QUERY_KEYS = {"s3": ("endpoint_override", "region", "scheme"), "gs": ("endpoint_override", "scheme")}


@dataclass(frozen=True)
class BucketAddress:
    """`s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`; `path` is BUCKET/PREFIX."""

    text: str
    scheme: str
    path: str
    query: Mapping[str, str]
    policy: RetryPolicy

    @property
    def endpoint(self) -> str | None:
        """The address of a store that is not Amazon's or Google's own, such as `http://127.0.0.1:9000`."""
        override = self.query.get("endpoint_override")
        if override:
            return override if "://" in override else f"{self.query.get('scheme', 'https')}://{override}"
        if self.scheme == "s3":
            return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        return None

    def check(self) -> None:
        """There must be a key, or a machine in the cloud that has one by itself."""
        if not (_has_s3_key() if self.scheme == "s3" else _has_gs_key()):
            how = {
                "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or make ~/.aws/credentials",
                "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
            }
            raise UserError(f"{self.text}: no key for it was found; {how[self.scheme]}.")

    def open_store(self) -> Any:
        """The pyarrow filesystem of the store; raises `OSError` where the bucket's region cannot be had."""
        from pyarrow import fs

        endpoint = urlsplit(self.endpoint) if self.endpoint else None
        options: dict[str, Any] = {}
        if endpoint:
            options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
        if self.scheme == "gs":
            return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=self.policy.total_seconds), **options)
        region = self.query.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if region is None:
            region = "us-east-1" if endpoint else fs.resolve_s3_region(self.path.partition("/")[0])
        # The client itself tries again, on 5xx, throttling and broken connections, with growing, random waits.
        return fs.S3FileSystem(
            region=region,
            request_timeout=self.policy.reply_seconds,
            connect_timeout=min(10.0, self.policy.reply_seconds),
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=self.policy.attempts),
            **options,
        )


def parse_address(text: str, policy: RetryPolicy) -> BucketAddress:
    """Read `s3://BUCKET/PREFIX?endpoint_override=HOST:PORT&scheme=http` and its like; raises `UserError`."""
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise UserError(f"a {parts.scheme}:// target must not hold a key: give it by the environment.")
    if not parts.netloc:
        raise UserError(f"{text}: the bucket is missing; write {parts.scheme}://BUCKET/PREFIX.")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _QUERY_KEYS[parts.scheme]
    if set(query) - set(known):
        # Not echoed: what stands there may be a key.
        raise UserError(f"{parts.scheme}://{parts.netloc}: after the ? may stand only {', '.join(known)}.")
    if query.get("scheme", "https") not in ("http", "https"):
        raise UserError(f"{text}: scheme must be http or https.")
    return BucketAddress(text, parts.scheme, f"{parts.netloc}{parts.path}".rstrip("/"), query, policy)


def _has_s3_key() -> bool:
    # The places of https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        return True
    variables = (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials",
        os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config",
    )
    return any(map(os.environ.get, variables)) or any(map(_is_file, files)) or _machine_is("Amazon EC2")


def _has_gs_key() -> bool:
    # The places of https://cloud.google.com/docs/authentication/application-default-credentials
    files = (
        os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or "",
        "~/.config/gcloud/application_default_credentials.json",
    )
    return any(map(_is_file, files)) or _machine_is("Google")


def _is_file(path: str) -> bool:
    return bool(path) and Path(path).expanduser().is_file()


def _machine_is(vendor: str) -> bool:
    """Whether the firmware says that this is a machine of that cloud, which gives its programs a key."""
    try:
        return Path("/sys/devices/virtual/dmi/id/board_vendor").read_text().strip() == vendor
    except OSError:
        return False
