"""The real W&B client against the loopback W&B server of tests/tracking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import wandb

from tests.publish.conftest import NAME
from tests.publish.wandb_registry import RegistryStore
from tests.tracking.wandb_helpers import KEY
from tests.tracking.wandb_server import WandbServer
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.fetching import fetched_model
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import PublishError, RetryPolicy
from tune_cifar.publish.target import Receipt
from tune_cifar.publish.wandb_target import WandbTarget


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """A W&B server that the client finds by its environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    wandb.teardown()
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
    wandb.teardown()


@pytest.fixture
def store(server: WandbServer) -> RegistryStore:
    """The artifacts of that server."""
    server.artifact_store = store = RegistryStore()
    return store


@pytest.fixture
def target(search: Path) -> WandbTarget:
    policy = RetryPolicy(attempts=1, reply_seconds=20, total_seconds=60)
    return WandbTarget("wandb", "cifar", None, None, search, policy)


def _publish(
    target: WandbTarget, bundle: Bundle, *, again: bool = False, recorded: PublishedModel | None = None
) -> Receipt:
    return target.publish(bundle, again=again, recorded=recorded, say=print)


def test_the_model_becomes_an_artifact_with_its_aliases(
    server: WandbServer, store: RegistryStore, target: WandbTarget, bundle: Bundle
) -> None:
    target.check()
    receipt = _publish(target, bundle)
    (artifact,) = store.artifacts
    assert (artifact.name, artifact.kind, artifact.committed) == (NAME, "model", True)
    assert set(artifact.aliases) >= {"best", "small"}
    assert artifact.files == {file.name: file.path.read_bytes() for file in bundle.files}
    assert artifact.metadata["sha256"] == bundle.weights.sha256
    assert artifact.metadata["config"]["lr"] == 0.00421056
    assert receipt.uri == f"wandb://tester/cifar/{NAME}:v0"
    run = server.runs[artifact.run_id]
    assert (run.group, run.exit_code) == ("small", 0)
    assert store.links == []
    written = [path for path in target.search.rglob("*") if path.is_file()]
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


def test_it_is_linked_to_the_registry(
    server: WandbServer, store: RegistryStore, target: WandbTarget, bundle: Bundle
) -> None:
    _publish(replace(target, registry="model"), bundle)
    (link,) = store.links
    assert (link["projectName"], link["artifactPortfolioName"]) == ("wandb-registry-model", NAME)
    assert [alias["alias"] for alias in link["aliases"]] == ["best"]


def test_what_is_there_already_is_linked_too(
    server: WandbServer, store: RegistryStore, target: WandbTarget, bundle: Bundle
) -> None:
    receipt = _publish(target, bundle)
    recorded = PublishedModel("wandb", NAME, receipt.uri, bundle.weights.sha256, "", receipt.id)
    assert _publish(replace(target, registry="model"), bundle, recorded=recorded).existed
    assert (len(store.artifacts), len(server.runs)) == (1, 1)
    (link,) = store.links
    assert (link["projectName"], link["artifactPortfolioName"]) == ("wandb-registry-model", NAME)
    gone = replace(recorded, uri=f"wandb://tester/cifar/{NAME}:v7")
    with pytest.raises(PublishError, match="not found"):
        _publish(replace(target, registry="model"), bundle, recorded=gone)


def test_what_is_recorded_is_not_sent_again(
    server: WandbServer, store: RegistryStore, target: WandbTarget, bundle: Bundle
) -> None:
    recorded = PublishedModel("wandb", NAME, "wandb://tester/cifar/x:v0", bundle.weights.sha256, "", "id1")
    assert _publish(target, bundle, recorded=recorded) == Receipt("wandb://tester/cifar/x:v0", "id1", existed=True)
    assert server.runs == {}


def test_a_model_comes_back(
    server: WandbServer,
    store: RegistryStore,
    target: WandbTarget,
    bundle: Bundle,
    said: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    receipt = _publish(target, bundle)
    sources = [f"wandb:tester/cifar/{NAME}:best", receipt.uri]
    for source, word in zip(sources, ["fetched ", "cached "], strict=True):
        with fetched_model(source, said.append, target.policy) as model:
            assert model.path.read_bytes() == bundle.weights.path.read_bytes()
            assert model.manifest == bundle.manifest
        assert said[-1].startswith(word)
    with pytest.raises(UserError, match=r"could not be fetched: W&B: .* not found"):
        fetched_model(f"wandb:tester/cifar/{NAME}:other", said.append, target.policy).__enter__()
    with pytest.raises(UserError, match="write wandb:ENTITY/PROJECT/NAME:ALIAS"):
        fetched_model("wandb:cifar", said.append, target.policy).__enter__()
    assert capfd.readouterr() == ("", "")
    assert not any((tmp_path / name).exists() for name in ("wandb", "artifacts"))


def test_a_server_that_hangs_gives_no_model(server: WandbServer, store: RegistryStore, said: list[str]) -> None:
    server.hang()
    policy = RetryPolicy(attempts=1, reply_seconds=1, total_seconds=3)
    with pytest.raises(UserError, match="wandb:tester/cifar/x:best could not be fetched: "):
        fetched_model("wandb:tester/cifar/x:best", said.append, policy).__enter__()


@pytest.mark.parametrize("how", ["hangs", "is down", "refuses the key"])
def test_a_server_that_does_not_serve_is_told(
    server: WandbServer,
    store: RegistryStore,
    target: WandbTarget,
    bundle: Bundle,
    how: str,
    no_keys_in: Callable[[str, Path], None],
) -> None:
    if how == "hangs":
        server.hang()
    elif how == "is down":
        server.die()
    else:
        server.reject_keys = True
    impatient = replace(target, policy=RetryPolicy(attempts=1, reply_seconds=3, total_seconds=5))
    with pytest.raises(PublishError, match=r"W&B: ") as failure:
        _publish(impatient, bundle)
    assert KEY not in str(failure.value)
    no_keys_in(str(failure.value), target.search)


def test_no_key_is_told(
    server: WandbServer, store: RegistryStore, target: WandbTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    wandb.teardown()
    with pytest.raises(
        UserError,
        match=r"^wandb needs a W&B key, and there is none for http.*: run `wandb login` or set WANDB_API_KEY\.$",
    ):
        target.check()
    with pytest.raises(UserError, match="wandb:me/cifar/x:best needs a W&B key, and there is none for http"):
        fetched_model("wandb:me/cifar/x:best", print).__enter__()
    with pytest.raises(UserError, match="--wandb-registry must be"):
        replace(target, registry="a/b").check()
