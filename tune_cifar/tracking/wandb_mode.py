"""Decides whether W&B runs go to the server or to disk, here so that it is known before any trial starts."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import wandb
from pydantic import ValidationError
from wandb.sdk.lib import wbauth

from tune_cifar.errors import UserError
from tune_cifar.scrubbing import hidden_variables

Mode = Literal["online", "offline", "disabled"]

# The values of WANDB_MODE (https://docs.wandb.ai/models/track/environment-variables); the last two are old.
_MODES: Mapping[str, Mode] = MappingProxyType(
    {"online": "online", "offline": "offline", "disabled": "disabled", "dryrun": "offline", "run": "online"}
)
# The search itself says these of each run. Left over in a shell, or set by a W&B agent, they would send every trial's
# rows to one run, to another sweep, or nowhere: the client takes some of them before what it is told (0.31).
_SAID_BY_THE_SEARCH = (
    "WANDB_RUN_ID",
    "WANDB_SWEEP_ID",
    "WANDB_RESUME",
    "WANDB_RESUME_FROM",
    "WANDB_FORK_FROM",
    "WANDB_LAUNCH",
    "WANDB_NAME",
    "WANDB_NOTES",
    "WANDB_TAGS",
    "WANDB_RUN_GROUP",
    "WANDB_PROJECT",
    "WANDB_ENTITY",
)
_HOW_TO_GET_A_KEY = "run `wandb login` or set WANDB_API_KEY"
_HOW_TO_GET_ONLINE = f"{_HOW_TO_GET_A_KEY} to send the next search to the server"


def choose_mode(requested: str | None) -> tuple[Mode, str]:
    """Decide between online, offline and disabled, and say why in one line.

    `requested` is the user's choice, or None for automatic: WANDB_MODE (or `wandb offline`) first, else
    online where W&B would find a key for its server (WANDB_API_KEY, the netrc file, an identity token) and
    offline where not. Asks no server and prints nothing. Raises `UserError` for an unknown mode, for a key of
    the wrong form (never shown), for online without a key, and for another setting that W&B's client refuses.
    """
    if requested is not None and requested not in ("online", "offline", "disabled"):
        raise UserError(f"--wandb must be online, offline or disabled, got {requested!r}.")
    place = "--wandb"
    if requested is None:
        requested, place = _mode_of_environment()
    if requested == "disabled":
        return "disabled", f"W&B is off: {place} says disabled."
    set_up_client()
    if requested == "offline":
        return "offline", f"W&B writes to disk: {place} says offline."
    server, has_key = _find_key()
    if has_key:
        return "online", f"W&B sends runs to {server}."
    if requested == "online":
        raise UserError(f"{place} says online, but there is no W&B key for {server}: {_HOW_TO_GET_ONLINE}.")
    return "offline", f"W&B writes to disk: no key for {server}; {_HOW_TO_GET_ONLINE}."


def check_key(wanted_by: str) -> None:
    """Raise `UserError`, which names what is `wanted_by`, where W&B would find no key for its server."""
    set_up_client()
    server, has_key = _find_key()
    if not has_key:
        raise UserError(f"{wanted_by} needs a W&B key, and there is none for {server}: {_HOW_TO_GET_A_KEY}.")


def set_up_client() -> None:
    """Make the W&B client print nothing in this process, and take no word of the environment about single runs.

    Raises `UserError` for another setting that the client refuses.
    """
    try:
        with hidden_variables(_SAID_BY_THE_SEARCH):
            wandb.setup(wandb.Settings(silent=True))
    except (ValueError, wandb.Error) as error:
        raise UserError(
            f"W&B's client refuses a setting ({_first_problem(error)}). Mend the WANDB_ variable, or the file "
            "wandb/settings, that says so."
        ) from None
    # Its telemetry logs a line for every retry once a server is gone (seen with 0.31).
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)


def sync_command(folder: Path) -> str:
    """The shell command that uploads the offline runs held in `folder` (the callback's folder)."""
    return f"wandb sync {shlex.quote(str(folder / 'wandb'))}"


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_input=False)[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return str(error)


def _mode_of_environment() -> tuple[Mode | None, str]:
    """The mode set outside of this program and where, or None; W&B's own default (online) is no setting."""
    value = os.environ.get("WANDB_MODE")
    if value:
        if value not in _MODES:
            raise UserError(f"WANDB_MODE must be online, offline or disabled, got {value!r}: unset it or mend it.")
        return _MODES[value], "WANDB_MODE"
    set_up_client()
    stored = _MODES.get(wandb.setup().settings.mode, "online")
    return (None, "") if stored == "online" else (stored, "W&B's settings file (`wandb online` undoes it)")


def _find_key() -> tuple[str, bool]:
    """W&B's server and whether the client would find credentials for it."""
    server = wandb.setup().settings.base_url
    try:
        # The search that wandb.init makes; every public name for it asks for a key or stores one.
        credentials = wbauth.authenticate_session(host=server, source="search", prompt=False, update_session=False)
    except wandb.errors.AuthenticationError as error:
        raise UserError(f"The W&B key does not fit: {error} Copy it again from {server}/authorize.") from None
    return server, credentials is not None
