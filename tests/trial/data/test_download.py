from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tune_cifar.errors import UserError
from tune_cifar.trial.data.cifar10 import Cifar10Release, load_cifar10_folder
from tune_cifar.trial.data.download import fetch_cifar10

if TYPE_CHECKING:
    from tests.trial.data.conftest import ArchiveServer, SmallRelease

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def served(small_release: SmallRelease, archive_server: ArchiveServer) -> Cifar10Release:
    archive_server.body = small_release.archive.read_bytes()
    return dataclasses.replace(small_release.release, url=archive_server.url)


def leftovers(cache_folder: Path) -> list[str]:
    return sorted(path.name for path in cache_folder.iterdir() if path.suffix != ".lock")


def test_download_happens_once_and_leaves_only_the_data(
    served: Cifar10Release, archive_server: ArchiveServer, tmp_path: Path
) -> None:
    cache_folder = tmp_path / "deep" / "cache"
    for _ in range(2):
        folder = fetch_cifar10(cache_folder, served)
        assert len(load_cifar10_folder(folder, served).train) == 20
    assert archive_server.requests == ["/cifar-10-python.tar.gz"]
    assert leftovers(cache_folder) == ["cifar-10-batches-py"]


def test_two_processes_at_once_download_once(
    served: Cifar10Release, archive_server: ArchiveServer, tmp_path: Path
) -> None:
    archive_server.gate.clear()
    program = (
        "import json, sys\nfrom pathlib import Path\n"
        "from tune_cifar.trial.data.cifar10 import Cifar10Release, load_cifar10_folder\n"
        "from tune_cifar.trial.data.download import fetch_cifar10\n"
        "release = Cifar10Release(**json.loads(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "print(len(load_cifar10_folder(fetch_cifar10(Path(sys.argv[2]), release), release).train))\n"
    )
    command = [sys.executable, "-c", program, json.dumps(dataclasses.asdict(served)), str(tmp_path / "cache")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        # Both ask for the data before the server answers: whoever is first cannot have it yet.
        threading.Timer(0.5, archive_server.gate.set).start()
        folder = fetch_cifar10(tmp_path / "cache", served)
        assert len(load_cifar10_folder(folder, served).train) == 20
        assert other.stdout.read() == "20\n"
    assert len(archive_server.requests) == 1


@pytest.mark.parametrize("damage", ["cut", "error page"])
def test_failed_download_leaves_nothing_and_can_be_repeated(
    damage: str, served: Cifar10Release, archive_server: ArchiveServer, tmp_path: Path
) -> None:
    whole = archive_server.body
    archive_server.body = whole[:1000]
    archive_server.status = 200 if damage == "cut" else 503
    with pytest.raises(UserError, match="md5 does not match" if damage == "cut" else "503"):
        fetch_cifar10(tmp_path / "cache", served)
    assert leftovers(tmp_path / "cache") == []
    archive_server.body, archive_server.status = whole, 200
    assert fetch_cifar10(tmp_path / "cache", served).is_dir()


def test_rest_of_a_killed_process_is_not_taken_for_data(
    served: Cifar10Release, small_release: SmallRelease, tmp_path: Path
) -> None:
    half = tmp_path / "cache" / "cifar10.partial" / "cifar-10-batches-py"
    half.mkdir(parents=True)
    (half / "data_batch_1").write_bytes(b"half")
    (half / "stray").write_bytes(b"")
    folder = fetch_cifar10(tmp_path / "cache", served)
    for made in small_release.folder.iterdir():
        assert (folder / made.name).read_bytes() == made.read_bytes()
    assert not (folder / "stray").exists()
    assert leftovers(tmp_path / "cache") == ["cifar-10-batches-py"]


def test_archive_put_there_by_hand_needs_no_network(small_release: SmallRelease, tmp_path: Path) -> None:
    by_hand = tmp_path / "cache" / "cifar-10-python.tar.gz"
    by_hand.parent.mkdir()
    by_hand.write_bytes(small_release.archive.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz: incomplete"):
        fetch_cifar10(tmp_path / "cache", small_release.release)
    by_hand.write_bytes(small_release.archive.read_bytes())
    folder = fetch_cifar10(tmp_path / "cache", small_release.release)
    assert len(load_cifar10_folder(folder, small_release.release).train) == 20
    assert by_hand.exists()


def test_unpacked_folder_put_there_by_hand_is_used(small_release: SmallRelease) -> None:
    assert fetch_cifar10(small_release.folder.parent, small_release.release) == small_release.folder


def test_without_network_every_way_to_get_data_is_told(small_release: SmallRelease, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch_cifar10(tmp_path / "cache", small_release.release)
    message = str(caught.value)
    ways = (
        "refused",
        small_release.release.url,
        small_release.release.archive_md5,
        f"put it into {tmp_path / 'cache'} as cifar-10-python.tar.gz",
        "--data digits",
        "--data PATH",
        "cifar-10-batches-py",
        "train*.parquet",
        "train/CLASS/*.png",
    )
    assert [way for way in ways if way not in message] == []
