"""What does not depend on where a model comes from: cache, checksums and forms of files; S3 stands for all places."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.publish.conftest import NAME, Store
from tests.publish.loopback import Fault
from tests.publish.test_model_file import wrap
from tune_cifar.errors import UserError
from tune_cifar.publish.bucket_target import parse_bucket
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.fetching import fetched_model
from tune_cifar.publish.retry import RetryPolicy

SOURCE = f"s3://bucket/models/{NAME}"
PREFIX = f"models/{NAME}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNE_CIFAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def published(store: Store, bundle: Bundle, policy: RetryPolicy, cache: Path) -> Store:
    """The store with the bundle in it."""
    parse_bucket("s3://bucket/models", policy).publish(bundle, again=False, recorded=None, say=print)
    store.proxy.requests.clear()
    return store


class Fetch:
    """Fetches a model and returns the bytes of its weights, and whether a manifest vouches for them."""

    def __init__(self, policy: RetryPolicy, said: list[str]) -> None:
        self.policy, self.said = policy, said

    def __call__(self, source: str | Path) -> tuple[bytes, bool]:
        with fetched_model(str(source), self.said.append, self.policy) as model:
            return model.path.read_bytes(), model.manifest is not None


@pytest.fixture
def fetch(policy: RetryPolicy, said: list[str]) -> Fetch:
    return Fetch(policy, said)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_model_is_fetched_once(published: Store, bundle: Bundle, fetch: Fetch, cache: Path, said: list[str]) -> None:
    kept = f"{bundle.weights.sha256}/{NAME}.pth"
    assert fetch(SOURCE) == (bundle.weights.path.read_bytes(), True)
    assert said == [f"fetched  0.0 MB to {cache / kept}, sha256 as in the manifest"]
    assert _files(cache) == [bundle.weights.sha256, kept]
    published.proxy.requests.clear()
    assert fetch(f"{SOURCE}/") == (bundle.weights.path.read_bytes(), True)
    assert said[1:] == [f"cached   {cache / kept}, sha256 as in the manifest"]
    assert not published.proxy.asked(f"GET /bucket/{PREFIX}/{NAME}.pth")


def test_a_cached_file_that_was_changed_is_fetched_again(
    published: Store, bundle: Bundle, fetch: Fetch, cache: Path, said: list[str]
) -> None:
    fetch(SOURCE)
    (cache / bundle.weights.sha256 / f"{NAME}.pth").write_bytes(b"other")
    assert fetch(SOURCE) == (bundle.weights.path.read_bytes(), True)
    assert said[-1].startswith("fetched ")
    assert fetch(SOURCE) == (bundle.weights.path.read_bytes(), True)
    assert said[-1].startswith("cached ")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_checked_against_the_manifest_beside_it(
    published: Store, bundle: Bundle, fetch: Fetch, cache: Path, suffix: str
) -> None:
    (file,) = [file for file in bundle.files if file.name.endswith(suffix)]
    assert fetch(f"{SOURCE}/{NAME}{suffix}") == (file.path.read_bytes(), True)
    assert _files(cache) == [file.sha256, f"{file.sha256}/{file.name}"]


def test_a_file_that_no_manifest_vouches_for_is_not_kept(
    published: Store, bundle: Bundle, fetch: Fetch, cache: Path, said: list[str]
) -> None:
    published.client.delete_object(Bucket="bucket", Key=f"{PREFIX}/manifest.json")
    assert fetch(f"{SOURCE}/{NAME}.pth") == (bundle.weights.path.read_bytes(), False)
    assert said == ["fetched  0.0 MB, with no manifest to check it against"]
    assert _files(cache) == []
    with pytest.raises(UserError, match=r"has no manifest\.json, so it is no model that publish wrote"):
        fetch(SOURCE)


@pytest.mark.parametrize("size", ["same", "other"])
def test_what_is_not_the_manifests_file_is_refused(
    published: Store, bundle: Bundle, fetch: Fetch, cache: Path, size: str
) -> None:
    content = bundle.weights.path.read_bytes()
    changed = content[:-1] + b"x" if size == "same" else content[:-1]
    published.client.put_object(Bucket="bucket", Key=f"{PREFIX}/{NAME}.pth", Body=changed)
    sizes = f"it has {len(content) - 1} bytes, where the manifest has {len(content)}"
    problem = "its sha256 differs" if size == "same" else sizes
    with pytest.raises(UserError, match=rf"is not the file that manifest\.json there describes: {problem}"):
        fetch(SOURCE)
    assert _files(cache) == []


def test_a_manifest_that_points_elsewhere_is_refused(published: Store, fetch: Fetch, cache: Path) -> None:
    values = json.loads(published.objects()[f"{PREFIX}/manifest.json"]) | {"file": "../../evil.pth"}
    published.client.put_object(Bucket="bucket", Key=f"{PREFIX}/manifest.json", Body=json.dumps(values).encode())
    with pytest.raises(UserError, match=rf"manifest\.json of {SOURCE} is not a manifest of this project"):
        fetch(SOURCE)
    assert _files(cache) == []


def test_a_missing_file_is_told(published: Store, fetch: Fetch) -> None:
    published.client.delete_object(Bucket="bucket", Key=f"{PREFIX}/{NAME}.pth")
    with pytest.raises(UserError, match=rf"{SOURCE}: there is no file {NAME}\.pth"):
        fetch(SOURCE)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(f"GET /bucket/{PREFIX}", status=503, body=b""),
        Fault(f"GET /bucket/{PREFIX}", "drop"),
        Fault(f"GET /bucket/{PREFIX}/{NAME}", "cut"),
        Fault(f"GET /bucket/{PREFIX}/{NAME}", "slow", delay_seconds=1),
    ],
    ids=["503", "broken", "broken within", "slow"],
)
def test_what_passes_is_outlived(published: Store, bundle: Bundle, fetch: Fetch, fault: Fault) -> None:
    published.proxy.faults = [fault]
    assert fetch(SOURCE) == (bundle.weights.path.read_bytes(), True)


def test_a_store_that_hangs_is_given_up(published: Store, fetch: Fetch, cache: Path, tmp_path: Path) -> None:
    published.proxy.faults = [Fault(f"GET /bucket/{PREFIX}/{NAME}", "hang", times=9)]
    fetch.policy = RetryPolicy(attempts=1, reply_seconds=1, total_seconds=20)
    with pytest.raises(UserError, match=rf"{SOURCE} could not be fetched: reading {NAME}\.pth failed: .*Timeout"):
        fetch(SOURCE)
    assert _files(cache) == []


def test_a_store_that_takes_too_long_is_given_up(published: Store, fetch: Fetch) -> None:
    published.proxy.faults = [Fault(f"GET /bucket/{PREFIX}", "slow", delay_seconds=3)]
    fetch.policy = RetryPolicy(attempts=1, reply_seconds=20, total_seconds=0.5)
    with pytest.raises(UserError, match=rf"{SOURCE} did not answer within 0.5 s$"):
        fetch(SOURCE)


def test_no_key_is_told(published: Store, fetch: Fetch, keys: dict[str, str]) -> None:
    body = f"<Error><Message>{keys['AWS_SECRET_ACCESS_KEY']}</Message></Error>".encode()
    published.proxy.faults = [Fault("", status=403, body=body, times=9)]
    with pytest.raises(UserError) as failure:
        fetch(SOURCE)
    assert keys["AWS_SECRET_ACCESS_KEY"] not in str(failure.value)
    with pytest.raises(UserError) as failure:
        fetch("s3://user:secretword@bucket/x")
    assert "secretword" not in str(failure.value)


def test_a_folder_a_search_and_a_file_are_read_where_they_are(
    search: Path, bundle: Bundle, fetch: Fetch, cache: Path, said: list[str]
) -> None:
    weights = bundle.weights.path.read_bytes()
    place = bundle.weights.path.parent
    for source in (search, search / "best", search / "best" / f"{NAME}.pth", place, f"file://{quote(str(place))}"):
        assert fetch(source) == (weights, True), source
    assert fetch(place / f"{NAME}.safetensors") == (bundle.files[1].path.read_bytes(), True)
    assert (said, cache.exists()) == ([], False)


def test_a_form_around_a_file_is_taken_off(bundle: Bundle, fetch: Fetch, cache: Path, said: list[str]) -> None:
    weights = bundle.weights.path.read_bytes()
    bundle.weights.path.write_bytes(wrap(weights, f"results/best/{NAME}.pth"))
    assert fetch(bundle.weights.path) == (weights, True)
    assert said == [f"note     took {NAME}.pth out of the multipart form in which Paperspace's SDK uploads files"]
    assert _files(cache) == []
    bundle.weights.path.write_bytes(wrap(weights[:-1] + b"x", f"{NAME}.pth"))
    with pytest.raises(UserError, match="its sha256 differs"):
        fetch(bundle.weights.path)
    assert _files(cache) == []


def test_a_form_in_a_bucket_is_taken_off(published: Store, bundle: Bundle, fetch: Fetch, cache: Path) -> None:
    weights = bundle.weights.path.read_bytes()
    published.client.put_object(Bucket="bucket", Key=f"{PREFIX}/{NAME}.pth", Body=wrap(weights, "x.pth"))
    assert fetch(SOURCE) == (weights, True)
    assert _files(cache) == [bundle.weights.sha256, f"{bundle.weights.sha256}/{NAME}.pth"]
    assert fetch(SOURCE) == (weights, True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.pth", r"There is no file nowhere\.pth\."),
        ("results", r"There is no model in results: no manifest\.json"),
        ("models", r"models holds models in folders of their own; name one: models/a, models/b"),
        ("ftp://host/x", r"ftp:// is no place that a model comes from; there are results/NAME, "),
        ("hf://x", r"write hf://ORG/NAME"),
    ],
)
def test_mistakes_are_told(
    search: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "manifest.json").touch()
    with pytest.raises(UserError, match=message):
        fetch(source)


def test_a_cache_that_cannot_be_written_is_told(published: Store, fetch: Fetch, cache: Path) -> None:
    cache.parent.write_text("a file")
    with pytest.raises(UserError, match=r"cache/?.*: the model cannot be read or kept: "):
        fetch(SOURCE)


def test_what_comes_back_is_never_unpickled(published: Store, fetch: Fetch, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    body = pickle.dumps(Code(), protocol=2)
    published.client.put_object(Bucket="bucket", Key="other/ResNet18-epchs-5.pth", Body=body)
    assert fetch("s3://bucket/other/ResNet18-epchs-5.pth") == (body, False)
    assert not (tmp_path / "executed").exists()
