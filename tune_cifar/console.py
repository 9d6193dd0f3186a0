"""Where a search speaks, with what `--quiet` leaves out told apart from what everybody needs to know."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class SearchConsole(Console):
    """Prints warnings, notes, errors and results; `details` prints the rest, or nothing where it is to be quiet."""

    def __init__(self, *, quiet: bool = False, **options: Any) -> None:
        """`options` are those of `rich.console.Console`."""
        super().__init__(highlight=False, **options)
        self.details: Console = Console(highlight=False, quiet=True) if quiet else self

    @property
    def can_redraw(self) -> bool:
        """Whether details may be drawn over: not in a file or pipe, whatever FORCE_COLOR says, nor on TERM=dumb."""
        return not self.details.quiet and self.is_interactive and self.file.isatty()
