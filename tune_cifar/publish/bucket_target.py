"""Publishes into a bucket of object storage, S3 or Google's, through pyarrow's filesystems."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tune_cifar.bucket_address import BucketAddress, parse_address
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.manifest import MANIFEST_FILE
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import PublishError, RetryPolicy
from tune_cifar.publish.target import Receipt, Say

Outcome = TypeVar("Outcome")

CHUNK_BYTES = 4 * 2**20


class BucketTarget(BucketAddress):
    """`s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`: the files become PREFIX/<name>/<file>."""

    def uri(self, name: str) -> str:
        """Where the model's files are, without the query."""
        return f"{self.scheme}://{self.path}/{name}"

    def describe(self, name: str) -> str:
        """The folder of the bucket, and the store if it is not the usual one."""
        return f"to {self.uri(name)}/" + (f" at {self.endpoint}" if self.endpoint else "")

    def publish(self, bundle: Bundle, *, again: bool, recorded: PublishedModel | None, say: Say) -> Receipt:
        """Put the files, the manifest last: a reader who finds it finds a whole model. Sizes are compared after."""
        receipt = Receipt(uri=self.uri(bundle.name), id=bundle.name)
        store = self._try("connecting", self.open_store)
        place = f"{self.path}/{bundle.name}"
        there = self._try("looking for the model", lambda: _read_manifest(store, place))
        if there is not None and not again:
            if there != bundle.manifest.sha256:
                raise PublishError(f"{receipt.uri} holds another model under that name; --again replaces it")
            if self._try("comparing sizes", lambda: _is_whole(store, place, bundle)):
                return Receipt(receipt.uri, receipt.id, existed=True)
        try:
            if there is not None:
                self._try("replacing the model", lambda: store.delete_file(f"{place}/{MANIFEST_FILE}"))
            for file in bundle.files:
                self._try(f"sending {file.name}", partial(_put, store, file.path, f"{place}/{file.name}"))
            if not self._try("comparing sizes", lambda: _is_whole(store, place, bundle)):
                raise PublishError("after sending, the sizes in the store differ from those of the files")
        except PublishError as error:
            left = _clean_up(store, place, bundle)
            lost = "" if there is None else ", and the model that was there is gone"
            raise PublishError(f"{error}{left}{lost}") from error
        except KeyboardInterrupt:
            _clean_up(store, place, bundle)
            raise
        return receipt

    def _try(self, doing: str, action: Callable[[], Outcome]) -> Outcome:
        try:
            return action()
        except OSError as error:  # pyarrow's only class for what goes wrong at a store
            raise PublishError(f"{doing} failed: {error}") from error


def parse_bucket(text: str, policy: RetryPolicy) -> BucketTarget:
    """As `parse_address`."""
    return BucketTarget(**vars(parse_address(text, policy)))


def _put(store: Any, source: Path, target: str) -> None:
    with source.open("rb") as file, store.open_output_stream(target) as stream:
        while chunk := file.read(CHUNK_BYTES):
            stream.write(chunk)


def _read_manifest(store: Any, place: str) -> str | None:
    """The sha256 that the manifest at `place` names: "" if it is no manifest, None if there is none."""
    try:
        with store.open_input_stream(f"{place}/{MANIFEST_FILE}") as stream:
            return str(json.loads(stream.read())["sha256"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        return ""


def _is_whole(store: Any, place: str, bundle: Bundle) -> bool:
    found = store.get_file_info([f"{place}/{file.name}" for file in bundle.files])
    return [info.size for info in found] == [file.size_bytes for file in bundle.files]


def _clean_up(store: Any, place: str, bundle: Bundle) -> str:
    """Take away what a failed attempt left; what cannot be is named in the text that is returned."""
    left = []
    for file in reversed(bundle.files):
        try:
            store.delete_file(f"{place}/{file.name}")
        except FileNotFoundError:
            pass
        except OSError:
            left.append(f"{place}/{file.name}")
    return f"; these may be left there, without a whole model: {', '.join(left)}" if left else "; nothing is left there"
