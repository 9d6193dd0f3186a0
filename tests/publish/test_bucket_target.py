from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

from tests.publish.conftest import NAME, Store
from tests.publish.loopback import Fault
from tune_cifar.errors import UserError
from tune_cifar.publish.bucket_target import BucketTarget, parse_bucket
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.retry import PublishError, RetryPolicy

PREFIX = f"models/{NAME}"


@pytest.fixture
def target(policy: RetryPolicy) -> BucketTarget:
    return parse_bucket("s3://bucket/models/", policy)


def _publish(target: BucketTarget, bundle: Bundle, *, again: bool = False) -> bool:
    receipt = target.publish(bundle, again=again, recorded=None, say=lambda line: None)
    assert receipt.uri == f"s3://bucket/{PREFIX}"
    return receipt.existed


def _contents(bundle: Bundle) -> dict[str, bytes]:
    return {f"{PREFIX}/{file.name}": file.path.read_bytes() for file in bundle.files}


def test_a_resnet_arrives_and_loads(store: Store, target: BucketTarget, resnet_bundle: Bundle) -> None:
    bundle = resnet_bundle
    target.check()
    assert not _publish(target, bundle)
    objects = store.objects()
    assert objects == _contents(bundle)
    loaded = torch.load(io.BytesIO(objects[f"{PREFIX}/{NAME}.pth"]), weights_only=True)
    torchvision.models.resnet18(num_classes=10).load_state_dict(loaded)
    # A store may have shown the manifest to a reader since it came, so it must come last.
    written = [request.path for request in store.proxy.requests if request.method in ("PUT", "POST")]
    assert written[-1].endswith("manifest.json")


def test_a_second_time_sends_nothing(store: Store, target: BucketTarget, bundle: Bundle) -> None:
    assert not _publish(target, bundle)
    store.proxy.requests.clear()
    assert _publish(target, bundle)
    assert store.proxy.asked("PUT") + store.proxy.asked("POST") == []
    assert not _publish(target, bundle, again=True)
    assert store.proxy.asked("PUT")
    assert store.objects() == _contents(bundle)


def test_a_model_of_which_a_part_is_missing_is_sent_again(store: Store, target: BucketTarget, bundle: Bundle) -> None:
    _publish(target, bundle)
    store.client.delete_object(Bucket="bucket", Key=f"{PREFIX}/{NAME}.pth")
    assert not _publish(target, bundle)
    assert store.objects() == _contents(bundle)


def test_another_model_of_that_name_is_kept(store: Store, target: BucketTarget, bundle: Bundle) -> None:
    theirs = json.dumps({"sha256": "other"}).encode()
    store.client.put_object(Bucket="bucket", Key=f"{PREFIX}/manifest.json", Body=theirs)
    with pytest.raises(PublishError, match="holds another model under that name; --again replaces it"):
        _publish(target, bundle)
    assert store.objects() == {f"{PREFIX}/manifest.json": theirs}
    assert not _publish(target, bundle, again=True)
    assert store.objects() == _contents(bundle)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", status=503, body=b""),
        Fault("PUT", status=500, body=b""),
        Fault("PUT", "drop"),
        Fault("PUT", "drop after"),
    ],
    ids=["503", "500", "broken", "broken after"],
)
def test_what_passes_is_outlived(store: Store, target: BucketTarget, bundle: Bundle, fault: Fault) -> None:
    store.proxy.faults = [fault]
    assert not _publish(target, bundle)
    assert store.objects() == _contents(bundle)


def test_a_connection_that_breaks_within_a_file_is_outlived(
    store: Store, target: BucketTarget, resnet_bundle: Bundle
) -> None:
    store.proxy.faults = [Fault(f"PUT /bucket/{PREFIX}/{NAME}.pth", "break")]
    assert not _publish(target, resnet_bundle)
    assert store.objects() == _contents(resnet_bundle)


def test_connections_that_always_break_within_a_file_leave_nothing(
    store: Store, target: BucketTarget, resnet_bundle: Bundle
) -> None:
    store.proxy.faults = [Fault(f"PUT /bucket/{PREFIX}/{NAME}.pth", "break", times=99)]
    with pytest.raises(PublishError, match=r"sending .*\.pth failed: .*; nothing is left there"):
        _publish(target, resnet_bundle)
    assert store.objects() == {}


