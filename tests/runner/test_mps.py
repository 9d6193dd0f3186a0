from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.commands import REPOSITORY, environment
from tests.runner.mps_helpers import CLIENT, CONTROL_NAME, daemon_of, is_gone, pipes
from tune_cifar.runner import mps
from tune_cifar.runner.mps import CUDA_PROBE, mps_daemon


def _start_daemon(folder: Path) -> psutil.Process:
    """A daemon of the user's own."""
    folder.mkdir()
    variables = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    subprocess.run([CONTROL_NAME, "-d"], env={**os.environ, **variables}, check=True)
    assert mps._wait(lambda: mps._answers(folder), 10)
    return daemon_of(folder)


def _folders_of_ours(mps_folder: Path) -> list[Path]:
    return list(mps_folder.glob("tune-cifar-mps-*"))


def test_programs_started_meanwhile_are_clients_of_a_daemon_that_ends_with_the_context(mps_folder: Path) -> None:
    before = dict(os.environ)
    with mps_daemon(probe=CLIENT) as status:
        assert (status.running, status.line) == (True, "MPS daemon started, stopped at the end")
        daemon, folder = daemon_of(pipes()), pipes().parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        subprocess.run(CLIENT, check=True)
        log = Path(os.environ["CUDA_MPS_LOG_DIRECTORY"], "control.log").read_text().split("\n")
        assert log.count("client") == 2  # the one that tried it out, and this one
    assert is_gone(daemon)
    assert not folder.exists()
    assert dict(os.environ) == before


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_the_daemon_ends_with_a_search_that_fails_or_is_interrupted(
    mps_folder: Path, interruption: type[BaseException]
) -> None:
    daemons = []

    def search() -> None:
        with mps_daemon(probe=CLIENT):
            daemons.append(daemon_of(pipes()))
            raise interruption

    with pytest.raises(interruption):
        search()
    assert is_gone(daemons[0])
    assert _folders_of_ours(mps_folder) == []


def test_the_daemon_ends_with_a_search_that_is_killed(mps_folder: Path) -> None:
    code = """
import time
from tests.runner.mps_helpers import CLIENT, pipes
from tune_cifar.runner.mps import mps_daemon
with mps_daemon(probe=CLIENT):
    print(pipes(), flush=True)
    time.sleep(60)
"""
    search = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment())
    assert search.stdout is not None
    folder = Path(search.stdout.readline().strip()).parent
    daemon = daemon_of(folder / "pipe")
    search.send_signal(signal.SIGKILL)
    search.communicate()
    assert is_gone(daemon)
    assert mps._wait(lambda: not folder.exists(), 10)


def test_ctrl_c_in_the_terminal_does_not_end_the_daemon_before_the_trials(mps_folder: Path) -> None:
    with mps_daemon(probe=CLIENT):
        folder = str(pipes().parent)
        (guard,) = (child for child in psutil.Process().children() if folder in child.cmdline())
        assert os.getpgid(guard.pid) != os.getpgid(0)


def test_without_nvidias_program_trials_take_turns(mps_folder: Path) -> None:
    (mps_folder / "bin" / CONTROL_NAME).unlink()
    before = dict(os.environ)
    if shutil.which(CONTROL_NAME):
        pytest.skip("this machine has the program itself")
    with mps_daemon(probe=CLIENT) as status:
        assert not status.running
        assert status.line == (
            "no MPS daemon (nvidia-cuda-mps-control is not installed), "
            "so the trials of a GPU take turns on it (time-slicing)"
        )
        assert dict(os.environ) == before


FAILING = (sys.executable, "-c", "import sys; sys.exit('warning\\nCUDA error: MPS client failed to connect')")


