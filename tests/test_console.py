from __future__ import annotations

import io

import pytest

from tune_cifar.console import SearchConsole


class FakeTerminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_quiet_leaves_out_details_alone() -> None:
    for quiet, shown in ((False, "detail\nresult\n"), (True, "result\n")):
        output = io.StringIO()
        console = SearchConsole(quiet=quiet, file=output)
        console.details.print("detail")
        console.print("result")
        assert output.getvalue() == shown


@pytest.mark.parametrize(
    ("file", "variables", "quiet", "can_redraw"),
    [
        (FakeTerminal, {"TERM": "xterm"}, False, True),
        (FakeTerminal, {"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        (FakeTerminal, {"TERM": "xterm"}, True, False),
        (FakeTerminal, {"TERM": "dumb"}, False, False),
        (io.StringIO, {"TERM": "xterm", "FORCE_COLOR": "1"}, False, False),
    ],
)
def test_only_a_terminal_is_drawn_over(
    monkeypatch: pytest.MonkeyPatch,
    file: type[io.StringIO],
    variables: dict[str, str],
    quiet: bool,
    can_redraw: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert SearchConsole(quiet=quiet, file=file()).can_redraw == can_redraw


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    output = FakeTerminal()
    SearchConsole(file=output).print("[red]text[/red]")
    assert output.getvalue() == "text\n"
