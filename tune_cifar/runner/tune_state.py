"""Looks at Tune's state before a search is resumed, because Tune starts over without a word where it cannot read it.

In ray 2.60 `TuneController.__init__` logs a failed restore ("Restarting experiment.") and goes on with no trial, and a
searcher state that is not there is not missed at all. Nothing here runs what is pickled in the files.
"""

from __future__ import annotations

import json
import pickletools
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import tune_cifar
from tune_cifar.errors import UserError
from tune_cifar.files import replace_text
from tune_cifar.runner.state_commit import finish_commit
from tune_cifar.trials_file import load_trials

TUNE_FOLDER = "ray"
"""Tune's own files live in this folder of a search's results."""

TRIAL_FOLDERS = "trial-*"
VERSIONS_FILE = "versions.json"
EXPERIMENT_STATE = "experiment_state-*.json"
PICKLES = ("searcher-state-*.pkl", "search_gen_state-*.json", "callback-states-*.pkl", "tuner.pkl")

Start = Literal["new", "restore", "rebuild"]


class DamagedStateError(Exception):
    """Tune's state cannot be taken up, and why."""


def choose_start(folder: Path, *, rebuild: bool) -> Start:
    """How the search in `folder` goes on: from the beginning where nothing was trained yet, else as it can and as told.

    Raises `UserError` for a state that cannot be taken up; that it is given up for a rebuilding, must be asked for.
    """
    finish_commit(folder / TUNE_FOLDER)
    if rebuild:
        return "rebuild" if has_trained(folder) else "new"
    try:
        check_state(folder / TUNE_FOLDER)
    except DamagedStateError as damage:
        if not has_trained(folder):
            return "new"
        raise UserError(cannot_resume(folder, str(damage))) from None
    return "restore"


def cannot_resume(folder: Path, why: str) -> str:
    """What to do about a state that is damaged."""
    return (
        f"{why}. Nothing was started or changed. `--resume --rebuild --name {folder.name}` goes on without Ray's "
        "state: what has finished counts, the rest goes on from its checkpoints. Or put the file back, or start a new "
        "search under another --name."
    )


def check_state(folder: Path) -> None:
    """Raise `DamagedStateError` that names what is missing, damaged or of other versions in Tune's `folder`."""
    if not folder.is_dir():
        raise DamagedStateError(f"{folder} is gone, which held Ray's state and the checkpoints")
    _check_versions(folder / VERSIONS_FILE)
    _check_experiment(_newest(folder, EXPERIMENT_STATE))
    for pattern in PICKLES:
        _check_pickle(_newest(folder, pattern))


def note_versions(folder: Path) -> None:
    """Write down beside Tune's state what it can be read with: it holds pickled objects of these."""
    folder.mkdir(exist_ok=True)
    replace_text(folder / VERSIONS_FILE, json.dumps(_versions(), indent=2) + "\n")


def set_aside(folder: Path) -> Path | None:
    """Move all but the trials out of Tune's `folder` into a new one in it, which is returned; nothing is deleted."""
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    if not files:
        return None
    numbers = [int(path.name.rpartition("-")[2]) for path in folder.glob("old-state-*")]
    aside = folder / f"old-state-{max(numbers, default=0) + 1}"
    aside.mkdir()
    for path in files:
        path.rename(aside / path.name)
    return aside


def has_trained(folder: Path) -> bool:
    """Whether any epoch of the search is written down anywhere; a damaged trials.json counts as one."""
    try:
        saved = load_trials(folder)
    except UserError:
        return True
    if saved and any(trial.epochs for trial in saved.trials):
        return True
    return any(path.stat().st_size for path in (folder / TUNE_FOLDER).glob(f"{TRIAL_FOLDERS}/result.json"))


def _versions() -> dict[str, str]:
    return {
        "tune_cifar": tune_cifar.__version__,
        "ray": version("ray"),
        "optuna": version("optuna"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def _check_versions(path: Path) -> None:
    here = _versions()
    try:
        written: dict[str, Any] = json.loads(path.read_bytes())
        other = [f"{name} {written[name]}, not {here[name]}" for name in here if written[name] != here[name]]
    except FileNotFoundError:
        raise DamagedStateError(f"{path} is missing, which says what versions wrote Ray's state") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedStateError(_damaged(path, error)) from None
    if other:
        raise DamagedStateError(f"{path.parent} was written by {' and '.join(other)}, as {path.name} says")


def _newest(folder: Path, pattern: str) -> Path:
    """The file that Tune would read: the last one by its name, which ends in the start of the first session."""
    path = max(folder.glob(pattern), default=None)
    if path is None:
        raise DamagedStateError(f"{folder / pattern} is missing")
    return path


def _check_experiment(path: Path) -> None:
    try:
        state = json.loads(path.read_bytes())
        for parts in state["trial_data"]:
            trial, metadata = map(json.loads, parts)
            if not {"trial_id", "config", "status"} <= trial.keys() or "last_result" not in metadata:
                raise ValueError("a trial is not complete")
        if "_session_str" not in state["runner_data"]:
            raise ValueError("the part runner_data is not complete")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedStateError(_damaged(path, error)) from None


def _check_pickle(path: Path) -> None:
    try:
        content = path.read_bytes()
        *_, (_, _, end) = pickletools.genops(content)  # raises where the data breaks off
        if end is None or end + 1 != len(content):
            raise ValueError("something follows the end of the data")
    except Exception as error:  # what pickletools raises for bytes that are no pickle is not written down
        raise DamagedStateError(_damaged(path, error)) from None


def _damaged(path: Path, error: Exception) -> str:
    size = path.stat().st_size if path.exists() else 0
    reason = str(error).partition("\n")[0][:100] or type(error).__name__
    return f"{path} is damaged ({reason})" if size else f"{path} is damaged (it is empty)"