def test_a_failure_leaves_nothing(store: Store, target: BucketTarget, bundle: Bundle) -> None:
    store.proxy.faults = [Fault(f"PUT /bucket/{PREFIX}/README.md", status=403, times=9, body=b"")]
    with pytest.raises(PublishError, match=r"sending README\.md failed: .*; nothing is left there"):
        _publish(target, bundle)
    assert store.objects() == {}


def test_a_failed_replacement_says_that_the_model_before_is_gone(
    store: Store, target: BucketTarget, bundle: Bundle
) -> None:
    _publish(target, bundle)
    store.proxy.faults = [Fault(f"PUT /bucket/{PREFIX}/README.md", status=403, times=9, body=b"")]
    with pytest.raises(PublishError, match=r"nothing is left there, and the model that was there is gone"):
        _publish(target, bundle, again=True)
    assert store.objects() == {}


def test_what_could_not_be_taken_away_is_named(store: Store, target: BucketTarget, bundle: Bundle) -> None:
    store.proxy.faults = [
        Fault(f"PUT /bucket/{PREFIX}/README.md", status=403, times=9, body=b""),
        Fault("DELETE", status=403, times=99, body=b""),
    ]
    with pytest.raises(PublishError, match=rf"may be left there, without a whole model: .*{PREFIX}/{NAME}\.pth"):
        _publish(target, bundle)
    assert f"{PREFIX}/manifest.json" not in store.objects()


def test_a_store_that_lost_bytes_is_noticed(store: Store, target: BucketTarget, bundle: Bundle) -> None:
    claims_more = replace(bundle.files[1], size_bytes=bundle.files[1].size_bytes + 1)
    wrong = replace(bundle, files=(bundle.files[0], claims_more, *bundle.files[2:]))
    with pytest.raises(PublishError, match=r"the sizes in the store differ .*; nothing is left there"):
        _publish(target, wrong)
    assert store.objects() == {}


def test_a_missing_bucket_is_told(store: Store, bundle: Bundle, policy: RetryPolicy) -> None:
    with pytest.raises(PublishError, match="does not exist"):
        parse_bucket("s3://nobucket/x", policy).publish(bundle, again=False, recorded=None, say=print)


def test_a_store_that_hangs_is_given_up(store: Store, bundle: Bundle, target: BucketTarget) -> None:
    impatient = replace(target, policy=RetryPolicy(attempts=1, reply_seconds=1))
    store.proxy.faults = [Fault("", "hang", times=9)]
    with pytest.raises(PublishError, match="Timeout was reached"):
        _publish(impatient, bundle)


def test_no_key_is_in_what_is_told(
    store: Store, target: BucketTarget, bundle: Bundle, tmp_path: Path, no_keys_in: Callable[[str, Path], None]
) -> None:
    store.proxy.faults = [Fault("PUT", status=403, times=9, body=os.environ["AWS_SECRET_ACCESS_KEY"].encode())]
    with pytest.raises(PublishError) as failure:
        _publish(target, bundle)
    no_keys_in(str(failure.value), tmp_path)


def test_the_address_of_the_store(policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "s3://b/p?endpoint_override=minio:9000&scheme=http&region=eu-1"
    assert parse_bucket(query, policy).endpoint == "http://minio:9000"
    assert parse_bucket("s3://b?endpoint_override=ams3.digitaloceanspaces.com", policy).endpoint == (
        "https://ams3.digitaloceanspaces.com"
    )
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert parse_bucket("s3://b/p", policy).endpoint is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://spaces")
    assert parse_bucket("s3://b/p", policy).endpoint == "https://spaces"
    assert parse_bucket("gs://b/p", policy).endpoint is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://AKIA:secretword@bucket/x", "must not hold a key"),
        ("s3://bucket/x?secret_key=secretword", "after the \\? may stand only endpoint_override, region, scheme"),
        ("s3:///x", "the bucket is missing"),
        ("s3://bucket?scheme=ftp", "scheme must be http or https"),
    ],
)
def test_wrong_addresses_are_told_without_their_keys(text: str, message: str, policy: RetryPolicy) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_bucket(text, policy)
    assert "secretword" not in str(error.value)


def test_a_missing_key_is_told(policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_")):
            monkeypatch.delenv(name)
    with pytest.raises(UserError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        parse_bucket("s3://bucket/x", policy).check()
    with pytest.raises(UserError, match="gcloud auth"):
        parse_bucket("gs://bucket/x", policy).check()
    credentials = Path("~/.aws/credentials").expanduser()
    credentials.parent.mkdir()
    credentials.touch()
    parse_bucket("s3://bucket/x", policy).check()
