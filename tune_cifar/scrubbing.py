"""Takes keys out of texts and environments, here so that no message, file or child process can carry one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator

AWS_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN")
SECRET_VARIABLES = (
    *AWS_VARIABLES,
    "PAPERSPACE_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
)
_SHORTEST_SECRET_CHARACTERS = 6  # a shorter value would blank out ordinary words

# A presigned address is a key as well: its query holds the signature. So may user:password@ before a host.
_QUERY = re.compile(r"(https?://[^\s?'\"]*|/[^\s?'\"]+)\?[^\s'\")]+")
_USER = re.compile(r"(\w+://)[^\s/@]+@")


def scrub(text: str) -> str:
    """`text` on one line, without the values of the known key variables, queries and users of addresses."""
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= _SHORTEST_SECRET_CHARACTERS:
            text = text.replace(value, f"<{name}>")
    return " ".join(_USER.sub(r"\1", _QUERY.sub(r"\1?…", text)).split())


def environment_without_secrets() -> dict[str, str]:
    """This process's environment less every known key, for a child process that needs none."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}


@contextlib.contextmanager
def hidden_variables(names: Collection[str]) -> Iterator[None]:
    """While the context lasts, this process's environment has no variable of these names."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
