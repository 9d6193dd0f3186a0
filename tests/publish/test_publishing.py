"""The command `python -m tune_cifar.publish`, with several targets at once."""

from __future__ import annotations

import hashlib
import json
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.commands import run_here
from tests.publish.conftest import NAME, write_search
from tests.publish.loopback import Fault
from tests.publish.servers import HubServer
from tune_cifar.publish import __main__ as command
from tune_cifar.publish.folder_target import FolderTarget
from tune_cifar.publish.publishing import Publishing
from tune_cifar.publish.record import PublishedModel, add_published, read_published
from tune_cifar.publish.target import PublishOptions


@pytest.fixture
def hub(keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def _publish(*arguments: str) -> int:
    return run_here(command.main, ["results/small", *arguments])


def test_a_model_goes_to_every_target_and_is_written_down(
    hub: HubServer, search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _publish("--to", "models/", "--to", "hf://team/resnet") == 0
    folder_uri = (tmp_path / "models" / NAME).as_uri()
    output = capsys.readouterr().out
    assert f"publish  {NAME}: 4 files, 0.0 MB, sha256 " in output
    assert f"done     models/: is there: {folder_uri}" in output
    weights = search / "best" / f"{NAME}.pth"
    written = json.loads((search / "published.json").read_text())
    assert [(entry["target"], entry["name"], entry["uri"]) for entry in written] == [
        ("models/", NAME, folder_uri),
        ("hf://team/resnet", NAME, f"{hub.url}/team/resnet"),
    ]
    assert {entry["sha256"] for entry in written} == {hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert written[1]["id"] == hub.commits[-1]
    summary = json.loads((search / "summary.json").read_text())
    assert summary == {"name": "small", "complete": True, "published": written}


def test_a_second_time_adds_nothing(hub: HubServer, search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _publish("--to", "models/", "--to", "hf://team/resnet")
    before = (search / "published.json").read_text()
    capsys.readouterr()
    assert _publish("--to", "models/", "--to", "hf://team/resnet") == 0
    assert capsys.readouterr().out.count("is there already") == 2
    assert (search / "published.json").read_text() == before
    assert len(hub.commits) == 2


def test_one_target_that_fails_does_not_keep_the_model_from_others(
    hub: HubServer, search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults = [Fault("POST /api/repos/create", status=400, times=9)]
    assert _publish("--to", "hf://team/resnet", "--to", "models/", "--gradient-project", "p 1") == 1
    output = capsys.readouterr().out
    assert "failed   hf://team/resnet: hf://team/resnet: 400 " in output
    assert (tmp_path / "models" / NAME / "manifest.json").is_file()
    assert [entry.target for entry in read_published(search)] == ["models/"]
    again = output.splitlines()[-1]
    assert again == (
        "again    python -m tune_cifar.publish results/small --to hf://team/resnet --gradient-project 'p 1'"
    )
    hub.faults = []
    assert _publish("--to", "hf://team/resnet") == 0


def test_the_checkpoint_is_not_touched(hub: HubServer, search: Path) -> None:
    def look() -> list[tuple[str, int, bytes]]:
        files = sorted((search / "best").iterdir())
        return [(file.name, file.stat().st_mtime_ns, file.read_bytes()) for file in files]

    before = look()
    assert _publish("--to", "models/", "--again") == 0
    assert look() == before


def test_a_model_that_changed_on_disk_is_not_sent(
    hub: HubServer, search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = search / "best" / f"{NAME}.pth"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert _publish("--to", "models/", "--to", "hf://team/resnet") == 2
    assert "its sha256 differs" in capsys.readouterr().err
    assert hub.requests == []
    assert not (tmp_path / "models").exists()


def test_a_dry_run_shows_and_sends_nothing(
    hub: HubServer, search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ["models/", "hf://team/resnet", "s3://bucket/p?scheme=http&endpoint_override=minio:9", "gradient"]
    flags = [word for target in targets for word in ("--to", target)]
    assert _publish(*flags, "--gradient-project", "p1", "--dry-run") == 0
    output = capsys.readouterr().out
    assert f"         {NAME}.safetensors  0.00 MB" in output
    assert f"would    models/: to models/{NAME}/" in output
    assert f"one commit to {hub.url}/team/resnet, made private if it is new" in output
    assert f"to s3://bucket/p/{NAME}/ at http://minio:9" in output
    assert f"{NAME}.pth as model {NAME} to project p1 at https://api.paperspace.io" in output
    assert hub.requests == []
    assert not (tmp_path / "models").exists()
    assert not (search / "published.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("results/nowhere", "--to", "models/"), "is not the folder of a search"),
        (("results/small", "--to", "modles"), "'modles': not a target"),
        (("results/small",), "--to"),
    ],
)
def test_mistakes_are_told(
    hub: HubServer, search: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(command.main, list(arguments)) == 2
    assert message in capsys.readouterr().err


def test_a_search_that_has_not_ended_is_told(hub: HubServer, search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (search / "summary.json").unlink()
    assert _publish("--to", "models/") == 2
    assert "the search has not ended" in capsys.readouterr().err


def test_no_room_to_gather_the_files_is_told(
    hub: HubServer, search: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    write_search(search.parent / "large", {"layer": torch.zeros(500_000)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        code = run_here(command.main, ["results/large", "--to", "models/", "--to", "hf://team/resnet"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert re.search(r"error: Nothing was published: .*/tune-cifar-publish-.*: File too large", capsys.readouterr().err)
    assert hub.requests == []


def test_a_record_that_cannot_be_written_is_told(
    hub: HubServer, search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (search / "summary.json.partial").mkdir()
    assert _publish("--to", "models/") == 2
    assert "Nothing was published: " in capsys.readouterr().err
    (search / "summary.json.partial").rmdir()
    (search / "published.json.partial").mkdir()
    assert _publish("--to", "models/", "--to", "hf://team/resnet") == 1
    output = capsys.readouterr().out
    assert output.count("published.json could not be written: Is a directory") == 2
    assert (tmp_path / "models" / NAME / "manifest.json").is_file()
    assert len(hub.commits) == 2


def test_slow_servers_are_waited_for(hub: HubServer, search: Path) -> None:
    hub.faults = [
        Fault(start, "slow", delay_seconds=0.7) for start in ("POST /api/repos", "PUT /lfs", "POST /api/models")
    ]
    assert _publish("--to", "hf://team/resnet") == 0
    assert (len(hub.commits), len(hub.asked("POST /api/models/team/resnet/commit"))) == (2, 1)


def test_no_key_is_printed_or_written(
    hub: HubServer,
    search: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    no_keys_in: Callable[[str, Path], None],
) -> None:
    hub.faults = [
        Fault("PUT /lfs", status=503),
        Fault("POST /api/models/team/resnet/commit", status=400, body=b'{"error": "hf_plantedplantedplanted"}'),
        Fault("GET /bucket", status=403, times=99),
        Fault("HEAD /bucket", status=403, times=99),
    ]
    monkeypatch.setenv("AWS_ENDPOINT_URL", hub.url)
    assert _publish("--to", "hf://team/resnet", "--to", "models/", "--to", "s3://bucket/p") == 1
    output = capfd.readouterr()  # of C++ and of child processes as well
    assert "failed   hf://team/resnet: hf://team/resnet: 400 <HF_TOKEN>" in output.out
    assert "failed   s3://bucket/p: " in output.out
    no_keys_in(output.out + output.err, tmp_path)


def test_an_entry_of_the_same_place_is_replaced(search: Path) -> None:
    monday, tuesday = "2026-11-23T16:30:00+00:00", "2026-11-24T09:00:00+00:00"
    first = PublishedModel("s3://b", "m", "s3://b/m", "1", monday, "m")
    add_published(search, first)
    add_published(search, PublishedModel("s3://b", "m", "s3://b/m", "1", tuesday, "m"))
    add_published(search, PublishedModel("s3://b", "m", "s3://b/m", "2", tuesday, "m"))
    assert [(entry.sha256, entry.when) for entry in read_published(search)] == [("1", tuesday), ("2", tuesday)]


def test_a_stopped_search_says_how_to_publish_it(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = PublishOptions(search=search, wandb_registry="models")
    Publishing([FolderTarget("my models/", Path("my models"))], options).put_off(Console())
    command_line = f"python -m tune_cifar.publish {search} --to 'my models/' --wandb-registry models"
    assert capsys.readouterr().out.endswith(f"As it is: {command_line}\n")
