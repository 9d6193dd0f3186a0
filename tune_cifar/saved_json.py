"""Reads JSON with every type checked, since the files of a search may be damaged or come from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from tune_cifar.errors import cut, show

Kind = TypeVar("Kind")

_MOST_SHOWN = 3
_LONGEST_PLACE = 100


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """The content of `path` as `kind`; raises `OSError`, or `ValueError` as `parse_json` does."""
    if path.exists() and not path.is_file():  # of a pipe, reading it would wait for ever
        raise ValueError("it is no file")
    return parse_json(path.read_bytes(), kind)


def parse_json(content: str | bytes, kind: type[Kind]) -> Kind:
    """`content` as a value of `kind`: a dataclass, a TypedDict, or a list or mapping of such.

    Nothing is converted but a whole number to a float and a list to a tuple, and keys that `kind` does not have are
    left out. Raises `ValueError` that tells in a few words what is wrong where.
    """
    # Imported here: with it, all that a command reads before its first line of output would wait for the import.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        problems = [
            _in_words(one["loc"], one["msg"], one["input"])
            for one in error.errors(include_url=False, include_context=False)
        ]
        rest = f"; and {len(problems) - _MOST_SHOWN:,} more" if len(problems) > _MOST_SHOWN else ""
        raise ValueError("; ".join(problems[:_MOST_SHOWN]) + rest) from None


def _in_words(location: Sequence[str | int], message: str, value: Any) -> str:
    """`trials[0].number should be a valid integer, got 'a'`."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if not place:
        return message  # the file is no JSON at all, or something else as a whole
    rule = message.removeprefix("Input ")
    got = "" if rule == "Field required" else f", got {show(value)}"
    return f"{cut(place, _LONGEST_PLACE)}: {rule}{got}"
