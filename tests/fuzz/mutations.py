"""Damages files in the ways in which files get damaged, or are made to do damage, from a seeded `Random`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

ODD_VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(10**30), 10**400, 0.5, -0.0, 1e-320, 1e308, -1e308),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        " ",
        "a",
        "0.1",
        "nan",
        "../../x",
        "/",
        "\x00",
        "é",
        "\u202e",
        "x" * 5000,
    ),
    *([], [None], [[]], {}, {"a": 1}, {"": {"": {}}}, [1] * 300, "2026-02-30", "${HOME}", "<script>", "%s%n", "null"),
)

ODD_TEXTS: Sequence[bytes] = (
    *(
        b"",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\t",
        b"\n\t",
        b"\r\n",
        b"\xed\xa0\x80",
        b"\x85",
        b"\xe2\x80\xa8",
        b"\x7f",
    ),
    *(b"!!python/object/apply:os.system ['touch executed']", b"!!binary aGk=", b"!!set {a}", b"&a [*a]", b"<<: *x\n"),
    *(b"1e999", b".inf", b".nan", b"-.inf", b"0o17", b"017", b"0x1f", b"0b1", b"1_000", b"12:30:45", b"2026-11-23"),
    *(
        b"yes",
        b"~",
        b"? a\n",
        b"---\n",
        b"...\n",
        b"%YAML 3.0\n",
        b"|\n ",
        b">-\n ",
        b'"\\UFFFFFFFF"',
        b'"\\ud800"',
        b"9" * 5000,
    ),
    *(
        b"[" * 200,
        b"{a: " * 200,
        b"- " * 200,
        b"*a",
        b"&a ",
        b"@",
        b"`",
        b"{",
        b"}",
        b"]",
        b"'",
        b'"',
        b": ",
        b"#",
        b",",
    ),
)


def damaged_bytes(random: Random, content: bytes) -> bytes:
    """`content` after one to four cuts, flips, doublings and insertions."""
    for _ in range(random.randint(1, 4)):
        content = random.choice(_WAYS)(random, content)
    return content


def _flip(random: Random, content: bytes) -> bytes:
    if not content:
        return content
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << random.randrange(8))]) + content[place + 1 :]


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.randint(0, len(content))]


def _remove(random: Random, content: bytes) -> bytes:
    start = random.randint(0, len(content))
    return content[:start] + content[start + random.randint(1, 40) :]


def _insert(random: Random, content: bytes) -> bytes:
    place = random.randint(0, len(content))
    return content[:place] + random.choice(ODD_TEXTS) + content[place:]


def _random_bytes(random: Random, content: bytes) -> bytes:
    place = random.randint(0, len(content))
    return content[:place] + random.randbytes(random.randint(1, 8)) + content[place + random.randint(0, 8) :]


def _double_line(random: Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    place = random.randrange(len(lines))
    return b"".join([*lines[:place], lines[place], *lines[place:]])


def _drop_line(random: Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    del lines[random.randrange(len(lines))]
    return b"".join(lines)


def _swap_lines(random: Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    random.shuffle(lines)
    return b"".join(lines)


def _replace_value(random: Random, content: bytes) -> bytes:
    """Put something odd in the place of what follows a colon."""
    colons = [place for place, byte in enumerate(content) if byte == ord(":")]
    if not colons:
        return _insert(random, content)
    start = random.choice(colons) + 1
    end = next((place for place in range(start, len(content)) if content[place] in b"\n,}"), len(content))
    return content[:start] + b" " + random.choice(ODD_TEXTS) + content[end:]


_WAYS: Sequence[Callable[[Random, bytes], bytes]] = (
    *(_flip, _flip, _cut, _remove, _insert, _insert, _random_bytes, _double_line, _drop_line, _swap_lines),
    *(_replace_value, _replace_value, _replace_value),
)


def damaged_value(random: Random, value: Any) -> Any:
    """A copy of a nested `value` with one to three of its inner values odd, gone, doubled or renamed."""
    damaged = copy.deepcopy(value)
    for _ in range(random.randint(1, 3)):
        places = _places(damaged)
        if not places:
            return random.choice(ODD_VALUES)
        group, key = random.choice(places)
        way = random.random()
        if way < 0.6:
            group[key] = copy.deepcopy(random.choice(ODD_VALUES))
        elif way < 0.75:
            del group[key]
        elif way < 0.85:
            other_group, other_key = random.choice(places)
            group[key] = copy.deepcopy(other_group[other_key])
        elif isinstance(group, list):
            group.insert(key, copy.deepcopy(group[key]))
        else:
            group[random.choice(["", "é", "min", "max", "epoch", f"{key}x"])] = copy.deepcopy(random.choice(ODD_VALUES))
    return damaged


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every inner value, as the group that holds it and its key or index there."""
    if isinstance(value, dict):
        pairs: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    else:
        return []
    return [place for key, inner in pairs for place in [(value, key), *_places(inner)]]
