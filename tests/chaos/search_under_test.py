"""A real search as a child process that can be hit, resumed and looked at, so that faults meet what a user runs."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.commands import command_line, environment

NAME = "chaos"
NUM_TRIALS = 6
NUM_EPOCHS = 3
TRAIN_IMAGES = 200
FLAGS = ("--data", "digits", "--train-images", str(TRAIN_IMAGES), "--precision", "fp32", "--name", NAME)
PROCESS_END_SECONDS = 90
"""What Ray's processes get to notice that their search is gone; some ask only every few seconds."""
QUIET_SECONDS = 300
"""A search that says nothing for so long, though it neither waits nor trains for a tenth of it, counts as hung."""

PARAMETERS = {
    "grid": "{lr: {values: [0.0005, 0.002, 0.008]}, batch_size: {values: [32, 50]}, epochs: {value: %d}}",
    "random": "{lr: {distribution: log_uniform_values, min: 0.0003, max: 0.01}, epochs: {value: %d}}",
    "bayes": "{lr: {distribution: log_uniform_values, min: 0.0003, max: 0.01}, epochs: {value: %d}}",
}


def sweep_text(method: str) -> str:
    """The sweep file of a search of six trials of three epochs."""
    return (
        f"method: {method}\nmetric: {{name: val_loss, goal: minimize}}\nrun_cap: {NUM_TRIALS}\n"
        f"parameters: {PARAMETERS[method] % NUM_EPOCHS}\n"
    )


@dataclass
class SearchUnderTest:
    """One search in `folder`, started and resumed as often as it takes; `hit` ends only processes of its own tree.

    It is resumed at once, as by a supervisor, while processes of the attempt before may still be there. `left_over`
    collects those that outlived their attempt for too long.
    """

    folder: Path
    method: str
    ray_folder: Path
    trials_at_once: int = 2
    wandb: str = "offline"
    variables: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    attempts: int = 0
    process: subprocess.Popen[bytes] | None = None
    left_over: list[str] = field(default_factory=list)
    _seen: dict[int, psutil.Process] = field(default_factory=dict)
    _ended: list[tuple[float, list[psutil.Process]]] = field(default_factory=list)

    @property
    def results(self) -> Path:
        """The folder of the search's results."""
        return self.folder / "results" / NAME

    @property
    def output(self) -> str:
        """All that the search printed so far, of every attempt."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("output-*.txt")))

    @property
    def last_output(self) -> str:
        """What the last attempt printed."""
        return (self.folder / f"output-{self.attempts:02}.txt").read_text(errors="replace")

    @property
    def driver(self) -> psutil.Process:
        """The search's own process."""
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def start(self) -> None:
        """Start the search, or resume it once there is something to resume."""
        self.attempts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep = self.folder / "sweep.yaml"
        sweep.write_text(sweep_text(self.method))
        flags = ("--name", NAME, "--resume") if (self.results / "search.json").exists() else self._first_flags(sweep)
        variables = {"HOME": str(self.folder), "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(self.ray_folder)}
        with (self.folder / f"output-{self.attempts:02}.txt").open("wb") as output:
            self.process = subprocess.Popen(
                command_line("search", *flags, "--wandb", self.wandb),
                cwd=self.folder,
                env=environment(PYTHONUNBUFFERED="1", **variables, **self.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._seen = {self.process.pid: psutil.Process(self.process.pid)}

    def _first_flags(self, sweep: Path) -> tuple[str, ...]:
        return (str(sweep), *FLAGS, "--trials-at-once", str(self.trials_at_once), "--seed", str(self.seed))

    def running(self) -> bool:
        """Whether the search's own process runs."""
        return self.process is not None and self.process.poll() is None

    def descendants(self) -> list[psutil.Process]:
        """The processes that the search has started; noted, to be looked for when it has ended."""
        with contextlib.suppress(psutil.Error):
            children: list[psutil.Process] = self.driver.children(recursive=True)
            self._seen |= {child.pid: child for child in children}
            return children
        return []

    def named(self, part: str) -> list[psutil.Process]:
        """The descendants whose command line contains `part`: `raylet`, `gcs_server`, or `ImplicitFunc` for trials."""
        found = []
        for child in self.descendants():
            with contextlib.suppress(psutil.Error):
                command = child.cmdline()
                if part in (command[0] if command else ""):
                    found.append(child)
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the search's own process."""
        self.descendants()
        with contextlib.suppress(psutil.Error):
            self.driver.send_signal(number)

    def wait(self) -> int | None:
        """Wait for the end; returns the exit code, None where it hung and had to be killed."""
        assert self.process is not None
        said, heard_at = "", time.monotonic()
        while self.running() and time.monotonic() < heard_at + QUIET_SECONDS:
            self.descendants()
            if self.last_output != said:
                said, heard_at = self.last_output, time.monotonic()
            time.sleep(0.2)
        hung = self.running()
        if hung:
            self.process.kill()
        code = self.process.wait()
        self._ended.append((time.monotonic(), list(self._seen.values())))
        return None if hung else code

    def end_processes(self) -> None:
        """Wait for the processes of all attempts, each as long as it may take since its end, and kill what is left."""
        for ended_at, processes in self._ended:
            rest_seconds = max(0.0, ended_at + PROCESS_END_SECONDS - time.monotonic())
            _, alive = psutil.wait_procs(processes, timeout=rest_seconds)
            for process in alive:
                with contextlib.suppress(psutil.Error):
                    self.left_over.append(" ".join(process.cmdline())[:80])
                    process.kill()
        self._ended.clear()

    def epochs(self) -> dict[int, list[int]]:
        """The epochs that the search has told of each trial, by number, in the order told, repeated ones too."""
        told: dict[int, list[int]] = {}
        for trial, epoch in re.findall(rf"^\[(\d+)/{NUM_TRIALS}\] epoch (\d+)/", self.output, re.MULTILINE):
            told.setdefault(int(trial), []).append(int(epoch))
        return told

    def num_epochs(self) -> int:
        """How many epochs the search has told of, repeated ones too."""
        return sum(map(len, self.epochs().values()))

    def num_finished(self) -> int:
        """How many trials the search has told to be finished."""
        return len(set(re.findall(rf"^\[(\d+)/{NUM_TRIALS}\] finished", self.output, re.MULTILINE)))


@contextlib.contextmanager
def search_under_test(method: str, **options: Any) -> Iterator[SearchUnderTest]:
    """A search in folders of its own, which with all its processes are gone at the end."""
    # Ray's sockets lie in its folder, and the path of a socket has about a hundred characters at most.
    ray_folder = Path(tempfile.mkdtemp(prefix="ray"))
    folder = options.pop("folder", None) or Path(tempfile.mkdtemp(prefix="chaos"))
    search = SearchUnderTest(folder, method, ray_folder, **options)
    try:
        yield search
    finally:
        if search.running():
            assert search.process is not None
            search.descendants()
            search.process.kill()
            search.wait()
        search.end_processes()
        shutil.rmtree(ray_folder, ignore_errors=True)
