"""Copies a search's files to the head of a cluster, and its results back, by rsync over ssh."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cifar.cluster.origin import check_local, save_origin
from tune_cifar.cluster.remote_head import Head, HeadFacts
from tune_cifar.cluster.ssh_tunnel import SshError, run_ssh, ssh_error
from tune_cifar.errors import UserError
from tune_cifar.search_lock import LOCK_FILE
from tune_cifar.sweep.prior_files import TRIALS_FILE

SENT_FOLDER = "results/.sent"
"""Of the head's project, which `ray up` does not replace: what was sent, a folder a search."""

STAYS_THERE = ("ray/", LOCK_FILE)
"""Tune's state and checkpoints: large, and of use only to a resume, which happens there. And who runs it now."""

_SSH_FAILED = 255


@dataclass(frozen=True)
class SentFiles:
    """Where the files of a search are on the head, as seen from its project."""

    sweep: str | None
    priors: tuple[str, ...]


def send_files(head: Head, facts: HeadFacts, name: str, sweep: Path | None, priors: Sequence[Path]) -> SentFiles:
    """Copy the sweep file and the earlier trials to the head; raises `UserError` when they do not arrive."""
    with tempfile.TemporaryDirectory() as staged:
        folder = Path(staged)
        sent = SentFiles(
            _stage(sweep, folder, f"sweep{sweep.suffix}") if sweep else None,
            tuple(_stage(path, folder, _prior_name(number, path)) for number, path in enumerate(priors, start=1)),
        )
        place = f"{facts.project}/{SENT_FOLDER}/{name}"
        made = run_ssh(head.login, f"mkdir -p {shlex.quote(place)}")
        if made.returncode:
            raise UserError(f"{place} cannot be made on {head.address}: {' '.join(made.stderr.split())}")
        _rsync(head, f"{folder}/", f"{head.login.destination}:{place}/")
    inside = f"{SENT_FOLDER}/{name}"
    return SentFiles(
        f"{inside}/{sent.sweep}" if sent.sweep else None, tuple(f"{inside}/{prior}" for prior in sent.priors)
    )


def _stage(path: Path, folder: Path, name: str) -> str:
    if path.is_dir():
        # Of a folder of results this file is all that is read.
        (folder / name).mkdir()
        shutil.copyfile(path / TRIALS_FILE, folder / name / TRIALS_FILE)
    else:
        shutil.copyfile(path, folder / name)
    return name


def _prior_name(number: int, path: Path) -> str:
    return f"prior-{number}-" + re.sub(r"[^A-Za-z0-9._-]", "_", path.resolve().name)


def fetch_results(head: Head, remote_folder: str, folder: Path) -> bool:
    """Copy the search's results into `folder`, again if they are there, but for Tune's state and checkpoints.

    Returns False when the head has none, as when the search ended before its first trial.
    """
    there = run_ssh(head.login, f"test -d {shlex.quote(remote_folder)}")
    if there.returncode:
        return False
    check_local(folder, head.address, remote_folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_origin(folder, head.address, remote_folder)
    kept = [f"--exclude=/{name}" for name in STAYS_THERE]
    _rsync(head, *kept, f"{head.login.destination}:{remote_folder}/", f"{folder}/")
    return True


def _rsync(head: Head, *arguments: str) -> None:
    """Run rsync; raises `SshError` when the connection failed, which may pass, and `UserError` for the rest."""
    try:
        copied = subprocess.run(  # noqa: S603 - no shell here, and names that need no quotes there
            ["rsync", "-a", "--partial", "-e", shlex.join(head.login.command), *arguments],  # noqa: S607 - the user's own
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise UserError("--address needs the program rsync, which is not on this machine: install rsync.") from None
    said = " ".join(copied.stderr.split())
    if copied.returncode == _SSH_FAILED or "unexplained error (code 255)" in said:
        raise ssh_error(head.login, said)
    if copied.returncode:
        if "rsync: not found" in said or "rsync: command not found" in said:
            raise UserError(f"{head.address} has no rsync, by which files are copied. Install it there: rsync.")
        if "connection unexpectedly closed" in said:
            raise SshError(f"The connection to {head.address} broke while files were copied.")
        raise UserError(f"rsync could not copy the files of the search: {said[-500:]}")
