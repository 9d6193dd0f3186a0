"""The copy of a search's folder in a bucket: what goes there, what comes back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest
from pyarrow import fs

from tune_cifar.bucket_address import parse_address
from tune_cifar.bucket_results import (
    BUCKET_FILE,
    FETCHED_WEIGHTS,
    BucketCopy,
    BucketResults,
    bucket_of_search,
    bucket_to_resume,
)
from tune_cifar.errors import UserError
from tune_cifar.publish.retry import RetryPolicy
from tune_cifar.runner.bucket_state import begin_state
from tune_cifar.search_flags import parse_search_flags

PLACE = parse_address("s3://bucket/team?region=us-east-1", RetryPolicy())


@pytest.fixture
def bucket(tmp_path: Path) -> BucketResults:
    """A folder in the place of the store: pyarrow's filesystems have the same methods."""
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    results = bucket_of_search(PLACE, "small")
    results.__dict__["store"] = fs.SubTreeFileSystem(str(tmp_path / "store"), fs.LocalFileSystem())
    (tmp_path / "store" / "bucket" / "team" / "small" / "best").mkdir(parents=True)  # which a bucket does not need
    return results


@pytest.fixture
def folder(tmp_path: Path, bucket: BucketResults) -> Path:
    folder = tmp_path / "results" / "small"
    folder.mkdir(parents=True)
    bucket.save_note(folder)
    return folder


def test_everything_but_what_is_of_this_machine_is_copied(bucket: BucketResults, folder: Path) -> None:
    (folder / "best").mkdir()
    for name in ("trials.json", "best/model.pth", ".lock", "trials.json.partial", FETCHED_WEIGHTS):
        (folder / name).write_text(name)
    (folder / "latest").symlink_to("trials.json")
    said: list[str] = []
    with BucketCopy(bucket, folder, said.append) as copy:
        pass
    assert {str(name) for name in bucket.files()} == {"trials.json", "best/model.pth"}
    assert copy.exit_code == 0
    assert said == [
        "bucket   s3://bucket/team/small/, where any machine goes on by --resume "
        "--results 's3://bucket/team?region=us-east-1' --name small"
    ]
    assert not (folder / FETCHED_WEIGHTS).exists()


def test_a_copy_that_fails_is_told_and_fails_the_command(bucket: BucketResults, folder: Path) -> None:
    bucket.__dict__["store"] = fs.SubTreeFileSystem("/nowhere", fs.LocalFileSystem())
    (folder / "trials.json").write_text("[]")
    said: list[str] = []
    with BucketCopy(bucket, folder, said.append) as copy:
        pass
    assert copy.exit_code == 1
    assert said[0].startswith("failed   s3://bucket/team/small: sending trials.json failed: ")
    assert said[0].endswith(f"are in {folder}.")


def test_a_search_that_made_no_folder_leaves_nothing(bucket: BucketResults, tmp_path: Path) -> None:
    said: list[str] = []
    with BucketCopy(bucket, tmp_path / "results" / "none", said.append):
        pass
    assert (said, bucket.files()) == ([], [])


def test_a_name_cannot_lead_out_of_the_folder(bucket: BucketResults, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leads out of the folder"):
        bucket.fetch([PurePosixPath("../../outside")], tmp_path / "here")


def test_the_note_names_the_bucket_and_its_options(folder: Path) -> None:
    noted = bucket_to_resume(None, folder, print)
    assert noted is not None
    assert noted.uri == "s3://bucket/team/small"
    assert noted.target.query == {"region": "us-east-1"}


def test_a_folder_without_a_note_has_no_bucket(tmp_path: Path) -> None:
    assert bucket_to_resume(None, tmp_path, print) is None


@pytest.mark.parametrize("uri", [None, "s3://other/team/small"])
def test_a_local_search_of_that_name_is_not_mixed_in(folder: Path, uri: str | None) -> None:
    (folder / BUCKET_FILE).unlink()
    if uri:
        (folder / BUCKET_FILE).write_text(json.dumps({"uri": uri, "options": {}}))
    with pytest.raises(UserError, match=r"small is another search than s3://bucket/team/small"):
        bucket_to_resume(PLACE, folder, print)


def test_a_damaged_note_is_told(folder: Path) -> None:
    (folder / BUCKET_FILE).write_text('{"uri": 3}')
    with pytest.raises(UserError, match=r"bucket.json cannot be read"):
        bucket_to_resume(None, folder, print)


def test_an_old_state_is_moved_aside_and_never_lost(bucket: BucketResults, tmp_path: Path) -> None:
    ray = tmp_path / "store" / "bucket" / "team" / "small" / "ray"
    (ray / "trial-a").mkdir(parents=True)
    (ray / "trial-a" / "result.json").write_text("")
    for number in (1, 2):
        (ray / "tuner.pkl").write_text(str(number))
        (ray / f"old-state-{number}").mkdir()  # which a bucket does not need
        begin_state(bucket)
        assert (ray / f"old-state-{number}" / "tuner.pkl").read_text() == str(number)
    assert sorted(path.name for path in ray.iterdir() if path.is_file()) == ["versions.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results", "gs://bucket/x"], "takes a folder or s3://BUCKET/PREFIX"),
        (["--results", "s3://key:secret@bucket/x"], "must not hold a key"),
        (["--results", "s3:///x"], "the bucket is missing"),
    ],
)
def test_a_place_that_is_none_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_search_flags(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--resume"], "needs --name NAME"), (["--address", "head"], "log in to the head")],
)
def test_flags_that_do_not_go_with_a_bucket(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_search_flags(["--results", "s3://bucket/x", *arguments])
    assert message in capsys.readouterr().err


def test_a_bucket_is_apart_from_the_local_folder() -> None:
    args = parse_search_flags(["--results", "s3://bucket/x"])
    assert (args.results, args.bucket.path) == (Path("results"), "bucket/x")
    assert parse_search_flags(["--results", "mine"]).results == Path("mine")


def test_no_key_is_asked_for_before_the_bucket_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tune_cifar.bucket_address._machine_is", lambda vendor: False)
    with pytest.raises(UserError, match="no key for it was found"):
        bucket_of_search(PLACE, "small").check_free()
