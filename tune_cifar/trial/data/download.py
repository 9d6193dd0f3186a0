"""Fetches CIFAR-10 into a cache folder, once and whole or not at all, however many processes ask for it."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.request
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import wrap_file
from torchvision.datasets.utils import extract_archive

from tune_cifar.errors import UserError
from tune_cifar.trial.data.cifar10 import OFFICIAL_RELEASE, Cifar10Release
from tune_cifar.trial.data.layouts import LAYOUTS

_SILENCE_SECONDS = 30.0  # a server that sends nothing for so long is given up


def fetch_cifar10(cache_folder: Path, release: Cifar10Release = OFFICIAL_RELEASE) -> Path:
    """Return the folder with the unpacked files in `cache_folder`; download and unpack them if needed.

    An archive that was put into `cache_folder` by hand is used in place of a download. The folder gets its
    name only when it is complete, and one process works while others wait. Raises `UserError` that tells all
    ways to get data where neither is possible; an `OSError` of the cache folder itself passes through.
    """
    unpacked = cache_folder / release.folder_name
    if unpacked.is_dir():
        return unpacked
    cache_folder.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder / "cifar10.lock"):
        if not unpacked.is_dir():
            staging = cache_folder / "cifar10.partial"
            # Only the holder of the lock writes here: what lies here was left by a process that was killed.
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            try:
                extract_archive(_archive(cache_folder, staging, release), staging)
                (staging / release.folder_name).rename(unpacked)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return unpacked


def _archive(cache_folder: Path, staging: Path, release: Cifar10Release) -> Path:
    by_hand = cache_folder / release.archive_name
    if by_hand.exists():
        if _md5(by_hand) != release.archive_md5:
            raise UserError(
                f"{by_hand}: incomplete or not the official archive (its md5 must be {release.archive_md5}). "
                "Delete it to have it downloaded, or put a whole one there."
            )
        return by_hand
    archive = staging / release.archive_name
    try:
        _download(release.url, archive)
    except (OSError, http.client.HTTPException) as error:
        raise _no_data(cache_folder, release, str(error) or type(error).__name__) from error
    if _md5(archive) != release.archive_md5:
        raise _no_data(cache_folder, release, "what arrived is incomplete or changed: its md5 does not match")
    return archive


def _download(url: str, target: Path) -> None:
    # Not torchvision's own download: it has no time limit, so that a firewall that drops packets hangs it.
    with (
        urllib.request.urlopen(url, timeout=_SILENCE_SECONDS) as response,  # noqa: S310 - a fixed https address
        wrap_file(
            response,
            total=response.length or 0,
            description="Downloading CIFAR-10",
            console=Console(stderr=True),
        ) as stream,
        target.open("wb") as file,
    ):
        shutil.copyfileobj(stream, file)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _no_data(cache_folder: Path, release: Cifar10Release, reason: str) -> UserError:
    return UserError(
        f"CIFAR-10 is not in {cache_folder} and could not be downloaded: {reason}. Ways to get data:\n"
        f"* Download {release.url} by other means, put it into {cache_folder} as {release.archive_name} "
        f"(md5 {release.archive_md5}), or unpacked as {release.folder_name}, and run again.\n"
        "* --data digits: a small dataset that scikit-learn brings, to try everything without a download.\n"
        f"* --data PATH, a folder in one of these layouts:\n{LAYOUTS}"
    )
