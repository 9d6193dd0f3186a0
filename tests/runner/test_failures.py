from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError

from tune_cifar.errors import UserError
from tune_cifar.runner.failures import (
    LONGEST_CAUSE_CHARACTERS,
    Failure,
    LostProcessError,
    read_failure,
)


def _in_trial(cause: Exception) -> Any:
    """The error as Ray raises it for an exception in a trial."""
    return RayTaskError("train", "Traceback\n  more", cause, pid=1, ip="127.0.0.1").as_instanceof_cause()


def _died(text: str) -> RayActorError:
    return RayActorError("ab12", f"The actor died unexpectedly before finishing this task.\n\tpid: 7\n{text}")


def _trial(folder: Path, error: Exception | None, epoch: int = 0, text: str = "") -> Any:
    """What is read of a Tune trial, with its failure written down as Tune does."""
    folder.mkdir(exist_ok=True)
    (folder / "error.txt").write_text(f"Failure # 1 (occurred at 2026-01-01_00-00-00)\n{error or text}\n")
    if error is not None:
        (folder / "error.pkl").write_bytes(cloudpickle.dumps(error))
    checkpoint = SimpleNamespace(metrics={"epoch": epoch}) if epoch else None
    return SimpleNamespace(
        error_file=str(folder / "error.txt"),
        pickled_error_file=str(folder / "error.pkl"),
        latest_checkpoint_result=checkpoint,
    )


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (_in_trial(RuntimeError("first line\nsecond")), "exception", "RuntimeError: first line"),
        (_in_trial(KeyError()), "exception", "KeyError"),
        (_in_trial(UserError("No images in x. Give others.")), "mistake", "No images in x. Give others."),
        (
            _in_trial(torch.OutOfMemoryError("CUDA out of memory.")),
            "gpu memory",
            "OutOfMemoryError: CUDA out of memory.",
        ),
        (
            _in_trial(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be …")),
            "gpu memory",
            "RuntimeError: CUDA error: out of memory",
        ),
        (_in_trial(MemoryError("out of memory")), "exception", "MemoryError: out of memory"),
        (
            _died("Worker exit type: SYSTEM_ERROR … (1) the process was killed by the OOM killer due to …"),
            "lost",
            "the trial's process was killed or crashed; if the machine is short of memory, run fewer trials at once",
        ),
        (
            _died("The actor is dead because it was killed by `ray.kill`."),
            "lost",
            "the trial hung, and the search ended its process",
        ),
        (_died("The actor died because its node has died. Node Id: 12"), "lost", "the trial's machine is gone"),
        (ActorUnavailableError("RpcError", None), "lost", "the trial's process or its machine no longer answers"),
        (
            LostProcessError(error_msg="1 worker(s) were killed due to the node running low on memory. Memory on …"),
            "lost",
            "the machine ran out of memory",
        ),
        (
            ActorDiedError(RayTaskError("__init__", "Traceback\nImportError: no torch", ImportError("no torch"))),
            "exception",
            "the trial's process could not start: ImportError: no torch",
        ),
    ],
)
def test_the_kind_and_a_line_of_each_failure(tmp_path: Path, error: Exception, kind: str, cause: str) -> None:
    failure = read_failure(_trial(tmp_path, error, epoch=3))
    assert (failure.kind, failure.last_epoch) == (kind, 3)
    assert cause in failure.cause
    assert "\n" not in failure.cause


def test_an_older_error_is_not_taken_for_the_last_one(tmp_path: Path) -> None:
    trial = _trial(tmp_path, _in_trial(RuntimeError("older")))
    (tmp_path / "error.txt").write_text("Failure # 2\nTraceback\nTuneError: newer\n")
    assert read_failure(trial) == Failure("exception", "TuneError: newer", 0)


def test_an_error_that_cannot_be_loaded_is_read_from_the_text(tmp_path: Path) -> None:
    trial = _trial(tmp_path, None, text="Traceback\nSomeError: told in words\n")
    (tmp_path / "error.pkl").write_bytes(b"no pickle")
    assert read_failure(trial).cause == "SomeError: told in words"


def test_a_line_has_no_key_no_temporary_path_and_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    text = "cannot open /tmp/ray/session_2026-11-23_19-00-00_1_2/logs/x with 0123456789abcdef " + "long " * 100
    cause = read_failure(_trial(tmp_path, _in_trial(OSError(text)))).cause
    assert "session_" not in cause
    assert "0123456789abcdef" not in cause
    assert len(cause) == LONGEST_CAUSE_CHARACTERS


def test_failures_are_alike_but_for_their_numbers() -> None:
    one, other = (Failure("exception", f"E: {mib} MiB at {at}", 0) for mib, at in (("20.5", "0x7f"), ("8", "0xa1")))
    assert one.likeness == other.likeness
    assert one.likeness != Failure("exception", "E: 8 GiB at 0xa1", 0).likeness
    assert one.repeats(other)
    assert not Failure("exception", one.cause, 1).repeats(one)
