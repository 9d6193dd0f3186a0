"""Says where things are: Tune's state and checkpoints, in a folder or a bucket, and a running trial."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tune_cifar.bucket_results import FETCHED_WEIGHTS, BucketResults
from tune_cifar.errors import UserError
from tune_cifar.runner.bucket_state import begin_state, cannot_resume_from
from tune_cifar.runner.tune_state import TUNE_FOLDER, cannot_resume, note_versions, set_aside
from tune_cifar.trial.checkpoint import WEIGHTS_FILE


@dataclass(frozen=True)
class TunePlace:
    """The place of Tune's files of the search in `folder`: there, or in its `bucket`."""

    folder: Path
    bucket: BucketResults | None = None

    @property
    def storage_path(self) -> str:
        """The folder in which Tune makes its own, as the filesystem has it."""
        return self.bucket.path if self.bucket else str(self.folder.resolve())

    @property
    def filesystem(self) -> Any | None:
        """The pyarrow filesystem of the bucket; None for the local one."""
        return self.bucket.store if self.bucket else None

    @property
    def tune_path(self) -> str:
        """Tune's folder as its storage has it."""
        return f"{self.storage_path}/{TUNE_FOLDER}"

    @property
    def shown(self) -> str:
        """Tune's folder as a user knows it."""
        return f"{self.bucket.uri if self.bucket else self.folder}/{TUNE_FOLDER}"

    def begin(self) -> None:
        """Make room for the state of a search that starts from the beginning."""
        if self.bucket:
            begin_state(self.bucket)
        else:
            set_aside(self.folder / TUNE_FOLDER)
            note_versions(self.folder / TUNE_FOLDER)

    def cannot_resume(self, why: str) -> UserError:
        """The error of a state that Tune cannot take up."""
        return UserError(cannot_resume_from(self.bucket, why) if self.bucket else cannot_resume(self.folder, why))

    def weights_of(self, checkpoint: tune.Checkpoint) -> Path:
        """The weights file of a checkpoint, which is fetched if it is in a bucket. Raises `UserError` without one."""
        if self.bucket is None:
            return Path(checkpoint.path) / WEIGHTS_FILE
        weights = self.folder / FETCHED_WEIGHTS
        with (
            self.bucket.doing("fetching the best weights"),
            self.bucket.store.open_input_stream(f"{checkpoint.path}/{WEIGHTS_FILE}") as stream,
            weights.open("wb") as file,
        ):
            while chunk := stream.read(4 * 2**20):
                file.write(chunk)
        return weights


def describe_place() -> str:
    """Where the trial of this process runs: `node-1`, or `node-1 GPU 3` with the GPUs that Ray has given it."""
    gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return f"{socket.gethostname()} GPU {', '.join(gpus)}" if gpus else socket.gethostname()
