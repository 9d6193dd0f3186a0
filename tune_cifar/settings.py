"""What a search was started with, kept beside its results so that a resume needs only its name."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import unicodedata
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tune_cifar.errors import UserError, show
from tune_cifar.files import replace_text
from tune_cifar.saved_json import read_json
from tune_cifar.trial.config import PRECISION_CHOICES, check_parameter

SETTINGS_FILE = "search.json"
SWEEP_COPY = "sweep"
SWEEP_SHA256 = "sweep_sha256"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class SearchSettings:
    """The flags that a search depends on. A resume takes them from the first start and may not change them.

    "auto" is stored as the number that came of it; asked for again at a resume, it means that number.
    """

    data: str
    train_images: int | None
    count: int | None
    seed: int
    cpus_per_trial: float | None
    gpus_per_trial: float | Literal["auto"] | None
    trials_at_once: int | None
    precision: str
    prediction_images: int | Literal["all"] = 128
    repeat_best: int | None = None
    seeds: int | None = None
    prior: list[str] | None = None
    wandb_project: str | None = None
    wandb_entity: str | None = None
    max_failures: int = 2

    def resumed_with(self, given: dict[str, Any]) -> SearchSettings:
        """These settings again; raises `UserError` when a flag in `given` (None: not given) says otherwise."""
        kept = asdict(self)
        resolved = {} if self.gpus_per_trial is None else {"gpus_per_trial": "auto"}
        changed = [
            f"--{name.replace('_', '-')} was {_show(kept[name])} and is now {_show(value)}"
            for name, value in given.items()
            if value is not None and name in kept and value not in (kept[name], resolved.get(name))
        ]
        if changed:
            raise UserError(
                f"A resumed search goes on as it was started, but {'; '.join(changed)}. "
                "Leave the flags out, or start a new search under another --name."
            )
        return self


def _show(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return "not given" if value is None else str(value)


def save_settings(folder: Path, settings: SearchSettings, sweep_file: Path) -> None:
    """Write search.json and a copy of the sweep file into `folder`."""
    # A file without a suffix is read as YAML, and found again by one.
    shutil.copyfile(sweep_file, folder / f"{SWEEP_COPY}{sweep_file.suffix or '.yaml'}")
    kept = {**asdict(settings), SWEEP_SHA256: _sha256(sweep_file)}
    replace_text(folder / SETTINGS_FILE, json.dumps(kept, indent=2) + "\n")


def load_settings(folder: Path) -> tuple[SearchSettings, Path]:
    """Read back what `save_settings` wrote: the settings and the copy of the sweep file."""
    path = folder / SETTINGS_FILE
    copies = sorted(path for path in folder.glob(f"{SWEEP_COPY}.*") if path.is_file())
    if not path.is_file() or not copies:
        raise UserError(f"{folder} is not the folder of a search: it lacks {SETTINGS_FILE} or the sweep file.")
    try:
        # A search of an earlier version lacks the flags that came later: they had not been given.
        settings = read_json(path, SearchSettings)
        if problem := _problem(settings):
            raise ValueError(problem)
        sweep_sha256 = read_json(path, dict[str, Any]).get(SWEEP_SHA256)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Start the search again under another --name.") from None
    if sweep_sha256 not in (None, _sha256(copies[0])):  # a search of an earlier version did not note it
        raise UserError(
            f"{copies[0]} is not what the search was started with: it was changed or damaged. Copy the sweep file "
            "there again, or start a new search under another --name."
        )
    return settings, copies[0]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _problem(settings: SearchSettings) -> str | None:
    """What no flag can have been, or None."""
    for name in ("train_images", "count", "trials_at_once", "repeat_best", "seeds"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            return f"{name} must be 1 or more, got {value}"
    for name in ("cpus_per_trial", "gpus_per_trial", "prediction_images", "max_failures"):
        value = getattr(settings, name)
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            return f"{name} must be 0 or more, got {value}"
    if settings.precision not in PRECISION_CHOICES:
        return f"precision must be one of {', '.join(PRECISION_CHOICES)}, got {show(settings.precision)}"
    seed_problem = check_parameter("seed", settings.seed)
    return f"seed {seed_problem}" if seed_problem else None


def default_name(title: str, now: datetime) -> str:
    """A new search's name where none is given: what its sweep is called, as a folder can be, and the time."""
    letters = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()  # Ü is U then
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", letters).strip("._-")
    return f"{plain[:80] or 'search'}-{now:%Y%m%d-%H%M%S}"


def search_folder(results: Path, name: str) -> Path:
    """The folder of the search called `name`; raises `UserError` when that cannot be a folder's name."""
    if not NAME_PATTERN.fullmatch(name):
        raise UserError(
            f"--name {show(name)} must be at most 100 letters, digits, '.', '_' and '-', the first a letter or digit."
        )
    return results / name


def check_free(folder: Path) -> None:
    """Raise `UserError` when there is something under the name of a new search."""
    if folder.exists():
        raise UserError(
            f"{folder} exists. Go on with that search by --resume --name {folder.name}, or choose another --name."
        )


def make_search_folder(folder: Path) -> None:
    """Make the folder of a new search; of two that start under one name at once, one gets it."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        check_free(folder)
        raise UserError(f"{folder}: {error.strerror}. Choose a folder that can be written by --results.") from None


def newest_search(results: Path) -> Path:
    """The search in `results` that was started last."""
    started = [path.parent for path in results.glob(f"*/{SETTINGS_FILE}")] if results.is_dir() else []
    if not started:
        raise UserError(f"There is no search in {results} to resume. Say where by --results and which by --name.")
    return max(started, key=lambda folder: (folder / SETTINGS_FILE).stat().st_mtime)
