"""Makes the key of a Ray that is started here, which Ray's own code would leave readable to every user (ray 2.60)."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from tune_cifar.errors import UserError

# What Ray takes a token from before it looks for the file (https://docs.ray.io/en/latest/ray-security/token-auth.html).
_ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def provide_token() -> None:
    """Make ~/.ray/auth_token, for its owner alone from its first moment on, unless Ray will not ask for it.

    A file that is there keeps its content, and loses what others may do with it. Raises `UserError` where it cannot
    be written.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or any(map(os.environ.get, _ELSEWHERE)):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        status = path.stat()
        if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}). Ray keeps the key of its own processes there: set "
            "HOME to a folder of yours, or RAY_AUTH_MODE=disabled to go without."
        ) from None


def _make(path: Path) -> None:
    descriptor, partial = tempfile.mkstemp(dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))  # 256 bits, as Ray's own are
        # A link appears with its content, and of two searches that start at once the second finds that of the first.
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
    finally:
        Path(partial).unlink()
