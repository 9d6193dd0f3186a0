"""Makes the environment in which Paperspace's SDK runs, apart from ours because it pins old packages of ours.

gradient 2.99.4 wants PyYAML 5.3.1 and attrs 18, and replaces `distutils` in the process that imports it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from tune_cifar.errors import UserError
from tune_cifar.publish.retry import PublishError
from tune_cifar.scrubbing import environment_without_secrets
from tune_cifar.trial.data.source import default_cache_folder

REQUIREMENTS_FILE = Path(__file__).with_name("gradient-requirements.txt")
_PYTHON_VERSION = (3, 11)  # the newest that PyYAML 5.3.1 and the SDK were tried on together
_MAKING_SECONDS = 600.0


def find_uv() -> Path:
    """The uv command, beside this Python or on the PATH; raises `UserError` where there is none."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise UserError("Paperspace's SDK needs an environment of its own, which uv makes: pip install uv.")
    return Path(found)


def gradient_python() -> Path:
    """The Python of the SDK's environment, made once below `$TUNE_CIFAR_CACHE` or `~/.cache/tune_cifar`.

    The folder's name holds a hash of the pinned requirements, so that other pins get another environment; of
    processes that ask at once, one makes it. Raises `PublishError` when it cannot be made.
    """
    pins = hashlib.sha256(REQUIREMENTS_FILE.read_bytes()).hexdigest()[:12]
    cache_folder = default_cache_folder()
    folder = cache_folder / f"gradient-sdk-{pins}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    cache_folder.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder / f"gradient-sdk-{pins}.lock"):
        if not ready.is_file() or not python.exists():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _make(folder, python)
            except PublishError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            ready.touch()
    return python


def _make(folder: Path, python: Path) -> None:
    uv = find_uv()
    wanted = ".".join(map(str, _PYTHON_VERSION))
    interpreter = sys.executable if sys.version_info[:2] == _PYTHON_VERSION else wanted
    _run(uv, "venv", "--quiet", "--python", interpreter, str(folder))
    _run(uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", str(REQUIREMENTS_FILE))


def _run(uv: Path, *arguments: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            [str(uv), *arguments],
            env=environment_without_secrets(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_MAKING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PublishError(f"uv {arguments[0]} took over {_MAKING_SECONDS:g} s to make the SDK's environment") from None
    if done.returncode != 0:
        raise PublishError(f"the SDK's environment could not be made: uv {arguments[0]}: {done.stderr[-400:]}")
