"""The one exception for a user's mistake, here so that every room can raise it and only the commands print it."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """A mistake that the user can mend: bad file, bad flag, missing data.

    The text is all the user sees (no traceback, exit code 2), so it names the place, the rule
    that was broken, the value found and the fix.
    """


def show(value: Any) -> str:
    """`value` as an error message shows it: as Python writes it, cut to a readable length."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of more than 4300 digits
        text = "a huge number"
    return cut(text, 80)


def cut(text: str, most_characters: int) -> str:
    """`text`, its end left out where it is longer than that: a message never repeats a whole file."""
    return text if len(text) <= most_characters else f"{text[: most_characters - 3]}..."
