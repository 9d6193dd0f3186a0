"""Uploads one model through Paperspace's SDK; a script for the Python of that SDK's own environment, which lacks ours.

It reads one JSON object from standard input (path, name, sha256, project_id, known_id, again, reply_seconds) and
writes one to standard output: {"id", "existed"}, or {"error", "kind", "retry_after", "left"}. The key is read from
PAPERSPACE_API_KEY alone.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 10.0


class ReadBackError(Exception):
    """What was uploaded does not read back as what was sent."""


class Wire:
    """What the SDK throws away and an answer needs: the last status, and models that could not be deleted."""

    def __init__(self) -> None:
        self.status = 0
        self.retry_after: str | None = None
        self.left: list[str] = []


def main() -> int:
    """Answer the one order of standard input; on SIGINT, delete what was begun and end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts by `command &` ignores it
    order = json.load(sys.stdin)
    wire = Wire()
    warnings.simplefilter("ignore")  # the SDK warns of its own end at import
    requests = importlib.import_module("requests")
    sdk = importlib.import_module("gradient")
    _prepare(requests, wire, float(order["reply_seconds"]))
    client = sdk.ModelsClient(api_key=os.environ["PAPERSPACE_API_KEY"])
    try:
        answer = _upload(client, requests, order, wire)
    except (Exception, KeyboardInterrupt) as error:
        kind = _kind(error, requests, wire)
        answer = {"error": f"{type(error).__name__}: {error}", "kind": kind, "retry_after": wire.retry_after}
    json.dump({**answer, "left": wire.left}, sys.stdout)
    return 0


def _upload(client: Any, requests: Any, order: dict[str, Any], wire: Wire) -> dict[str, Any]:
    note = f"sha256:{order['sha256']}"
    for model in client.list(project_id=order["project_id"]):
        if model.name == order["name"] and (note in (model.notes or "") or model.id == order["known_id"]):
            try:
                _verify(client, requests, model.id, order)
            except ReadBackError:
                # Left by an attempt that was cut off: the note says that it was to be this file.
                client.delete(model.id)
            else:
                if not order["again"]:
                    return {"id": model.id, "existed": True}
    model_id = client.upload(
        path=order["path"], name=order["name"], model_type="Custom", notes=note, project_id=order["project_id"]
    )
    try:
        _verify(client, requests, model_id, order)
    except BaseException:
        wire.left.append(model_id)
        client.delete(model_id)
        wire.left.remove(model_id)
        raise
    return {"id": model_id, "existed": False}


def _verify(client: Any, requests: Any, model_id: str, order: dict[str, Any]) -> None:
    """Compare the stored object with the file by size and, where a link is given, by sha256."""
    path = Path(order["path"])
    files = [file for file in client.get_model_files(model_id, links=True, size=True) if file.file == path.name]
    if not files:
        raise ReadBackError(f"the model has no file {path.name}")
    expected_bytes = path.stat().st_size
    if files[0].size is not None and files[0].size != expected_bytes:
        raise ReadBackError(f"{path.name} has {files[0].size} bytes there and {expected_bytes} here")
    if files[0].url:
        digest = hashlib.sha256()
        with requests.get(files[0].url, stream=True) as response:
            response.raise_for_status()
            for chunk in response.iter_content(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != order["sha256"]:
            raise ReadBackError(f"{path.name} reads back with another sha256")
    elif files[0].size is None:
        raise ReadBackError("neither the size nor a link of what arrived can be had")


def _prepare(requests: Any, wire: Wire, reply_seconds: float) -> None:
    """Give the SDK's requests a time limit and its upload the file itself, and note what it drops."""
    uploader = importlib.import_module("gradient.api_sdk.s3_uploader")
    models = importlib.import_module("gradient.api_sdk.repositories.models")
    errors = importlib.import_module("gradient.api_sdk.sdk_exceptions")
    request, delete_model = requests.Session.request, models.UploadModel._delete_model

    def request_with_limit(session: Any, method: str, url: str, **options: Any) -> Any:
        wire.status, wire.retry_after = 0, None
        options.setdefault("timeout", (CONNECT_SECONDS, reply_seconds))
        response = request(session, method, url, **options)
        wire.status, wire.retry_after = response.status_code, response.headers.get("Retry-After")
        return response

    def put_file(self: Any, url: str, data: Any) -> None:
        # The SDK sends a multipart form to an address that stores whatever it gets, so the stored object would be
        # the form and torch.load would refuse it. The object has to be the file.
        with Path(data.encoder.fields["file"][0]).open("rb") as file:
            response = requests.put(url, data=file, headers={"Content-Type": ""})
        if not response.ok:
            raise errors.S3UploadFailedError(f"the store answered {response.status_code}")

    def delete_or_note(self: Any, model_id: str) -> None:
        status, retry_after = wire.status, wire.retry_after
        try:
            delete_model(self, model_id)
        except Exception:
            wire.left.append(model_id)
        wire.status, wire.retry_after = status, retry_after  # the answer is about the failure before

    requests.Session.request = request_with_limit
    uploader.S3PutFileUploader._upload = put_file
    models.UploadModel._delete_model = delete_or_note


def _kind(error: BaseException, requests: Any, wire: Wire) -> str:
    if isinstance(error, ReadBackError | KeyboardInterrupt):
        return "failed"
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "unreachable"
    if wire.status in (401, 403) or "Invalid API token" in str(error):
        return "key"
    if wire.status in (404, 410, 501):
        return "gone"
    return "busy" if wire.status in (408, 429) or wire.status >= 500 else "failed"


if __name__ == "__main__":
    sys.exit(main())
