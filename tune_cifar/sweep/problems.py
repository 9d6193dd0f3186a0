"""Collects everything wrong or doubtful in a sweep file, so that one reading shows all of it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from tune_cifar.errors import UserError, cut, show
from tune_cifar.sweep.source import Location, Problem, SourceFile, dotted
from tune_cifar.sweep.values import is_number

# Beyond these, differences and products of two bounds no longer fit a double.
LARGEST_NUMBER = 1e300
# Enough to mend a file; a file with more is broken as a whole.
MOST_SHOWN = 50
_LONGEST_LINE = 1_000
# Looking for the word that a text is like takes time with its length; no key is nearly as long.
_LONGEST_WORD = 100
# Beyond this, a double no longer holds every whole number.
LARGEST_INTEGER = 2**53


class FileCheck:
    """The problems and warnings of one sweep file, each with its place, and the checks that sections share.

    A check returns the value, or None once it has noted a problem.
    """

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self.problems: list[Problem] = list(source.problems)
        self.places = {problem.location for problem in source.problems}
        self.warnings: list[str] = []

    def problem(self, location: Location, text: str) -> None:
        """Note that `location` breaks a rule; the first problem of a place is the one shown."""
        if location not in self.places or not location:
            self.places.add(location)
            self.problems.append(Problem(location, self.source.line(location), text))

    def warn(self, location: Location, text: str) -> None:
        """Note that `location` is legal but probably not meant."""
        self.warnings.append(f"{self.source.path}:{self.source.line(location)}: {dotted(location)}: {text}")

    def raise_problems(self) -> None:
        """Raise one `UserError` with every problem, in the order of the file."""
        if not self.problems:
            return
        lines = []
        for problem in sorted(self.problems, key=lambda problem: problem.line):
            name = f"{dotted(problem.location)}: " if problem.location else ""
            lines.append(f"{self.source.path}:{problem.line}: {name}{cut(problem.text, _LONGEST_LINE)}")
        heading = [f"{self.source.path} has {len(lines)} problems:"] if len(lines) > 1 else []
        rest = [f"… and {len(lines) - MOST_SHOWN} more."] if len(lines) > MOST_SHOWN else []
        raise UserError("\n".join(heading + lines[:MOST_SHOWN] + rest))

    def known_keys(
        self, section: dict[str, Any], known: Iterable[str], location: Location, kind: str = "sweep file"
    ) -> None:
        """Refuse the keys of `section` that are not among `known`."""
        names = list(known)
        for key in section:
            if key not in names:
                hint = did_you_mean(key, names) or f"Known: {', '.join(names)}."
                self.problem((*location, key), f"is not a key of a {kind} here. {hint}")

    def mapping(self, value: Any, location: Location) -> dict[str, Any] | None:
        """A mapping of keys."""
        if isinstance(value, dict):
            return value
        self.problem(location, f"must be a mapping of keys, got {show(value)}.{_without_value(value)}")
        return None

    def text(self, value: Any, location: Location) -> str | None:
        """A text."""
        if isinstance(value, str):
            return value
        hint = _without_value(value) or " Put it in quotes."
        self.problem(location, f"must be text, got {show(value)}.{hint}")
        return None

    def choice(self, value: Any, choices: Iterable[str], location: Location) -> str | None:
        """One of a few words."""
        names = list(choices)
        if isinstance(value, str) and value in names:
            return value
        hint = did_you_mean(value, names)
        self.problem(location, f"must be one of {', '.join(names)}, got {show(value)}. {hint}".rstrip())
        return None

    def number(self, value: Any, location: Location) -> float | None:
        """A finite number, int or float as the file has it."""
        if is_number(value) and abs(value) <= LARGEST_NUMBER:
            number: float = value
            return number
        hint = _without_value(value)
        if isinstance(value, str) and _reads_as_number(value):
            hint = f" Write {value.strip()} without quotes."
        self.problem(location, f"must be a finite number, got {show(value)}.{hint}")
        return None

    def integer(self, value: Any, location: Location, low: int | None = None) -> int | None:
        """A whole number, from `low` up; 10.0 is one too, as in JSON schema."""
        number = self.number(value, location)
        if number is None:
            return None
        if number != int(number) or abs(number) > LARGEST_INTEGER or (low is not None and number < low):
            start = "" if low is None else f" from {low} up"
            self.problem(location, f"must be a whole number{start}, got {show(value)}.")
            return None
        return int(number)

    def boolean(self, value: Any, location: Location) -> bool | None:
        """True or false."""
        if isinstance(value, bool):
            return value
        self.problem(location, f"must be true or false, got {show(value)}.{_without_value(value)}")
        return None


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """A hint with the nearest known word, or nothing."""
    names = {name.lower(): name for name in known}
    is_word = isinstance(word, str) and len(word) <= _LONGEST_WORD
    near = get_close_matches(word.lower(), names, n=1) if is_word else []
    return f"Did you mean {names[near[0]]!r}?" if near else ""


def _without_value(value: Any) -> str:
    return " Give it a value or remove the key." if value is None else ""


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
