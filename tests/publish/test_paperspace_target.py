from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tests.publish.conftest import NAME
from tests.publish.loopback import Fault
from tests.publish.servers import PaperspaceServer
from tune_cifar.errors import UserError
from tune_cifar.publish.bucket_target import parse_bucket
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.paperspace_target import PaperspaceTarget
from tune_cifar.publish.retry import PublishError, RetryPolicy
from tune_cifar.publish.target import Receipt


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def api(moto_url: str, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[PaperspaceServer]:
    boto3.client("s3", endpoint_url=moto_url, region_name="us-east-1").create_bucket(Bucket="bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    with PaperspaceServer() as server:
        monkeypatch.setenv("PAPERSPACE_API_URL", f"{server.url}/v1")
        yield server


@pytest.fixture
def target(search: Path, policy: RetryPolicy) -> PaperspaceTarget:
    bucket = parse_bucket("s3://bucket/models", policy)
    return PaperspaceTarget("paperspace:s3://bucket/models", bucket, "sp1", "p1", search, policy)


def _publish(target: PaperspaceTarget, bundle: Bundle, said: list[str], *, again: bool = False) -> Receipt:
    return target.publish(bundle, again=again, recorded=None, say=said.append)


def test_the_record_says_where_the_bytes_are(
    api: PaperspaceServer, target: PaperspaceTarget, bundle: Bundle, said: list[str]
) -> None:
    target.check()
    receipt = _publish(target, bundle, said)
    assert not receipt.existed
    assert api.models[-1] == {
        "id": receipt.id,
        "name": NAME,
        "storageProviderId": "sp1",
        "projectId": "p1",
        "description": f"s3://bucket/models/{NAME}/{NAME}.pth sha256:{bundle.weights.sha256} "
        f"({bundle.weights.size_bytes} bytes; val_loss 0.5)",
    }
    assert receipt.uri == f"s3://bucket/models/{NAME}"
    assert said[-1].startswith(f"registered as {receipt.id}, the bytes are at {receipt.uri}; ")


def test_the_deployment_mounts_it_and_holds_no_key(
    api: PaperspaceServer,
    target: PaperspaceTarget,
    bundle: Bundle,
    search: Path,
    said: list[str],
    no_keys_in: Callable[[str, Path], None],
) -> None:
    _publish(target, bundle, said)
    text = (search / "deployment.yaml").read_text()
    spec = yaml.safe_load(text)
    assert spec["apiVersion"] == "v1"
    assert spec["integrations"] == [
        {
            "type": "s3",
            "name": "best",
            "path": "/models/",
            "url": f"s3://bucket/models/{NAME}/",
            "accessKeyId": "secret:AWS_ACCESS_KEY_ID",
            "secretAccessKey": "secret:AWS_SECRET_ACCESS_KEY",
            "endpoint": target.bucket.endpoint,
        }
    ]
    no_keys_in("".join(said), search)


def test_a_second_time_makes_no_second_record(
    api: PaperspaceServer, target: PaperspaceTarget, bundle: Bundle, said: list[str]
) -> None:
    first = _publish(target, bundle, said)
    second = _publish(target, bundle, said)
    assert (second.id, second.existed) == (first.id, True)
    assert len(api.asked("POST /v1/models")) == 1
    third = _publish(target, bundle, said, again=True)
    assert (third.id != first.id, third.existed) == (True, False)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST /v1/models", status=500, times=2),
        Fault("GET /v1/models", status=429, headers={"Retry-After": "0.2"}),
        Fault("POST /v1/models", "drop"),
        Fault("POST /v1/models", "drop after"),
    ],
    ids=["500", "429", "broken", "broken after it was made"],
)
@pytest.mark.parametrize("again", [False, True])
def test_what_passes_is_outlived_with_one_record(
    api: PaperspaceServer, target: PaperspaceTarget, bundle: Bundle, said: list[str], fault: Fault, again: bool
) -> None:
    api.faults = [replace(fault)]
    receipt = _publish(target, bundle, said, again=again)
    assert [model["id"] for model in api.models if model["name"] == NAME] == [receipt.id]
    assert "trying again in" in said[0]


def test_a_refused_key_is_told_and_the_bytes_are_named(
    api: PaperspaceServer,
    target: PaperspaceTarget,
    bundle: Bundle,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAPERSPACE_API_KEY", "planted-other-key")
    with pytest.raises(PublishError) as failure:
        _publish(target, bundle, said)
    text = str(failure.value)
    assert "401 Invalid API key" in text
    assert f"the files are whole at s3://bucket/models/{NAME}, but no record names them" in text
    assert "planted-other-key" not in text
    assert said == []


def test_a_redirect_does_not_carry_the_key_away(
    api: PaperspaceServer, target: PaperspaceTarget, bundle: Bundle, said: list[str]
) -> None:
    with PaperspaceServer() as elsewhere:
        api.faults = [Fault("GET", status=302, headers={"Location": f"{elsewhere.url}/v1/models"})]
        with pytest.raises(PublishError, match="302"):
            _publish(target, bundle, said)
        assert elsewhere.requests == []


def test_a_server_that_hangs_is_given_up(
    api: PaperspaceServer, target: PaperspaceTarget, bundle: Bundle, said: list[str]
) -> None:
    api.faults = [Fault("GET", "hang", times=9)]
    impatient = replace(target, policy=RetryPolicy(attempts=1, reply_seconds=0.5))
    with pytest.raises(PublishError, match="timed out"):
        _publish(impatient, bundle, said)


def test_missing_keys_are_told(target: PaperspaceTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAPERSPACE_API_KEY", raising=False)
    with pytest.raises(UserError, match="set PAPERSPACE_API_KEY"):
        target.check()
