"""Reads a sweep file into plain data and the line of every value, so that each error can name its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tune_cifar.errors import UserError, cut, show

Location = tuple[str | int, ...]

# A sweep file has a few dozen values. The limits keep a hostile or mistaken file (an alias bomb, a
# checkpoint given by accident) from filling the memory; they are far above any real file.
MAX_BYTES = 300_000
MAX_DEPTH = 40
MAX_VALUES = 100_000

_LONGEST_NAME = 120
_LONGEST_REASON = 300  # characters of what PyYAML says, which repeats names of any length

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null")}
_JSON_STRING_OR_TAB = re.compile(r'"(?:\\.|[^"\\])*"|\t')


@dataclass(frozen=True)
class Problem:
    """One thing wrong at one place of the file."""

    location: Location
    line: int
    text: str


@dataclass(frozen=True)
class SourceFile:
    """A sweep file as plain data (dict, list, str, int, float, bool, None).

    `lines` maps each value's location, such as ("parameters", "lr", "min"), to its line, counted from 1.
    `problems` are those that leave the rest of the file readable, such as a key given twice.
    """

    path: Path
    data: dict[str, Any]
    lines: Mapping[Location, int]
    problems: tuple[Problem, ...]

    def line(self, location: Location) -> int:
        """The line of `location`, or of the nearest enclosing value that the file has."""
        while location not in self.lines:
            location = location[:-1]
        return self.lines[location]


def read_source(path: Path, kind: str = "sweep file", least: str = "`method` and `parameters`") -> SourceFile:
    """Read a YAML or JSON sweep file as W&B's client does, PyYAML's `safe_load`, with two differences.

    1e-4 and its like are numbers, as in YAML 1.2 (https://yaml.org/spec/1.2.2/#1032-tag-resolution); PyYAML
    follows YAML 1.1, where they are text. And a key given twice is a problem; PyYAML keeps the last one.
    Raises `UserError` for what cannot be read at all, which says that a `kind` has at least the keys `least`.
    """
    text = read_text(path)
    if path.suffix.lower() == ".json":  # JSON may be indented by tabs, YAML may not
        text = _JSON_STRING_OR_TAB.sub(lambda match: " " if match[0] == "\t" else match[0], text)
    root, loader = _compose(path, text)
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _TAG + "null"):
        raise UserError(f"{path}: the file is empty. A {kind} has at least {least}.")
    if not isinstance(root, yaml.MappingNode) or root.tag != _TAG + "map":
        found = "a list" if isinstance(root, yaml.SequenceNode) else f"the text {show(root.value)}"
        raise UserError(f"{path}:1: must be a mapping with {least}, got {found}.")
    reader = _Reader(path, loader)
    data = reader.value(root, ())
    return SourceFile(path, data, {**reader.lines, (): 1}, tuple(reader.problems))


def dotted(location: Location) -> str:
    """("parameters", "lr", "values", 2) as `parameters.lr.values[2]`, of names that are too long the start."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{cut(part, _LONGEST_NAME)}" for part in location)
    return "".join(parts).lstrip(".")


