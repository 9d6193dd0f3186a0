"""The real client of the Hugging Face Hub against a loopback of the Hub, by its LFS protocol."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

from tests.publish.conftest import NAME
from tests.publish.loopback import Fault
from tests.publish.servers import HubServer
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.fetching import fetched_model
from tune_cifar.publish.hugging_face_target import HuggingFaceTarget, parse_hugging_face
from tune_cifar.publish.retry import PublishError, RetryPolicy
from tune_cifar.publish.target import Receipt

# The client gives its own HTTP library a file in a way that this has come to call old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CREATE, COMMIT, LFS = "POST /api/repos/create", "POST /api/models/team/resnet/commit", "PUT /lfs"


@pytest.fixture
def hub(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    # The Hub's other protocol, Xet, speaks to several servers; a Hub without it answers as this one does.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def target(policy: RetryPolicy) -> HuggingFaceTarget:
    return parse_hugging_face("hf://team/resnet", policy)


def _publish(target: HuggingFaceTarget, bundle: Bundle, said: list[str], *, again: bool = False) -> Receipt:
    return target.publish(bundle, again=again, recorded=None, say=said.append)


def test_one_commit_brings_every_file(
    hub: HubServer,
    target: HuggingFaceTarget,
    resnet_bundle: Bundle,
    said: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    bundle = resnet_bundle
    target.check()
    receipt = _publish(target, bundle, said)
    assert capfd.readouterr() == ("", "")  # no progress bars
    assert hub.visibility == "private"
    assert hub.files == {file.name: file.path.read_bytes() for file in bundle.files}
    assert (len(hub.commits), receipt.id, receipt.existed) == (2, hub.commits[-1], False)
    assert receipt.uri == f"{hub.url}/team/resnet"
    loaded = torch.load(io.BytesIO(hub.files[f"{NAME}.pth"]), weights_only=True)
    torchvision.models.resnet18(num_classes=10).load_state_dict(loaded)


def test_a_second_time_makes_no_commit(
    hub: HubServer, target: HuggingFaceTarget, bundle: Bundle, said: list[str]
) -> None:
    first = _publish(target, bundle, said)
    second = _publish(target, bundle, said)
    assert (second.id, second.existed) == (first.id, True)
    assert len(hub.asked(COMMIT)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(CREATE, status=503),
        Fault(CREATE, status=429, headers={"Retry-After": "0.2"}),
        Fault(COMMIT, status=500),
        Fault(COMMIT, "drop"),
        Fault(LFS, status=503),
        Fault(LFS, "break"),
    ],
    ids=["503", "429", "500 at commit", "broken at commit", "503 at a file", "broken within a file"],
)
def test_what_passes_is_outlived(
    hub: HubServer, target: HuggingFaceTarget, bundle: Bundle, said: list[str], fault: Fault
) -> None:
    hub.faults = [replace(fault)]
    _publish(target, bundle, said)
    assert hub.files.keys() == {file.name for file in bundle.files}
    assert len(hub.commits) == 2


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    hub: HubServer, target: HuggingFaceTarget, bundle: Bundle, said: list[str]
) -> None:
    hub.faults = [Fault(COMMIT, "drop after")]
    _publish(target, bundle, said)
    assert len(hub.commits) == 2


def test_a_wrong_size_is_noticed(hub: HubServer, target: HuggingFaceTarget, bundle: Bundle, said: list[str]) -> None:
    _publish(target, bundle, said)
    hub.files["README.md"] += b"x"
    hub.faults = [Fault("POST /api/models/team/resnet/preupload", "status", status=400, times=9)]
    with pytest.raises(PublishError, match="400"):
        _publish(target, bundle, said)
    api_says_more = replace(bundle.files[2], size_bytes=3)
    wrong = replace(bundle, files=(*bundle.files[:2], api_says_more, bundle.files[3]))
    hub.faults = []
    with pytest.raises(PublishError, match=r"another size for README\.md"):
        _publish(target, wrong, said)


def test_a_refused_key_is_told_and_not_shown(
    hub: HubServer,
    target: HuggingFaceTarget,
    bundle: Bundle,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    no_keys_in: Callable[[str, Path], None],
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.faults = [Fault(LFS, status=503)]
    _publish(target, bundle, said)
    no_keys_in(caplog.text + "".join(said), tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_another_planted_key")
    with pytest.raises(PublishError, match="401") as failure:
        _publish(target, bundle, said)
    assert "a key is needed that may do this there" in str(failure.value)
    assert "hf_another_planted_key" not in str(failure.value)


@pytest.mark.parametrize("fault", [None, Fault("GET /team", "cut"), Fault("HEAD /team", status=503)], ids=str)
def test_a_model_comes_back(
    hub: HubServer,
    target: HuggingFaceTarget,
    bundle: Bundle,
    said: list[str],
    policy: RetryPolicy,
    capfd: pytest.CaptureFixture[str],
    fault: Fault | None,
) -> None:
    _publish(target, bundle, said)
    capfd.readouterr()
    hub.faults = [replace(fault)] if fault else []
    with fetched_model("hf://team/resnet", said.append, policy) as model:
        assert model.path.read_bytes() == bundle.weights.path.read_bytes()
        assert (model.manifest, model.shown) == (bundle.manifest, "hf://team/resnet")
    assert fault or capfd.readouterr() == ("", "")


def test_a_public_model_comes_back_without_a_key(
    hub: HubServer,
    target: HuggingFaceTarget,
    bundle: Bundle,
    said: list[str],
    policy: RetryPolicy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _publish(target, bundle, said)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(UserError, match="could not be fetched: hf://team/resnet: 401"):
        fetched_model("hf://team/resnet", said.append, policy).__enter__()
    hub.visibility = "public"
    with fetched_model("hf://team/resnet", said.append, policy) as model:
        assert model.manifest == bundle.manifest
    del hub.files["manifest.json"]
    with pytest.raises(UserError, match=r"hf://team/resnet has no manifest\.json"):
        fetched_model("hf://team/resnet", said.append, policy).__enter__()


def test_a_hub_that_hangs_is_given_up(
    hub: HubServer, target: HuggingFaceTarget, bundle: Bundle, said: list[str]
) -> None:
    hub.faults = [Fault(CREATE, "hang", times=9)]
    impatient = replace(target, policy=RetryPolicy(attempts=1, total_seconds=1))
    with pytest.raises(PublishError, match="did not answer within 1 s"):
        _publish(impatient, bundle, said)


@pytest.mark.parametrize("text", ["hf://team", "hf://team/a/b", "hf://key@team/x", "hf:///x", "hf://te am/x"])
def test_wrong_names_are_told(text: str, policy: RetryPolicy) -> None:
    with pytest.raises(UserError, match="write hf://ORG/NAME"):
        parse_hugging_face(text, policy)


def test_a_missing_key_is_told(target: HuggingFaceTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(UserError, match="run `hf auth login` or set HF_TOKEN"):
        target.check()
