"""Reads why a trial failed from the error that Ray gave Tune, as one line for people and a kind for the retry rules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial

from tune_cifar.errors import UserError
from tune_cifar.scrubbing import scrub

Kind = Literal["mistake", "exception", "gpu memory", "lost"]
"""A user's mistake, an exception in the trial, no memory left on its GPU, or a process or machine that is gone."""

LONGEST_CAUSE_CHARACTERS = 300

# Paths below Ray's temporary folder say nothing to a reader, and are gone with the next Ray.
_RAY_PATH = re.compile(r"\S*/session_\d{4}-\d\d-\d\d_\S*")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(\.\d+)?")


@dataclass(frozen=True)
class Failure:
    """One failed attempt of a trial: its `cause` in one line, and the epoch of the checkpoint it left, 0 for none."""

    kind: Kind
    cause: str
    last_epoch: int

    @property
    def likeness(self) -> str:
        """The cause without its numbers, such as a process id, which differ where the failure is the same."""
        return _NUMBER.sub("#", self.cause)

    def repeats(self, earlier: Failure) -> bool:
        """Whether it is the same failure at the same place in training."""
        return (self.likeness, self.last_epoch) == (earlier.likeness, earlier.last_epoch)


class LostProcessError(RayActorError):  # type: ignore[misc]
    """A trial's process that Ray ended for a reason other than the death of an actor, such as a full memory."""


def read_failure(trial: Trial) -> Failure:
    """What Tune has just written down of a trial's failure."""
    text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    error = _error_of(trial, text)
    checkpoint = trial.latest_checkpoint_result
    last_epoch = int(checkpoint.metrics["epoch"]) if checkpoint else 0
    if error is None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return Failure("exception", _one_line(lines[-1] if lines else "failed for an unknown reason"), last_epoch)
    return Failure(_kind(error), _one_line(describe_error(error)), last_epoch)


def _error_of(trial: Trial, text: str) -> BaseException | None:
    """The error itself; Tune keeps the last one from Ray, which need not be the last failure's."""
    path = trial.pickled_error_file
    if not path or not Path(path).is_file():
        return None
    try:
        error: BaseException = cloudpickle.loads(Path(path).read_bytes())
    except Exception:  # an exception of a library may be of any class, also of one that cannot be loaded here
        return None
    return error if text.rstrip().endswith(str(error).rstrip()) else None


def _kind(error: BaseException) -> Kind:
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, UserError):
        return "mistake"
    if _is_gpu_memory(cause):
        return "gpu memory"
    if isinstance(error, RayActorError) and not error.actor_init_failed:
        return "lost"
    return "exception"


def _is_gpu_memory(error: BaseException) -> bool:
    text = str(error)
    # Only torch's own allocator raises its class; CUDA and its libraries speak through a RuntimeError.
    return (
        isinstance(error, torch.OutOfMemoryError)
        or ("CUDA error" in text and "out of memory" in text)
        or "CUBLAS_STATUS_ALLOC_FAILED" in text
    )


def describe_error(error: BaseException) -> str:
    """The error in a few words of ours where Ray has a page of its own, else what the trial raised."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        text = next((line for line in str(cause).splitlines() if line.strip()), "")
        if isinstance(cause, UserError):
            return text
        return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
    text = str(error)
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return f"the trial's process could not start: {text.strip().splitlines()[-1]}"
    if "running low on memory" in text:
        return "the machine ran out of memory, and Ray ended the trial's process: run fewer trials at once"
    if "killed by `ray.kill`" in text:
        return "the trial hung, and the search ended its process"
    if "node has died" in text or "node was terminated" in text:
        return "the trial's machine is gone"
    if "is unavailable" in text:
        return "the trial's process or its machine no longer answers"
    if isinstance(error, RayActorError):
        return "the trial's process was killed or crashed; if the machine is short of memory, run fewer trials at once"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _one_line(text: str) -> str:
    line = scrub(_RAY_PATH.sub("…", text))
    return line if len(line) <= LONGEST_CAUSE_CHARACTERS else f"{line[: LONGEST_CAUSE_CHARACTERS - 1]}…"
