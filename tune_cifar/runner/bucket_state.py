"""Looks at Tune's state in a bucket before a search is resumed, and makes room there for a new one."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath

from tune_cifar.bucket_results import BucketResults
from tune_cifar.errors import UserError
from tune_cifar.runner.state_commit import finish_commit_in
from tune_cifar.runner.tune_state import (
    TUNE_FOLDER,
    VERSIONS_FILE,
    DamagedStateError,
    Start,
    check_state,
    choose_start,
    has_trained,
    note_versions,
)


def choose_start_of(folder: Path, bucket: BucketResults | None, *, rebuild: bool) -> Start:
    """As `choose_start`, of the search in `folder` whose Tune state is in `bucket`, if it has one."""
    if bucket is None:
        return choose_start(folder, rebuild=rebuild)
    if rebuild:
        raise UserError(
            f"--rebuild reads checkpoints in a local folder, and those of this search are in {bucket.uri}. Copy all of "
            "that into a folder results/ANOTHER_NAME and give --resume --rebuild --name ANOTHER_NAME."
        )
    with bucket.doing("looking at Ray's state"):
        finish_commit_in(bucket.store, f"{bucket.path}/{TUNE_FOLDER}")
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        bucket.fetch(_state_files(bucket), copy)
        bucket.fetch([name for name in bucket.files(TUNE_FOLDER) if name.name == "result.json"], copy)
        try:
            check_state(copy / TUNE_FOLDER)
        except DamagedStateError as damage:
            if not has_trained(folder) and not has_trained(copy):
                return "new"
            raise UserError(cannot_resume_from(bucket, str(damage).replace(str(copy), bucket.uri))) from None
    return "restore"


def cannot_resume_from(bucket: BucketResults, why: str) -> str:
    """What to do about a state that is damaged, in a bucket."""
    return (
        f"{why}. Nothing was started or changed. Put the file back (a bucket with versioning has it), or start a new "
        f"search under another --name. The results so far are in {bucket.uri}."
    )


def begin_state(bucket: BucketResults) -> None:
    """Move what there is of a state in the bucket into a folder beside it, and note what the new one is written by."""
    files = _state_files(bucket)
    old = [name for name in bucket.files(TUNE_FOLDER) if name.parts[1].startswith("old-state-")]
    numbers = {int(name.parts[1].rpartition("-")[2]) for name in old}
    aside = PurePosixPath(TUNE_FOLDER, f"old-state-{max(numbers, default=0) + 1}")
    for name in files:
        with bucket.doing(f"moving {name}"):
            bucket.store.move(f"{bucket.path}/{name}", f"{bucket.path}/{aside / name.name}")
    with tempfile.TemporaryDirectory() as temporary:
        note_versions(Path(temporary))
        bucket.send(Path(temporary, VERSIONS_FILE), f"{TUNE_FOLDER}/{VERSIONS_FILE}")


def _state_files(bucket: BucketResults) -> list[PurePosixPath]:
    """Tune's own files, and none of a trial."""
    return [name for name in bucket.files(TUNE_FOLDER, recursive=False) if name.name[0] != "."]
