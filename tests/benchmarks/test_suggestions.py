from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import suggestions


def test_each_case_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suggestions, "CASES", ((10, 0), (20, 150)))
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["suggestions.py", "--repeats", "2", "--json", str(path)])
    suggestions.main()
    rows = json.loads(path.read_text())["rows"]
    assert [(row["completed"], row["running"], row["model"]) for row in rows] == [
        (10, 0, "Gaussian process"),
        (20, 150, "TPE"),
        (20, 150, "Gaussian process"),
    ]
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)
    assert "| 20 | 150 | TPE | " in capsys.readouterr().out
