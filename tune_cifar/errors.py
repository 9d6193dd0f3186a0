"""The one exception for a user's mistake, here so that every room can raise it and only the commands print it."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend: bad file, bad flag, missing data.

    The text is all the user sees (no traceback, exit code 2), so it names the place, the rule
    that was broken, the value found and the fix.
    """