def read_text(path: Path) -> str:
    """The text of a sweep file; raises `UserError` where there is none."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file.")
    if not path.is_file():
        raise UserError(f"{path}: is not a file. Give the path of a sweep file, such as configs/sweep.yaml.")
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise UserError(f"{path}: {size_bytes:,} bytes; a sweep file has at most {MAX_BYTES:,}.")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with YAML 1.2's floats and a limit on nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.add_implicit_resolver(
    _TAG + "float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _compose(path: Path, text: str) -> tuple[yaml.Node | None, _Loader]:
    try:
        loader = _Loader(text)
        return loader.get_single_node(), loader
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}:{line}: not valid YAML: {error.reason}.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}"
        if error.context == "expected a single document in the stream":
            raise UserError(f"{place}: a second YAML document starts here. Keep one sweep in a file.") from None
        hint = " Indent with spaces, not tabs." if "'\\t'" in (error.problem or "") else ""
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{place}: not valid YAML: {cut(reason, _LONGEST_REASON)}.{hint}") from None
    except (ValueError, OverflowError) as error:  # escapes beyond Unicode, such as "\UFFFFFFFF"
        raise UserError(f"{path}: not valid YAML: {error}.") from None


class _Reader:
    """Turns YAML nodes into plain data, collecting lines and problems on the way."""

    def __init__(self, path: Path, loader: _Loader) -> None:
        self.path = path
        self.loader = loader
        self.lines: dict[Location, int] = {}
        self.problems: list[Problem] = []
        self.num_values = 0
        self.depth = 0

    def value(self, node: yaml.Node, location: Location) -> Any:
        line = node.start_mark.line + 1
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            raise UserError(f"{self.path}:{line}: more than {MAX_VALUES:,} values, aliases expanded.")
        if self.depth > MAX_DEPTH:  # also where an anchor's value refers to the anchor itself
            raise UserError(f"{self.path}:{line}: nested more than {MAX_DEPTH} levels deep, aliases expanded.")
        self.depth += 1
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, location)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return self._sequence(node, location)
            return self._scalar(node, location)
        finally:
            self.depth -= 1

    def _sequence(self, node: yaml.SequenceNode, location: Location) -> list[Any]:
        for index, child in enumerate(node.value):
            self.lines[*location, index] = child.start_mark.line + 1
        return [self.value(child, (*location, index)) for index, child in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        merges = [value for key, value in node.value if key.tag == _TAG + "merge"]
        pairs = [(key, value) for key, value in node.value if key.tag != _TAG + "merge"]
        data: dict[str, Any] = {}
        for merge in merges:
            data.update(self._merged(merge, location))
        own_lines: dict[str, int] = {}
        for key_node, value_node in pairs:
            line = key_node.start_mark.line + 1
            if key_node.tag != _TAG + "str":
                written = show(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self._problem(location, line, f"a key must be text, got {written}. Put it in quotes.")
            elif key_node.value in own_lines:
                first = own_lines[key_node.value]
                text = f"is given twice, first on line {first}. Remove one."
                self._problem((*location, key_node.value), line, text)
            else:
                place = (*location, key_node.value)
                self.lines[place] = own_lines[key_node.value] = line
                data[key_node.value] = self.value(value_node, place)
        return data

    def _merged(self, node: yaml.Node, location: Location) -> dict[str, Any]:
        """The pairs that `<<: *anchor` brings in; of several mappings, the first one wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            if isinstance(source, yaml.MappingNode):
                merged.update(self.value(source, location))
            else:
                line = source.start_mark.line + 1
                self._problem(location, line, "`<<` merges mappings only. Give it an alias of a mapping.")
        return merged

    def _scalar(self, node: yaml.Node, location: Location) -> Any:
        line = node.start_mark.line + 1
        if node.tag == _TAG + "timestamp":
            self._problem(location, line, f"is read as a date, got {node.value}. Put it in quotes.")
            return None
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _SCALAR_TAGS:
            tag = cut(node.tag.replace(_TAG, "!!"), _LONGEST_REASON)
            self._problem(location, line, f"has a YAML type that sweep files do not have, {tag}. Remove or quote it.")
            return None
        try:
            value = self.loader.construct_object(node)
            # JSON writes characters beyond U+FFFF as two escapes, which PyYAML does not join.
            return value.encode("utf-16", "surrogatepass").decode("utf-16") if isinstance(value, str) else value
        except (ValueError, LookupError, OverflowError, yaml.YAMLError):
            kind = node.tag.replace(_TAG, "")
            self._problem(location, line, f"cannot be read as {kind}, got {show(node.value)}. Correct or quote it.")
            return None

    def _problem(self, location: Location, line: int, text: str) -> None:
        self.problems.append(Problem(location, line, text))
