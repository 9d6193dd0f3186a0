"""Notes in a folder of results that it was fetched from a cluster, so that nothing else is ever done with it."""

from __future__ import annotations

import json
from pathlib import Path

from tune_cifar.errors import UserError
from tune_cifar.files import replace_text

ORIGIN_FILE = "cluster.json"
"""In a folder of results that were fetched: where they come from."""


def save_origin(folder: Path, address: str, remote_folder: str) -> None:
    """Write into `folder` that it holds what is in `remote_folder` of the head at `address`."""
    origin = {"address": address, "folder": remote_folder}
    replace_text(folder / ORIGIN_FILE, json.dumps(origin, indent=2) + "\n")


def check_local(folder: Path, address: str, remote_folder: str) -> None:
    """Raise `UserError` when `folder` holds anything but what was fetched earlier from that folder of that head."""
    if folder.exists() and _place(_read_origin(folder)) != _place({"address": address, "folder": remote_folder}):
        raise UserError(
            f"{folder} is there already and holds something else than the search on {address}. "
            "Fetch its results into another folder by --results DIR."
        )


def check_runs_here(folder: Path) -> None:
    """Raise `UserError` when the results in `folder` were fetched from a cluster, which alone can go on with them."""
    if origin := _read_origin(folder):
        address = str(origin.get("address", "HEAD"))
        raise UserError(
            f"{folder} was fetched from a cluster, where its checkpoints are. Go on there: "
            f"--address {address} --resume --name {folder.name}, or name another search by --name."
        )


def _place(origin: dict[str, object] | None) -> tuple[str, str]:
    """Host and folder: user and port may be written or not."""
    host = str((origin or {}).get("address", "")).rpartition("@")[2].partition(":")[0]
    return host, str((origin or {}).get("folder", ""))


def _read_origin(folder: Path) -> dict[str, object] | None:
    try:
        origin = json.loads((folder / ORIGIN_FILE).read_text())
    except (OSError, ValueError):
        return None
    return origin if isinstance(origin, dict) else None
