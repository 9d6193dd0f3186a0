from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.commands import REPOSITORY, environment, run_here
from tune_cifar.command import EXIT_TERMINATED

WAIT = """
import signal, sys, time
if sys.argv[1] == "background":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `command &` in a script
if sys.argv[1] == "job":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as Ray does for what is submitted to it
from tune_cifar.command import run_command
def main(arguments):
    print("ready", flush=True)
    time.sleep(60)
sys.exit(run_command(main))
"""


@pytest.mark.parametrize("started", ["background", "foreground", "job"])
def test_sigterm_ends_a_command_as_ctrl_c_does(started: str) -> None:
    command = [sys.executable, "-c", WAIT, started]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == EXIT_TERMINATED


ODD_ENDS = r"""
import pathlib, sys
from tune_cifar.command import run_command
def main(arguments):
    print("epoch \u2026 \udcff")
    pathlib.Path("x" * 300).read_text()
sys.exit(run_command(main))
"""


def test_a_file_that_cannot_be_read_is_a_message_and_any_name_can_be_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ODD_ENDS],
        cwd=REPOSITORY,
        env=environment(PYTHONIOENCODING="ascii:strict"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "epoch \\u2026 \\udcff\n")
    assert done.stderr == f"error: {'x' * 300}: File name too long.\n"


def test_an_error_of_no_file_is_a_bug_and_not_hidden() -> None:
    def main(arguments: Sequence[str]) -> int:
        raise ConnectionResetError("by peer")

    with pytest.raises(ConnectionResetError):
        run_here(main, [])


def test_two_dashes_are_no_value_of_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(lambda arguments: 0, ["--name=a--", "x", "--", "--name=--"]) == 0
    assert run_here(lambda arguments: 0, ["--name=--"]) == 2
    assert (
        capsys.readouterr().err == "error: --name=--: a value cannot be --, which ends the flags. Give another one.\n"
    )
