from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.commands import REPOSITORY, environment
from tune_cifar.command import EXIT_INTERRUPTED

WAIT = """
import signal, sys, time
if sys.argv[1] == "background":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `command &` in a script
from tune_cifar.command import run_command
def main(arguments):
    print("ready", flush=True)
    time.sleep(60)
sys.exit(run_command(main))
"""


@pytest.mark.parametrize("started", ["background", "foreground"])
def test_sigterm_ends_a_command_as_ctrl_c_does(started: str) -> None:
    command = [sys.executable, "-c", WAIT, started]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == EXIT_INTERRUPTED
