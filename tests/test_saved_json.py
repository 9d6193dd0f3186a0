from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tune_cifar.saved_json import parse_json, read_json


@dataclass(frozen=True)
class Inner:
    number: int
    share: float


@dataclass(frozen=True)
class Outer:
    name: str
    rows: tuple[Inner, ...] = ()


def test_a_value_gets_the_types_of_its_kind() -> None:
    read = parse_json(b'{"name": "a", "rows": [{"number": 1, "share": 2}], "of a later version": 3}', Outer)
    assert read == Outer("a", (Inner(1, 2.0),))
    assert isinstance(read.rows[0].share, float)
    assert parse_json('[{"number": 1, "share": 0.5}]', list[Inner]) == [Inner(1, 0.5)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b"\xff\xfe{", "Invalid JSON: expected value at line 1 column 1"),
        (b'{"name": "\\ud800"}', "Invalid JSON: "),
        (b"[" * 100_000, "Invalid JSON: recursion limit exceeded"),
        (b'{"name": 1' + b"0" * 5_000 + b"}", "Invalid JSON: number out of range"),
        (b"[]", "Input should be an object"),
        (b"{}", "name: Field required"),
        (b'{"name": true}', "name: should be a valid string, got True"),
        (
            b'{"name": "a", "rows": [{"number": 1.0, "share": "2"}]}',
            r"rows\[0\]\.number: .*; rows\[0\]\.share: .*got '2'",
        ),
        (b'{"name": [' + b"1, " * 50_000 + b"1]}", r"name: should be a valid string, got \[1, 1, .*\.\.\.$"),
        (b'{"name": "a", "rows": [' + b"0, " * 5_000 + b"0]}", r"rows\[2\]: .*; and 4,998 more$"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_wrong_is_told_in_a_few_words(content: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        parse_json(content, Outer)
    assert len(str(error.value)) < 500


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="it is no file"):
        read_json(tmp_path / "pipe.json", Outer)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing.json", Outer)
