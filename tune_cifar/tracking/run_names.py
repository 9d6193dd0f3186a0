"""Names a trial's run in W&B and TensorBoard, so that it is found again and told from the others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# W&B states no bound for ids; one of 64 keeps the names that it derives from an id under its 128 as well.
MAX_ID_CHARACTERS = 64
MAX_NAME_CHARACTERS = 64


def run_id(search_name: str, trial_id: str) -> str:
    """The run's id within the W&B project, the same at every resume: the search's name and the trial's id."""
    trial = _plain(trial_id)
    return f"{_plain(search_name)[: MAX_ID_CHARACTERS - 1 - len(trial)]}-{trial}"


def run_name(trial_number: int, config: Mapping[str, Any], free_parameters: Sequence[str]) -> str:
    """A short name that tells trials apart, such as `3-ResNet18-bs32-lr0.0042`.

    `free_parameters` are the searched ones, by name or by path ("optimizer/lr"), the most telling first; those
    that no longer fit are left out.
    """
    values = dict(_leaves(config))
    name = str(trial_number)
    for parameter in free_parameters:
        leaf = parameter.rpartition("/")[2]
        if leaf in values:
            longer = f"{name}-{_short(leaf, values[leaf])}"
            name = longer if len(longer) <= MAX_NAME_CHARACTERS else name
    return name


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")


def _leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield name, value


def _short(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    if isinstance(value, str):
        return value
    initials = "".join(word[0] for word in name.split("_")) if "_" in name else name
    return f"{initials}{value:.2g}" if isinstance(value, float) else f"{initials}{value}"
