"""Fixtures of the whole suite: small images of random pixels, and the real data where it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tune_cifar.trial.data import ImageDataset, ImageSplit

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the user's own logins, caches or Ray token, nor the W&B key of an earlier test."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    of_wandb = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY", "NETRC")
    for name in of_wandb:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "local")  # a test beside this one may have left the note of a Ray of its own
    yield
    if "wandb" in sys.modules:  # the client reads the environment, key and all, once a process
        sys.modules["wandb"].teardown()


@pytest.fixture(scope="session")
def real_cifar10() -> Path:
    """The folder with all of CIFAR-10 as parquet, from TUNE_CIFAR_DATA; a test that needs it skips without."""
    folder = Path(os.environ.get("TUNE_CIFAR_DATA", REPOSITORY / ".." / "shared" / "data" / "cifar10-jpeg"))
    if not folder.is_dir():
        pytest.skip(f"needs CIFAR-10 as parquet files in {folder}; set TUNE_CIFAR_DATA to where they are")
    return folder


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., ImageDataset]:
    """Make a data set of coloured noise, one mean brightness a class, that a network can learn in seconds."""

    def make(num_train: int = 96, num_validation: int = 32, num_classes: int = 4) -> ImageDataset:
        random = np.random.RandomState(7)

        def split(size: int) -> ImageSplit:
            labels = np.arange(size, dtype=np.int64) % num_classes
            noise = random.randint(0, 60, (size, 32, 32, 3))
            brightness = labels[:, None, None, None] * (190 // num_classes)
            return ImageSplit((noise + brightness).astype(np.uint8), labels)

        names = tuple(f"class{label}" for label in range(num_classes))
        return ImageDataset("noise", names, split(num_train), split(num_validation), split(40), "sha256:noise")

    return make


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    """The port of an imitation of S3."""
    from moto.server import ThreadedMotoServer  # seconds that most tests need not spend

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()
