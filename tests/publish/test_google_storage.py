"""`gs://` through Google's real client against a loopback of the JSON API; `s3://` is in test_bucket_target.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.publish.conftest import NAME
from tests.publish.loopback import Fault
from tests.publish.servers import GoogleStorageServer
from tune_cifar.publish.bucket_target import BucketTarget, parse_bucket
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.fetching import fetched_model
from tune_cifar.publish.retry import PublishError, RetryPolicy


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleStorageServer]:
    """The store, and the key of a service account, with which the client signs its own tokens."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "tester@example.com",
        "client_id": "1",
        "private_key_id": "1",
        "private_key": key.decode(),
        "token_uri": "http://127.0.0.1:9/token",
    }
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with GoogleStorageServer() as running:
        yield running


@pytest.fixture
def target(server: GoogleStorageServer) -> BucketTarget:
    policy = RetryPolicy(attempts=3, total_seconds=5)
    return parse_bucket(f"gs://bucket/models?scheme=http&endpoint_override=127.0.0.1:{server.server_port}", policy)


def _publish(target: BucketTarget, bundle: Bundle) -> bool:
    receipt = target.publish(bundle, again=False, recorded=None, say=lambda line: None)
    assert receipt.uri == f"gs://bucket/models/{NAME}"
    return receipt.existed


def test_the_files_arrive_and_are_not_sent_twice(
    server: GoogleStorageServer, target: BucketTarget, bundle: Bundle
) -> None:
    target.check()
    assert not _publish(target, bundle)
    files = {f"models/{NAME}/{file.name}": file.path.read_bytes() for file in bundle.files}
    assert {name: content for name, content in server.objects.items() if not name.endswith("/")} == files
    server.requests.clear()
    assert _publish(target, bundle)
    assert server.asked("POST") + server.asked("PUT") == []


def test_a_model_comes_back(server: GoogleStorageServer, target: BucketTarget, bundle: Bundle, said: list[str]) -> None:
    _publish(target, bundle)
    source = f"gs://bucket/models/{NAME}?scheme=http&endpoint_override=127.0.0.1:{server.server_port}"
    with fetched_model(source, said.append, target.policy) as model:
        assert model.path.read_bytes() == bundle.weights.path.read_bytes()
        assert model.manifest == bundle.manifest


def test_a_busy_store_is_outlived(server: GoogleStorageServer, target: BucketTarget, bundle: Bundle) -> None:
    server.faults = [Fault("PUT /upload", status=503)]
    assert not _publish(target, bundle)


def test_a_failure_leaves_nothing(server: GoogleStorageServer, target: BucketTarget, bundle: Bundle) -> None:
    server.faults = [Fault(f"PUT /upload/models/{NAME}/README.md", status=403, times=99)]
    with pytest.raises(PublishError, match=r"sending README\.md failed: .*; nothing is left there"):
        _publish(target, bundle)
    assert server.objects == {}
