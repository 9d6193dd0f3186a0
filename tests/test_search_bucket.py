"""A search whose results are in a bucket: ended early, then taken up on a machine that has nothing of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands import command_line, environment, run_here
from tune_cifar import search
from tune_cifar.command import EXIT_TERMINATED
from tune_cifar.trial.checkpoint import WEIGHTS_FILE
from tune_cifar.trials_file import load_trials

LONGEST_SECONDS = 600.0
KEY_ID, SECRET = "AKIAPLANTEDPLANTED", "planted-aws-secret"
PLACE = "s3://bucket/team"
SWEEP = """
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  lr: {values: [0.003, 0.001]}
  epochs: {value: 3}
"""
SMALL = ("--data", "digits", "--train-images", "100", "--trials-at-once", "1", "--wandb", "disabled")


@dataclass(frozen=True)
class Bucket:
    """S3 for the commands that get `environment`."""

    client: Any
    environment: dict[str, str]

    def objects(self) -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", []) if entry["Key"][-1] != "/"]
        return {key: self.client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys}


@dataclass(frozen=True)
class TwoMachines:
    """Each machine's exit code and what it printed, the folder of both, and the bucket after each."""

    first: tuple[int, str]
    second: tuple[int, str]
    folder: Path
    between: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def bucket(moto_port: int) -> Iterator[Bucket]:
    import boto3

    url = f"http://127.0.0.1:{moto_port}"
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET
    )
    client.create_bucket(Bucket="bucket")
    yield Bucket(client, {**keys, "AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"})
    for key in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=key["Key"])
    client.delete_bucket(Bucket="bucket")


@pytest.fixture(scope="module")
def searched(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> TwoMachines:
    folder = tmp_path_factory.mktemp("machines")
    for name in ("first", "second"):
        (folder / name).mkdir()
    sweep = folder / "sweep.yaml"
    sweep.write_text(SWEEP)
    settings = {**bucket.environment, "HOME": str(folder), "RAY_AUTH_MODE": "disabled"}
    flags = ("--results", PLACE, "--name", "small")
    command = command_line("search", sweep, *SMALL, *flags)
    first = _run(command, folder / "first", environment(**settings), until="epoch 1/")
    between = bucket.objects()
    command = command_line("search", "--resume", *flags, "--wandb", "disabled")
    second = _run(command, folder / "second", environment(**settings))
    return TwoMachines(first, second, folder, between, bucket.objects())


def _run(command: list[str], folder: Path, settings: dict[str, str], until: str = "") -> tuple[int, str]:
    """Run a search; once it has told `until`, end it as a scheduler does that wants the machine back."""
    process = subprocess.Popen(
        command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    stop_late = threading.Timer(LONGEST_SECONDS, process.kill)
    stop_late.start()
    told = ""
    for line in process.stdout or ():
        told += line
        if until and until in line:
            until = ""
            process.terminate()
    stop_late.cancel()
    process.communicate()
    return process.returncode, told


def test_the_search_is_ended_and_says_where_to_go_on(searched: TwoMachines) -> None:
    assert searched.first[0] == EXIT_TERMINATED, searched.first[1]
    assert "results  results/small/, with checkpoints and a copy in s3://bucket/team/small/\n" in searched.first[1]
    assert "storage  1 node reads and writes the bucket as this one does, with the credentials" in (searched.first[1])
    assert f"any machine goes on by --resume --results {PLACE} --name small\n" in searched.first[1]
    assert not (searched.folder / "first" / "results" / "small" / "ray").exists()


def test_the_bucket_has_all_that_a_resume_needs(searched: TwoMachines) -> None:
    names = {key.removeprefix("team/small/") for key in searched.between}
    assert {"search.json", "sweep.yaml", "trials.json", "summary.json", "report.html", "ray/versions.json"} <= names
    assert any(name.endswith(f"/{WEIGHTS_FILE}") for name in names)
    assert not any(name.startswith(".") or "storage-check" in name for name in names)
    local = searched.folder / "first" / "results" / "small"
    assert searched.between["team/small/trials.json"] == (local / "trials.json").read_bytes()


def test_another_machine_goes_on_from_the_checkpoint(searched: TwoMachines) -> None:
    assert searched.second[0] == 0, searched.second[1]
    folder = searched.folder / "second" / "results" / "small"
    assert f"files of the search from {PLACE}/small to results/small\n" in searched.second[1]
    saved = load_trials(folder)
    assert saved is not None
    assert [(trial.status, len(trial.epochs)) for trial in saved.trials] == [("finished", 3)] * 2
    assert all(trial.where == os.uname().nodename for trial in saved.trials)
    (earlier,) = json.loads(searched.between["team/small/trials.json"])["trials"]
    assert earlier["status"] == "waiting"
    num_done = len(earlier["epochs"])
    assert 1 <= num_done < 3
    assert saved.trials[0].epochs[:num_done] == earlier["epochs"]


def test_the_best_weights_are_fetched_and_copied(searched: TwoMachines) -> None:
    folder = searched.folder / "second" / "results" / "small"
    manifest = json.loads((folder / "best" / "manifest.json").read_text())
    weights = (folder / "best" / manifest["file"]).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == manifest["sha256"]
    assert searched.after[f"team/small/best/{manifest['file']}"] == weights
    assert json.loads(searched.after["team/small/summary.json"])["complete"] is True
    assert not list(folder.glob(".best*"))


def test_no_key_is_anywhere(searched: TwoMachines) -> None:
    contents = {str(path): path.read_bytes() for path in searched.folder.rglob("*") if path.is_file()}
    contents |= searched.between | searched.after
    contents |= {"first": searched.first[1].encode(), "second": searched.second[1].encode()}
    assert [
        name for name, content in contents.items() if SECRET.encode() in content or KEY_ID.encode() in content
    ] == []


def test_a_name_that_is_taken_in_the_bucket_is_refused(
    searched: TwoMachines,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    sweep = str(searched.folder / "sweep.yaml")
    assert run_here(search.main, [sweep, *SMALL, "--results", PLACE, "--name", "small"]) == 2
    assert "s3://bucket/team/small has files" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_resume_from_a_damaged_state_changes_nothing(
    searched: TwoMachines,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(searched.folder / "second" / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    key = max(key for key in searched.after if key.startswith("team/small/ray/search_gen_state-"))
    bucket.client.put_object(Bucket="bucket", Key=key, Body=searched.after[key][:50])
    # The folder's own note says where its checkpoints are.
    assert run_here(search.main, ["--resume", "--name", "small"]) == 2
    told = capsys.readouterr().err
    assert f"s3://bucket/{key} is damaged" in told
    assert "Nothing was started or changed" in told
    assert run_here(search.main, ["--resume", "--rebuild", "--name", "small"]) == 2
    assert "--rebuild reads checkpoints in a local folder" in capsys.readouterr().err
    bucket.client.put_object(Bucket="bucket", Key=key, Body=searched.after[key])
