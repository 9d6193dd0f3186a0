from __future__ import annotations

from pathlib import Path

from tune_cifar.tracking.closed_runs import NOTES, ClosedRuns


def test_the_next_process_knows_what_is_closed(tmp_path: Path) -> None:
    runs = ClosedRuns(tmp_path)
    assert not runs.has("a", 0)
    runs.close("a", 0)
    runs.close("b", 1)
    runs.close("c", 0)
    runs.open("c")
    runs.open("d")
    for known in (runs, ClosedRuns(tmp_path)):
        assert known.has("a", 0)
        assert known.has("b", 1)
        assert not known.has("b", 0)
        assert not known.has("c", 0)
        assert not known.has("d", 0)


def test_a_file_that_was_cut_off_or_cannot_be_written_leaves_runs_open(tmp_path: Path) -> None:
    notes = tmp_path / NOTES
    notes.parent.mkdir()
    notes.write_text("a 0\nb 0\nb open\nc")
    runs = ClosedRuns(tmp_path)
    assert [runs.has(name, 0) for name in "abc"] == [True, False, False]
    notes.unlink()
    notes.mkdir()
    unwritable = ClosedRuns(tmp_path)
    unwritable.close("a", 0)
    assert unwritable.has("a", 0)
    assert not ClosedRuns(tmp_path).has("a", 0)
