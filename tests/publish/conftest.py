"""Fixtures of publishing: a finished search with a small model, a quick policy, and keys to look for everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.publish.servers import S3Proxy
from tune_cifar.publish.best_model import write_model
from tune_cifar.publish.bundle import Bundle, make_bundle
from tune_cifar.publish.retry import RetryPolicy
from tune_cifar.trial.config import TrialConfig
from tune_cifar.trial.model import build_model

NAME = "ResNet18-epchs-5-bs-32-lr-0.004211"
SWEEP = """
method: random
metric: {name: val_loss, goal: minimize}
project: cifar
parameters: {lr: {min: 0.001, max: 0.01}, epochs: {value: 5}}
run_cap: 1
"""
SETTINGS = {
    "data": "digits",
    "train_images": 100,
    "count": None,
    "seed": 0,
    "cpus_per_trial": None,
    "gpus_per_trial": None,
    "trials_at_once": None,
    "precision": "auto",
}
PLANTED = {
    "PAPERSPACE_API_KEY": "planted-paperspace-key",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "HF_TOKEN": "hf_plantedplantedplanted",
}


def write_search(folder: Path, weights: dict[str, torch.Tensor], **changes: Any) -> Path:
    """Write what a search leaves behind into `folder`, as far as publishing reads it."""
    folder.mkdir(parents=True)
    (folder / "search.json").write_text(json.dumps(SETTINGS))
    (folder / "sweep.yaml").write_text(SWEEP)
    (folder / "summary.json").write_text(json.dumps({"name": folder.name, "complete": True}))
    values: dict[str, Any] = {
        "config": TrialConfig(lr=0.00421056, batch_size=32, epochs=5),
        "trial_id": "abc",
        "epoch": 3,
        "metric": "val_loss",
        "metric_value": 0.5,
        "scores": {"val_loss": 0.5, "test_accuracy": 0.75},
        "class_names": tuple("0123456789"),
        "data": "digits",
        "data_fingerprint": "sha256:1",
        "versions": {"torch": "2"},
    }
    write_model(folder / "best", weights, **{**values, **changes})
    return folder


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """The folder of a finished search whose best model is one small tensor."""
    return write_search(tmp_path / "results" / "small", {"layer.weight": torch.arange(12.0).reshape(3, 4)})


@pytest.fixture
def bundle(search: Path, tmp_path: Path) -> Bundle:
    """What would be published of it."""
    return make_bundle(search / "best", tmp_path / "staging")


@pytest.fixture(scope="session")
def resnet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a real ResNet18, for what has to be loaded again; read only."""
    folder = tmp_path_factory.mktemp("resnet")
    weights = build_model("ResNet18", num_classes=10, seed=0).state_dict()
    return make_bundle(write_search(folder / "search", weights) / "best", folder / "staging")


@pytest.fixture
def policy() -> RetryPolicy:
    """Three tries without long waits."""
    return RetryPolicy(attempts=3, first_wait_seconds=0.01, reply_seconds=5, total_seconds=30)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Keys in the environment, to be found nowhere else."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return PLANTED


@pytest.fixture
def said() -> list[str]:
    """What a target says while it works: `said.append` is its `say`."""
    return []


@pytest.fixture
def no_keys_in(keys: dict[str, str]) -> Callable[[str, Path], None]:
    """Look for a planted key in a text and in every file of a folder."""

    def look(text: str, folder: Path) -> None:
        contents = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for key in [*keys.values(), "planted-signature"]:
            assert key not in text
            assert [path for path, content in contents.items() if key.encode() in content] == []

    return look


@dataclass
class Store:
    """A bucket with nothing in it, behind a proxy that can fail."""

    proxy: S3Proxy
    client: Any

    def objects(self) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket="bucket").get("Contents", [])
        keys = [entry["Key"] for entry in listed if not entry["Key"].endswith("/")]
        return {key: self.client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys}


@pytest.fixture
def store(moto_port: int, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """That bucket, where the environment says that S3 is."""
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto_port}", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    with S3Proxy(moto_port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield Store(proxy, client)
    for entry in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=entry["Key"])
    client.delete_bucket(Bucket="bucket")
