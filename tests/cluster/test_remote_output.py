from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tune_cifar.cluster.remote_output import JobOutput

OF_RAY = "2026-01-01 INFO job_manager.py -- Runtime env is setting up.\nRunning entrypoint for job search-1-x: cd …\n"


@given(st.text(max_size=40), st.data())
def test_each_character_is_shown_once_however_often_the_stream_breaks(text: str, data: st.DataObject) -> None:
    log = OF_RAY + text
    shown: list[str] = []
    output = JobOutput(shown.append)
    for _ in range(data.draw(st.integers(0, 4))):
        output.start_over()
        position, end = 0, data.draw(st.integers(0, len(log)))
        while position < end:
            size = data.draw(st.integers(1, len(log)))
            output.feed(log[position : min(position + size, end)])
            position += size
    output.finish(log)
    assert "".join(shown) == text


def test_lines_of_ray_are_shown_when_the_job_never_began() -> None:
    shown: list[str] = []
    output = JobOutput(shown.append)
    output.feed("Runtime env is setting up.\n")
    assert shown == []
    output.finish("Runtime env is setting up.\nFailed to set up.\n")
    assert shown == ["Runtime env is setting up.\nFailed to set up.\n"]


def test_what_was_said_before_can_be_left_out() -> None:
    shown: list[str] = []
    output = JobOutput(shown.append, skip_characters=len(OF_RAY) + 4)
    output.feed(f"{OF_RAY}old\nnew\n")
    assert shown == ["new\n"]
