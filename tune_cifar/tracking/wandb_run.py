"""Opens, closes and amends the W&B run of one trial, here so that the callback only says when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb

from tune_cifar.errors import UserError
from tune_cifar.tracking.run_names import run_id
from tune_cifar.tracking.trial_history import Row
from tune_cifar.tracking.wandb_mode import Mode
from tune_cifar.tracking.wandb_place import check_project

# W&B refuses names over 128 characters (https://github.com/NVIDIA-NeMo/Skills/issues/842) and tags over 64
# (https://github.com/wandb/wandb/issues/4208), the latter only when an offline run is uploaded.
MAX_GROUP_CHARACTERS = 128
MAX_TAG_CHARACTERS = 64


@dataclass(frozen=True)
class RunTarget:
    """Where the runs of one search go and what they share; raises `UserError` for what W&B would refuse."""

    project: str
    entity: str | None
    search_name: str
    folder: Path
    notes: str | None
    tags: tuple[str, ...]
    sweep_id: str | None
    init_seconds: float
    finish_seconds: float

    def __post_init__(self) -> None:
        check_project(self.project)
        for tag in self.tags:
            if not 1 <= len(tag) <= MAX_TAG_CHARACTERS:
                raise UserError(f"A W&B tag must be 1 to {MAX_TAG_CHARACTERS} characters, got {tag!r}.")


@dataclass
class TrialRun:
    """The W&B run of one trial: its id within the project, its name, whether a server has rows of it.

    `is_repeat` gives it a tag. `summary` is what its summary ended with, known once it has ended.
    """

    run_id: str
    name: str = ""
    sent: bool = False
    is_repeat: bool = False
    summary: dict[str, Any] = field(default_factory=dict)


def find_run(target: RunTarget, trial_id: str) -> TrialRun:
    """The run that an earlier process opened for a trial, by the folders that W&B's client left of it.

    The id with "-offline" is that of a trial whose first run could not be started online.
    """
    own, fallback = run_id(target.search_name, trial_id), run_id(target.search_name, f"{trial_id}-offline")
    if any(target.folder.glob(f"wandb/*run-*-{fallback}")):
        return TrialRun(fallback)
    return TrialRun(own, sent=any(target.folder.glob(f"wandb/run-*-{own}")))


@dataclass(frozen=True)
class Amendment:
    """What is added to a run that has ended: a tag, values of its summary, and an artifact if there is one."""

    tag: str
    summary: Mapping[str, Any]
    artifact: wandb.Artifact | None


def open_run(
    target: RunTarget,
    mode: Mode,
    trial_run: TrialRun,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    stop: Callable[[], None],
) -> wandb.Run:
    """Start the trial's run, or go on with it after a resume, so that it holds exactly `rows`.

    After a kill the folder of an offline run ends anywhere, and `wandb sync` gives a step that comes twice a new
    number (measured). So an unsent folder is set aside, never deleted, and the new one holds every row. `stop` is
    called, from another thread, when somebody presses Stop on the run's page. Raises what `wandb.init` raises,
    after about `target.init_seconds`.
    """
    earlier_folders = list(target.folder.glob(f"wandb/offline-run-*-{trial_run.run_id}"))
    unsent_folders = [folder for folder in earlier_folders if folder in unsent_runs(target.folder)]
    on_server = trial_run.sent or len(unsent_folders) < len(earlier_folders)
    identity = {**_identity(target, mode, trial_run, config), "tags": _tags(target, trial_run)}
    # Somebody may have changed these on the run's page since.
    left_alone = ("name", "notes", "tags") if mode == "online" and on_server else ()
    given = {name: value for name, value in identity.items() if name not in left_alone}
    run = wandb.init(**given, settings=_settings(target, stop_fn=stop))
    if not run.resumed:  # it never arrived, or was deleted
        for name in left_alone:
            setattr(run, name, identity[name])
    if mode == "online":
        first_missing_step = run.starting_step if run.resumed else 0
        trial_run.sent = True
    else:
        first_missing_step = rows[-1][0] + 1 if rows and on_server else 0
    if mode == "online" or not on_server:
        for folder in unsent_folders:
            (target.folder / "superseded").mkdir(exist_ok=True)
            folder.rename(target.folder / "superseded" / folder.name)
    for step, row in rows:
        if step >= first_missing_step:
            run.log(row, step=step, commit=True)
    return run


def amend_run(
    target: RunTarget, mode: Mode, trial_run: TrialRun, config: Mapping[str, Any], amendment: Amendment
) -> None:
    """Add to a run that has ended well; raises what `wandb.init` and the upload raise.

    Online the run keeps whatever was done to it on its page since. Offline this writes a second folder of the same
    run, which `wandb sync` sends after the first one (it goes by their starts). The summary of the second takes
    the place of the first one's, so it is given whole; the run's duration on its page becomes 0 (measured, 0.31).
    """
    if mode == "online":
        identity: dict[str, Any] = {"project": target.project, "entity": target.entity, "id": trial_run.run_id}
        identity |= {"dir": str(target.folder), "mode": mode, "reinit": "create_new", "resume": "must"}
        run = wandb.init(**identity, settings=_settings(target))
        tags = run.tags or ()
    else:
        run = wandb.init(**_identity(target, mode, trial_run, config), settings=_settings(target))
        tags = _tags(target, trial_run)
    try:
        run.tags = tuple(dict.fromkeys([*tags, amendment.tag]))
        run.summary.update({**trial_run.summary, **amendment.summary})
        if amendment.artifact is not None:
            run.log_artifact(amendment.artifact)
    finally:
        run.finish(exit_code=0)


def unsent_runs(folder: Path) -> list[Path]:
    """The folders of offline runs under `folder` (the callback's) that nobody has uploaded yet."""
    return [path for path in sorted(folder.glob("wandb/offline-run-*")) if not any(path.glob("*.wandb.synced"))]


class RefusedRowsError(Exception):
    """The server does not want a run's rows, and the client has given up on them."""


def close_run(run: wandb.Run, exit_code: int, summary: Mapping[str, Any]) -> None:
    """End `run` with its state in `summary`.

    Raises TimeoutError if the upload takes over `finish_seconds`, and `RefusedRowsError` where the client gave it up.
    """
    run.summary.update(dict(summary))
    if summary["status"] == "diverged":
        run.tags = (*(run.tags or ()), "diverged")
    run.finish(exit_code=exit_code)
    # An answer such as 401 ends the upload for good, and `finish` then returns as if all had arrived (0.31).
    log = Path(run.settings.log_internal)
    if not run.offline and log.is_file() and "filestream: fatal error" in log.read_text(errors="replace"):
        raise RefusedRowsError(str(log))


def _tags(target: RunTarget, trial_run: TrialRun) -> tuple[str, ...]:
    return (*target.tags, *(["repeat"] if trial_run.is_repeat else []))


def _identity(target: RunTarget, mode: Mode, trial_run: TrialRun, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "project": target.project,
        "entity": target.entity,
        "group": target.search_name[:MAX_GROUP_CHARACTERS],
        "dir": str(target.folder),
        "id": trial_run.run_id,
        "name": trial_run.name,
        "notes": target.notes,
        "config": dict(config),
        "allow_val_change": True,
        "mode": mode,
        "reinit": "create_new",
        "resume": "allow",
    }


def _settings(target: RunTarget, **more: Any) -> wandb.Settings:
    return run_settings(
        target.init_seconds,
        target.finish_seconds,
        sweep_id=target.sweep_id,
        # W&B's 15 s, measured: a driver killed before its first flush left a file of 7 bytes.
        x_transaction_log_flush_interval=2.0,
        **more,
    )


def run_settings(init_seconds: float, finish_seconds: float, **more: Any) -> wandb.Settings:
    """How every run of this project is opened: silent, within time limits, without code, machine and packages."""
    return wandb.Settings(
        silent=True,
        console="off",
        init_timeout=init_seconds,
        finish_timeout=finish_seconds,
        finish_timeout_raises=True,
        use_dot_wandb=False,
        symlink=False,
        disable_code=True,
        # All runs share the driver's machine and packages: these say nothing of one trial.
        x_disable_stats=True,
        x_save_requirements=False,
        **more,
    )
