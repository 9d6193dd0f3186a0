"""docs/sweep-files.md holds tables that are made from the code's own; these tests say when they differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tune_cifar.sweep.kinds import KINDS
from tune_cifar.sweep.schema import EARLY_TERMINATE_KEYS, KEYS, METRIC_KEYS, Key

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "sweep-files.md"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def key_table(keys: Mapping[str, Key], prefix: str = "") -> str:
    return table(
        ("key", "what becomes of it", "meaning"), [(f"`{prefix}{k}`", v.use, v.meaning) for k, v in keys.items()]
    )


def distribution_table() -> str:
    rows = []
    for kind, rules in KINDS.items():
        keys = ", ".join([*(f"`{key}`" for key in rules.required), *(f"`{key}` ({v:g})" for key, v in rules.defaults)])
        rows.append((f"`{kind}`", keys, f"`{rules.formula}`"))
    return table(("distribution", "keys (default)", "value"), rows)


def difference_table() -> str:
    cases = yaml.safe_load((ROOT / "tests" / "sweep" / "cases" / "verdicts.yaml").read_text(encoding="utf-8"))
    names = {True: "accepted", False: "refused"}
    rows = [
        (f"`{case['file']}`", names[case["accepted"][0]], names[case["accepted"][1]], case["why"])
        for case in cases
        if "why" in case
    ]
    return table(("file", "here", "W&B's engine", "why"), rows)


TABLES = {
    "keys": key_table(KEYS),
    "metric": key_table(METRIC_KEYS, "metric."),
    "early_terminate": key_table(EARLY_TERMINATE_KEYS, "early_terminate."),
    "distributions": distribution_table(),
    "differences": difference_table(),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_document_has_the_tables_of_the_code(name: str) -> None:
    start, end = f"<!-- {name} -->\n", "\n<!-- end -->"
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.count(start) == 1
    assert text.partition(start)[2].partition(end)[0] == TABLES[name]


def test_the_document_names_every_example() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "configs").glob("*.yaml") if f"configs/{path.name}" not in text]
    assert missing == []
