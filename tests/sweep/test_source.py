# ruff: noqa: E501 - the tables have a row a line

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_cifar.errors import UserError, show
from tune_cifar.sweep.source import SourceFile, dotted, read_source

Read = Callable[..., SourceFile]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str | bytes, name: str = "sweep.yaml") -> SourceFile:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_source(path)

    return read


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-4", 1e-4), ("1E4", 1e4), ("1e+3", 1e3), ("-1e3", -1e3), (".5e-3", 5e-4), ("+2.5e2", 250.0), ("1.e1", 10.0)],
)
def test_reads_as_numbers_what_pyyaml_reads_as_text(read: Read, text: str, number: float) -> None:
    assert read(f"lr: {text}").data == {"lr": number}


@pytest.mark.parametrize(
    "text",
    ["1e", "e4", "1e-", "1.5.2e3", "1e4x", "'1e4'", "1_0e3", "0x1F", "017", "1_000", "1:30", "yes", "off", "~", "1.5",
     "-.inf", "0.1e-3", "2.5E+7", "text", "y", ""],
)  # fmt: skip
def test_reads_everything_else_as_pyyaml_does(read: Read, text: str) -> None:
    assert read(f"key: {text}").data == yaml.safe_load(f"key: {text}")


def test_merges_anchors_as_pyyaml_does(read: Read) -> None:
    text = (
        "a: &a {min: 1, max: 2}\nb: &b {min: 3, q: 4}\n"
        "c: {<<: *a, max: 5}\nd: {max: 6, <<: [*a, *b]}\ne: {<<: *a, <<: *b}\nf: [*a, *a]\n"
    )
    assert read(text).data == yaml.safe_load(text)


def test_knows_the_line_of_every_value(read: Read) -> None:
    source = read("# a comment\nlr:\n  min: 1\n  max:\n    2\nmodel: &m\n  values:\n    - a\n\n    - b\nother: *m\n")
    lines = {dotted(location): line for location, line in source.lines.items()}
    assert lines == {
        "": 1, "lr": 2, "lr.min": 3, "lr.max": 4, "model": 6, "model.values": 7, "model.values[0]": 8,
        "model.values[1]": 10, "other": 11, "other.values": 7, "other.values[0]": 8, "other.values[1]": 10,
    }  # fmt: skip
    assert source.line(("lr", "q")) == 2
    assert source.line(("nowhere", 3)) == 1


def test_a_key_that_overrides_a_merged_one_has_its_own_line(read: Read) -> None:
    assert read("a: &a\n  min: 1\nb:\n  min: 2\n  <<: *a\n").lines["b", "min"] == 4


def test_finds_keys_given_twice_and_keys_that_are_no_text(read: Read) -> None:
    source = read("a: 1\nb: {c: 1,\n  c: 2}\na: 3\n1: x\n? [q]\n: y\n<<: 3\n")
    found = [(dotted(problem.location), problem.line, problem.text) for problem in source.problems]
    assert sorted(found) == [
        ("", 5, "a key must be text, got '1'. Put it in quotes."),
        ("", 6, "a key must be text, got a list or mapping. Put it in quotes."),
        ("", 8, "`<<` merges mappings only. Give it an alias of a mapping."),
        ("a", 4, "is given twice, first on line 1. Remove one."),
        ("b.c", 3, "is given twice, first on line 2. Remove one."),
    ]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2020-01-01", "is read as a date, got 2020-01-01. Put it in quotes."),
        ("!!python/object:os.system x", "has a YAML type that sweep files do not have, !!python/object:os.system."),
        ("!!set {a, b}", "has a YAML type that sweep files do not have, !!set."),
        ("!!binary aGk=", "has a YAML type that sweep files do not have, !!binary."),
        ("=", "has a YAML type that sweep files do not have, !!value."),
        ("!!int ''", "cannot be read as int, got ''."),
        ("!!bool maybe", "cannot be read as bool, got 'maybe'."),
        ("9" * 5000, "cannot be read as int, got '999"),
        ('"\\ud83d"', "cannot be read as str, got '\\ud83d'."),
    ],
)
def test_names_values_that_are_no_plain_data(read: Read, value: str, problem: str) -> None:
    (found,) = read(f"a: 1\nkey: {value}\n").problems
    assert (found.location, found.line) == (("key",), 2)
    assert found.text.startswith(problem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sweep.yaml: the file is empty."),
        ("# nothing\n", "sweep.yaml: the file is empty."),
        ("- 1\n", "sweep.yaml:1: must be a mapping with `method` and `parameters`, got a list."),
        ("hello", "got the text 'hello'."),
        (b"\xff\xfea: 1", "sweep.yaml: is not UTF-8 text (byte 0). Save it as UTF-8."),
        ("a: 1\nb: \x01\n", "sweep.yaml:2: not valid YAML: special characters are not allowed."),
        ("a: b: c", "sweep.yaml:1:5: not valid YAML: mapping values are not allowed here."),
        ("a:\n\tb: 1", "sweep.yaml:2:1: not valid YAML: while scanning for the next token found character '\\t'"),
        ("a:\n\tb: 1", "Indent with spaces, not tabs."),
        ("a: [1, 2", "sweep.yaml:1:9: not valid YAML: while parsing a flow sequence"),
        ("---\na: 1\n---\nb: 2\n", "sweep.yaml:3:1: a second YAML document starts here."),
        ("a: *b", "sweep.yaml:1:4: not valid YAML: found undefined alias 'b'."),
        ('a: "\\UFFFFFFFF"', "sweep.yaml: not valid YAML:"),
        ("a: " + "[" * 5000, "nested more than 40 levels deep."),
        ("a: " + "{b: " * 5000, "nested more than 40 levels deep."),
        ("a: &a [*a]", "sweep.yaml:1: nested more than 40 levels deep, aliases expanded."),
        ("a: &a {<<: *a}", "sweep.yaml:1: nested more than 40 levels deep, aliases expanded."),
        ("a: 1 #" + "x" * 300_000, "300,006 bytes; a sweep file has at most 300,000."),
    ],
)  # fmt: skip
def test_says_what_cannot_be_read(read: Read, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read(text)
    assert message in str(raised.value)


def test_stops_at_an_alias_bomb(read: Read) -> None:
    levels = [f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    with pytest.raises(UserError, match="more than 100,000 values, aliases expanded"):
        read("\n".join(["a0: &a0 [1, 1]", *levels]))


def test_says_which_path_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: there is no such file\."):
        read_source(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match=r"is not a file\. Give the path of a sweep file"):
        read_source(tmp_path)


def test_reads_json_with_tabs_and_joined_surrogates(read: Read) -> None:
    text = '{"method":\t"grid",\n\t"name":"a\\tb",\t"é": "\\ud83d\\ude00",\n"x": {"tab\tinside": 1E-4}}'
    source = read(text, "sweep.json")
    assert source.data == {"method": "grid", "name": "a\tb", "é": "\U0001f600", "x": {"tab\tinside": 1e-4}}
    assert source.lines["x", "tab\tinside"] == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc xyz:-#'é{", max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(data=st.dictionaries(st.text("ab", min_size=1, max_size=3), json_values, min_size=1, max_size=4), indent=st.sampled_from([None, 2, "\t"]))  # fmt: skip
def test_reads_every_json_document_as_json_does(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any], indent: int | str | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(data, indent=indent, ensure_ascii=indent is None), encoding="utf-8")
    assert read_source(path).data == data


def test_show_cuts_long_values_and_huge_numbers() -> None:
    assert show("x" * 200) == "'" + "x" * 76 + "..."
    assert show(10**5000) == "a huge number"