@pytest.mark.parametrize(
    ("fault", "probe", "reason"),
    [
        ("refuses", CLIENT, "-d failed: Failed to initialize NVML: Insufficient Permissions"),
        ("", FAILING, "a test program failed under it: CUDA error: MPS client failed to connect"),
        ("deaf", CLIENT, "a test program did not connect to it"),
    ],
)
def test_a_daemon_of_no_use_is_told_and_leaves_nothing_behind(
    mps_folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str, probe: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setenv("FAKE_MPS", fault)
    before = dict(os.environ)
    with mps_daemon(probe=probe) as status:
        assert not status.running
        assert f"{reason}), so the trials" in status.line
        assert dict(os.environ) == before
        assert _folders_of_ours(mps_folder) == []


def test_a_test_program_that_hangs_is_given_up(mps_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "PROBE_SECONDS", 0.5)
    with mps_daemon(probe=(sys.executable, "-c", "import time; time.sleep(60)")) as status:
        assert not status.running
        assert "hung under it" in status.line


def test_a_program_that_cannot_be_run_is_told(mps_folder: Path) -> None:
    (mps_folder / "bin" / CONTROL_NAME).write_bytes(b"\x7fELF nothing")
    with mps_daemon(probe=CLIENT) as status:
        assert status.line.startswith("no MPS daemon (nvidia-cuda-mps-control cannot be run: Exec format error)")


def test_a_daemon_that_does_not_stop_is_told_with_the_command_that_ends_it(
    mps_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MPS", "stubborn")
    monkeypatch.setattr(mps, "STOP_SECONDS", 0.5)
    said: list[str] = []
    with mps_daemon(say=said.append, probe=CLIENT):
        daemon, folder = daemon_of(pipes()), pipes().parent
    (line,) = said
    assert "did not stop within 0.5 s" in line
    assert f"echo quit | CUDA_MPS_PIPE_DIRECTORY={folder}/pipe nvidia-cuda-mps-control" in line
    daemon.kill()
    shutil.rmtree(folder)


@pytest.mark.parametrize("named", [True, False])
def test_a_daemon_that_is_there_is_used_and_left(
    mps_folder: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    folder = mps_folder / ("mine" if named else "default")
    daemon = _start_daemon(folder)
    if named:
        monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(folder))
    before = dict(os.environ)
    with mps_daemon(probe=FAILING) as status:
        assert (status.running, status.line) == (True, f"the MPS daemon of {folder} was running, is used and stays")
        subprocess.run(CLIENT, check=True)
    assert (folder / "control.log").read_text().split().count("client") == 1
    assert dict(os.environ) == before
    assert daemon.is_running()
    assert mps._answers(folder)


def test_the_files_of_a_daemon_that_died_are_no_daemon(mps_folder: Path) -> None:
    dead = _start_daemon(mps_folder / "default")
    dead.kill()
    assert is_gone(dead)
    assert (mps_folder / "default" / "control").exists()
    with mps_daemon(probe=CLIENT) as status:
        assert status.line == "MPS daemon started, stopped at the end"
        assert daemon_of(pipes()).pid != dead.pid


@pytest.mark.parametrize(
    ("visible", "daemon_sees"), [("2,3", None), ("", None), ("GPU-8f2c1d,GPU-77aa00", "GPU-8f2c1d,GPU-77aa00")]
)
def test_the_daemon_does_not_renumber_the_gpus_of_its_clients(
    mps_folder: Path, monkeypatch: pytest.MonkeyPatch, visible: str, daemon_sees: str | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("CUDA_MPS_PROTOCOL_VERSION", "3")
    with mps_daemon(probe=CLIENT):
        variables = daemon_of(pipes()).environ()
        assert variables.get("CUDA_VISIBLE_DEVICES") == daemon_sees
        assert variables["CUDA_MPS_PROTOCOL_VERSION"] == "2"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_the_cuda_program_that_tries_it_out_says_why_it_failed() -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(CUDA_PROBE, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert any(word in done.stderr for word in ("CUDA", "NVIDIA"))


def test_it_needs_no_library() -> None:
    code = f"import runpy; runpy.run_path({str(REPOSITORY / 'tune_cifar' / 'runner' / 'mps.py')!r})"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rays_workers_are_clients(mps_folder: Path) -> None:
    code = """
import subprocess, ray
from tests.runner.mps_helpers import CLIENT, pipes
from tune_cifar.runner.mps import mps_daemon
from tune_cifar.runner.ray_session import ray_session
with mps_daemon(probe=CLIENT), ray_session():
    work = ray.remote(num_cpus=1)(lambda: (subprocess.run(CLIENT, check=True), str(pipes()))[1])
    assert ray.get(work.remote()) == str(pipes())
    print((pipes().parent / "log" / "control.log").read_text().split().count("client"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "2\n", done.stderr


def test_the_stand_in_behaves_as_documented(mps_folder: Path) -> None:
    daemon = _start_daemon(mps_folder / "mine")
    variables = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(mps_folder / "mine")}
    again = subprocess.run([CONTROL_NAME, "-d"], env=variables, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (1, "An instance of this daemon is already running\n")
    end = subprocess.run([CONTROL_NAME], env=variables, input="quit\n", capture_output=True, text=True, check=False)
    assert end.returncode == 0
    assert is_gone(daemon)
    none = subprocess.run([CONTROL_NAME], env=variables, input="quit\n", capture_output=True, text=True, check=False)
    assert (none.returncode, none.stdout) == (1, "Cannot find MPS control daemon process\n")
