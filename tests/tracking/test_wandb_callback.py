import logging
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.wandb_helpers import KEY, FakeTrial, epoch_result, read_run, run_files, wait_until
from tests.tracking.wandb_server import WandbServer
from tune_cifar.results import TrialRecord
from tune_cifar.runner.search_log import SearchLog
from tune_cifar.tracking import run_writer
from tune_cifar.tracking.wandb_callback import SECONDS_FOR_RESULTS, SearchWandbCallback
from tune_cifar.tracking.wandb_run import Amendment

LAST = {"status": "finished", "avg epoch runtime (seconds)": 2.5}


def log_epochs(callback: SearchWandbCallback, trial: FakeTrial, *epochs: int, **changes: Any) -> None:
    for epoch in epochs:
        callback.log_trial_result(epoch, trial, epoch_result(epoch, **changes))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("tune_cifar")]


def run_driver(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `script` in a process of its own, in `folder`, with a `make_callback` for that folder."""
    start = f"""
        import os, pickle, sys, time
        from pathlib import Path
        sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]
        from wandb_helpers import FakeTrial, epoch_result
        from tune_cifar.runner.search_log import SearchLog
        from tune_cifar.tracking.wandb_callback import SECONDS_FOR_RESULTS, SearchWandbCallback
        def make_callback():
            callback = SearchWandbCallback(project="cifar", group="my search", folder=Path(), mode="offline",
                                           log=SearchLog("val_loss"), metric="val_loss", goal="minimize",
                                           finish_seconds=3.0)
            callback.setup()
            return callback
        def wait_for_runs():
            while not list(Path().glob("wandb/offline-run-*/*.wandb")):
                time.sleep(0.01)
    """
    code = textwrap.dedent(start) + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, check=False, capture_output=True, text=True)


def test_a_trial_is_one_complete_run(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    callback = make_callback(tags=("cifar",), notes="a note")
    trial = FakeTrial("abc_00003")
    callback.log_trial_start(trial)
    log_epochs(callback, trial, 1, 2)
    log_epochs(callback, trial, 3, **LAST)
    callback.log_trial_end(trial)
    callback.on_experiment_end([trial])

    (file,) = run_files(tmp_path)
    run = read_run(file)
    epoch_metrics = {"epoch_runtime (seconds)": 2}
    assert run.num_rows == len(run.rows) == 6
    assert run.rows[1] == {"train_loss": 1, "epoch": 0.5}
    assert run.rows[4] == {"train_loss": 0.25, "epoch": 2, "val_loss": 0.5, "val_accuracy": 0.2} | epoch_metrics
    assert run.rows[6]["avg epoch runtime (seconds)"] == 2.5
    assert run.config == {"_wandb": {}, "model": "ResNet18", "optimizer": {"lr": 0.0042}}
    assert run.summary["best_val_loss"] == 0.5
    assert run.summary["val_loss"] == 1.5
    assert run.summary["status"] == "finished"
    assert (run.name, run.group, run.tags) == ("1-ResNet18-lr0.0042", "my search", ["cifar"])
    assert run.exit_code == 0
    assert capfd.readouterr() == ("", "")


def test_the_best_follows_the_goal(make_callback: Callable[..., SearchWandbCallback], tmp_path: Path) -> None:
    callback = make_callback(metric="val_accuracy", goal="maximize")
    trial = FakeTrial("t")
    log_epochs(callback, trial, 1, 2)
    callback.log_trial_end(trial)
    callback.on_experiment_end([trial])
    assert read_run(run_files(tmp_path)[0]).summary["best_val_accuracy"] == 0.2


def test_a_repeat_has_a_tag_of_its_own(make_callback: Callable[..., SearchWandbCallback], tmp_path: Path) -> None:
    log = SearchLog("val_loss")
    log.trials["t"] = TrialRecord(2, "t", {}, repeat_of=1)
    callback = make_callback(log=log, tags=("cifar",))
    log_epochs(callback, FakeTrial("t"), 1)
    callback.log_trial_end(FakeTrial("t"))
    callback.on_experiment_end([])
    assert read_run(run_files(tmp_path)[0]).tags == ["cifar", "repeat"]


def test_every_way_to_end_is_told_apart(make_callback: Callable[..., SearchWandbCallback], tmp_path: Path) -> None:
    callback = make_callback()
    trials = {name: FakeTrial(name) for name in ("failed", "diverged", "stopped", "open")}
    for trial in trials.values():
        callback.log_trial_start(trial)
        log_epochs(callback, trial, 1)
    log_epochs(callback, trials["diverged"], 2, status="diverged", message="train_loss is nan", val_loss=math.nan)
    callback.log_trial_end(trials["failed"], failed=True)
    callback.log_trial_end(trials["diverged"])
    callback.log_trial_end(trials["stopped"])
    callback.on_experiment_end(list(trials.values()))

    runs = {file.stem.rpartition("-")[2]: read_run(file) for file in run_files(tmp_path)}
    ends = {name: (run.exit_code, run.summary["status"], run.tags) for name, run in runs.items()}
    assert ends == {
        "failed": (1, "failed", []),
        "diverged": (0, "diverged", ["diverged"]),
        "stopped": (0, "stopped early", []),
        "open": (255, "interrupted", []),
    }
    assert runs["diverged"].summary["message"] == "train_loss is nan"
    assert runs["diverged"].summary["best_val_loss"] == 1.5


def test_a_run_says_why_its_trial_was_stopped(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path
) -> None:
    log = SearchLog("val_loss")
    log.trials["t"] = TrialRecord(1, "t", {}, "stopped", message="stopped on its W&B page")
    callback = make_callback(log=log)
    log_epochs(callback, FakeTrial("t"), 1)
    callback.log_trial_end(FakeTrial("t"))
    callback.on_experiment_end([])
    summary = read_run(run_files(tmp_path)[0]).summary
    assert (summary["status"], summary["message"]) == ("stopped early", "stopped on its W&B page")


def test_a_trial_retried_after_an_error_goes_on_in_its_run(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path
) -> None:
    callback = make_callback()
    trial = FakeTrial("t")
    callback.log_trial_start(trial)
    log_epochs(callback, trial, 1, 2)
    callback.log_trial_start(trial)
    log_epochs(callback, trial, 2, 3)
    callback.log_trial_end(trial)
    callback.on_experiment_end([trial])
    (file,) = run_files(tmp_path)
    run = read_run(file)
    assert list(run.rows) == [1, 2, 3, 4, 5, 6]
    assert run.num_rows == 6


def test_runs_whose_state_was_lost_go_on_and_can_be_amended(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path
) -> None:
    results = {1: epoch_result(1), 2: epoch_result(2), 3: epoch_result(3, **LAST)}
    killed = make_callback()
    for trial_id, epochs in {"done": (1, 2), "open": (1,)}.items():
        log_epochs(killed, FakeTrial(trial_id), *epochs)
    log_epochs(killed, FakeTrial("done"), 3, **LAST)
    killed.log_trial_end(FakeTrial("done"))
    killed.on_experiment_end([])

    callback = make_callback()
    callback.recall(TrialRecord(1, "done", FakeTrial("done").config, "finished"), list(results.values()))
    callback.recall(TrialRecord(2, "open", FakeTrial("open").config, "waiting"), [results[1]])
    log_epochs(callback, FakeTrial("open"), 2)
    callback.log_trial_end(FakeTrial("open"))
    callback.on_experiment_end([])
    assert callback.amend("done", {}, Amendment("best", {"test_accuracy": 0.9}, None))
    runs = {path: read_run(path) for path in run_files(tmp_path)}
    (reopened,) = [run for path, run in runs.items() if "open" in path.name]
    assert [row["val_loss"] for row in reopened.rows.values() if "val_loss" in row] == [1.5, 0.5]
    (amended,) = [run for path, run in runs.items() if "done" in path.name and "best" in run.tags]
    assert (amended.summary["best_val_loss"], amended.summary["val_loss"], amended.summary["status"]) == (
        0.5,
        1.5,
        "finished",
    )


def test_the_run_of_an_ended_trial_is_written_where_its_state_and_its_end_were_lost(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path
) -> None:
    killed = make_callback()
    for trial_id in ("closed", "cut"):
        log_epochs(killed, FakeTrial(trial_id), 1)
    killed.log_trial_end(FakeTrial("closed"))
    killed.on_experiment_end([])
    before = set(run_files(tmp_path))

    log = SearchLog("val_loss")
    callback = make_callback(log=log)
    results = {1: epoch_result(1), 2: epoch_result(2, **LAST)}
    ends = {"closed": ("finished", 1), "cut": ("finished", 2), "broken": ("failed", 1)}
    for number, (trial_id, (status, num_epochs)) in enumerate(ends.items(), start=1):
        message = "RuntimeError: broken" if status == "failed" else ""
        record = TrialRecord(number, trial_id, FakeTrial(trial_id).config, status, message=message)
        log.trials[trial_id] = record
        callback.recall(record, list(results.values())[:num_epochs])
    callback.on_step_begin(1, [])
    callback.on_experiment_end([])

    written = {path.stem.rpartition("-")[2]: read_run(path) for path in set(run_files(tmp_path)) - before}
    assert {name: (run.exit_code, run.summary["status"]) for name, run in written.items()} == {
        "cut": (0, "finished"),
        "broken": (1, "failed"),
    }
    assert [row["val_loss"] for row in written["cut"].rows.values() if "val_loss" in row] == [1.5, 0.5]
    assert written["broken"].summary["message"] == "RuntimeError: broken"


def test_an_offline_run_is_whole_after_a_kill(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, tmp_path: Path
) -> None:
    """The driver dies with rows not yet on disk; the trial reports an epoch again and goes on."""
    killed = run_driver(
        """
        callback = make_callback()
        for epoch in (1, 2, 3):
            callback.log_trial_result(epoch, FakeTrial("t"), epoch_result(epoch))
            if epoch == 2:
                Path("state").write_bytes(pickle.dumps((callback, callback.get_state())))
        wait_for_runs()
        os.kill(os.getpid(), 9)
    """,
        tmp_path,
    )
    assert killed.returncode == -signal.SIGKILL

    callback, state = pickle.loads(Path("state").read_bytes())  # noqa: S301 written by this test
    callback.set_state(state)
    callback.setup()
    trial = FakeTrial("t")
    callback.log_trial_start(trial)
    log_epochs(callback, trial, 2, 3)
    callback.log_trial_end(trial)
    callback.on_experiment_end([trial])

    (file,) = run_files(tmp_path)
    run = read_run(file)
    assert list(run.rows) == [1, 2, 3, 4, 5, 6]
    assert run.num_rows == 6
    assert run.summary["best_val_loss"] == 0.5
    assert len(list((tmp_path / "superseded").iterdir())) == 1


def test_a_trial_that_had_ended_when_the_driver_died_is_written_by_the_resume(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path
) -> None:
    """A server that hangs holds up the rows of all runs, and a trial can end meanwhile."""
    log = SearchLog("val_loss")
    killed = make_callback(log=log)
    late: list[Callable[[], None]] = []
    killed._writer._calls.submit = late.append  # type: ignore[method-assign]
    for name, failed in (("good", False), ("bad", True)):
        trial = FakeTrial(name)
        killed.log_trial_start(trial)
        log_epochs(killed, trial, 1, 2, **({} if failed else LAST))
        killed.log_trial_end(trial, failed=failed)
    snapshot = pickle.dumps(killed.get_state())
    assert run_files(tmp_path) == []
    for attempt in (1, 2):  # the second goes on from the same snapshot, and finds that both are written
        resumed = make_callback(log=log)
        resumed.set_state(pickle.loads(snapshot))  # noqa: S301 made here
        for _ in range(3):
            resumed.on_step_begin(0, [])
        resumed.on_experiment_end([])
        runs = {path.stem: read_run(path) for path in run_files(tmp_path)}
        assert len(runs) == 2, attempt
        (good,) = (run for name, run in runs.items() if "good" in name)
        (bad,) = (run for name, run in runs.items() if "bad" in name)
        assert list(good.rows) == list(bad.rows) == [1, 2, 3, 4]
        assert (good.exit_code, good.summary["status"], good.summary["best_val_loss"]) == (0, "finished", 0.5)
        assert (bad.exit_code, bad.summary["status"]) == (1, "failed")
        state = resumed.get_state() or {}
        assert state["ended"] == {}
        assert list(state["histories"]) == ["bad"]


def test_an_offline_run_uploaded_between_interruption_and_resume_gets_the_new_rows_only(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, tmp_path: Path
) -> None:
    trial = FakeTrial("t")
    tool = Path(sys.executable).parent / "wandb"
    state = None
    for epochs in ((1, 2), (2, 3)):
        callback = make_callback()
        if state:
            callback.set_state(state)
        callback.log_trial_start(trial)
        log_epochs(callback, trial, *epochs)
        callback.on_experiment_end([trial])
        state = callback.get_state()
        subprocess.run([tool, "sync", tmp_path / "wandb"], check=True, capture_output=True)
    assert [row["_step"] for row in server.runs["my-search-t"].metrics] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "superseded").exists()


def test_online_rows_config_tags_and_exit_codes_arrive(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer
) -> None:
    callback = make_callback(mode="online", tags=("cifar",))
    trials = [FakeTrial("good"), FakeTrial("bad")]
    for trial in trials:
        callback.log_trial_start(trial)
        log_epochs(callback, trial, 1, 2)
    callback.log_trial_end(trials[0])
    callback.log_trial_end(trials[1], failed=True)
    callback.on_experiment_end(trials)

    good, bad = server.runs["my-search-good"], server.runs["my-search-bad"]
    assert [row["_step"] for row in good.metrics] == [1, 2, 3, 4]
    assert good.metrics[3]["val_loss"] == 0.5
    assert good.metrics == bad.metrics
    assert good.config["optimizer"] == {"lr": 0.0042}
    assert good.summary["best_val_loss"] == 0.5
    assert (good.display_name, good.group, good.tags) == ("1-ResNet18-lr0.0042", "my search", ["cifar"])
    assert (good.exit_code, bad.exit_code) == (0, 1)


LEFT_OVER = {
    "WANDB_RUN_ID": "an/other",
    "WANDB_SWEEP_ID": "another",
    "WANDB_RESUME": "true",
    "WANDB_RESUME_FROM": "another?_step=3",
    "WANDB_LAUNCH": "true",
    "WANDB_NAME": "another",
    "WANDB_NOTES": "others",
    "WANDB_TAGS": "another,more",
    "WANDB_RUN_GROUP": "others",
    "WANDB_PROJECT": "others",
    "WANDB_ENTITY": "others",
}


def test_what_the_environment_says_of_another_run_is_not_taken_for_ours(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in LEFT_OVER.items():
        monkeypatch.setenv(name, value)
    callback = make_callback(mode="online", notes="ours", tags=("cifar",), sweep_id="sweep1")
    trials = [FakeTrial("t1"), FakeTrial("t2")]
    for trial in trials:
        log_epochs(callback, trial, 1, **LAST)
        callback.log_trial_end(trial)
    callback.on_experiment_end(trials)
    assert callback.amend("t1", trials[0].config, Amendment("best", {}, None))
    assert set(server.runs) == {"my-search-t1", "my-search-t2"}
    for run, number in zip(server.runs.values(), (1, 2), strict=True):
        assert (run.project, run.entity, run.sweep) == ("cifar", "tester", "sweep1")
        assert (run.display_name, run.group, run.notes) == (f"{number}-ResNet18-lr0.0042", "my search", "ours")
        assert len(run.metrics) == 2
    assert [run.tags for run in server.runs.values()] == [["cifar", "best"], ["cifar"]]
    assert {name: os.environ[name] for name in LEFT_OVER} == LEFT_OVER


def test_an_online_run_goes_on_after_an_interruption_without_a_row_twice_or_lost(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer
) -> None:
    trial = FakeTrial("t")
    interrupted = make_callback(mode="online")
    log_epochs(interrupted, trial, 1, 2)
    interrupted.on_experiment_end([trial])
    assert server.runs["my-search-t"].exit_code == 255
    served = server.runs["my-search-t"]
    served.rows, served.summary = served.rows[:3], {"_step": 3}  # the end got lost on its way
    served.display_name, served.notes, served.tags = "promising", "by hand", ["mine"]  # on the run's page

    resumed = make_callback(mode="online")
    resumed.set_state(pickle.loads(pickle.dumps(interrupted.get_state())))  # noqa: S301 made here
    resumed.log_trial_start(trial)
    log_epochs(resumed, trial, 2)
    log_epochs(resumed, trial, 3, **LAST)
    resumed.log_trial_end(trial)
    resumed.on_experiment_end([trial])
    run = server.runs["my-search-t"]
    assert [row["_step"] for row in run.metrics] == [1, 2, 3, 4, 5, 6]
    assert [row["val_loss"] for row in run.metrics if "val_loss" in row] == [1.5, 0.5, 1.5]
    assert (run.exit_code, run.summary["status"], run.summary["best_val_loss"]) == (0, "finished", 0.5)
    assert (run.display_name, run.notes, run.tags) == ("promising", "by hand", ["mine"])


def test_a_run_that_was_deleted_on_its_page_is_made_again_with_its_name(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer
) -> None:
    trial = FakeTrial("t")
    interrupted = make_callback(mode="online", notes="ours", tags=("cifar",))
    log_epochs(interrupted, trial, 1)
    interrupted.on_experiment_end([trial])
    name = server.runs.pop("my-search-t").display_name

    resumed = make_callback(mode="online", notes="ours", tags=("cifar",))
    resumed.set_state(interrupted.get_state() or {})
    log_epochs(resumed, trial, 2)
    resumed.log_trial_end(trial)
    resumed.on_experiment_end([trial])
    run = server.runs["my-search-t"]
    assert (run.display_name, run.notes, run.tags) == (name, "ours", ["cifar"])
    assert [row["_step"] for row in run.metrics] == [1, 2, 3, 4]


def test_a_refused_key_means_offline_said_once(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.reject_keys = True
    callback = make_callback(mode="online", init_seconds=5.0)
    started = time.monotonic()
    for trial in (FakeTrial("t1"), FakeTrial("t2")):
        callback.log_trial_start(trial)
        log_epochs(callback, trial, 1)
        callback.log_trial_end(trial)
    callback.on_experiment_end([])
    assert time.monotonic() - started < 15
    assert callback.mode == "offline"
    (line,) = lines(caplog)
    assert line.startswith("W&B cannot be reached (")
    assert "\n" not in line
    assert KEY not in line
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [read_run(file).num_rows for file in files] == [2, 2]


def test_a_server_that_dies_neither_stops_nor_delays_the_search(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    callback = make_callback(mode="online", init_seconds=2.0, finish_seconds=3.0)
    before, after = FakeTrial("before"), FakeTrial("after")
    callback.log_trial_start(before)
    log_epochs(callback, before, 1)
    wait_until(lambda: "my-search-before" in server.runs)
    server.die()
    started = time.monotonic()
    log_epochs(callback, before, 2)
    callback.log_trial_end(before)
    assert time.monotonic() - started < 1
    callback.log_trial_start(after)
    log_epochs(callback, after, 1)
    callback.log_trial_end(after)
    callback.on_experiment_end([])
    assert time.monotonic() - started < 15
    said = lines(caplog)
    assert len(said) == 2
    assert said[0].startswith("W&B cannot be reached (")
    assert said[1].startswith("W&B: the upload of 1 run(s) was cut off after 3 s.")
    by_trial = {file.stem.rpartition("-")[2]: read_run(file).num_rows for file in run_files(tmp_path)}
    assert (by_trial["before"], by_trial["offline"]) == (4, 2)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_tried_again_and_gets_every_row_once(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    asked: list[str] = []

    def refuse_every_kind_once(asked_for: str) -> int | None:
        asked.append(asked_for)
        return status if asked.count(asked_for) == 1 else None

    server.trouble = refuse_every_kind_once
    callback = make_callback(mode="online")
    trial = FakeTrial("t")
    log_epochs(callback, trial, 1, 2)
    callback.log_trial_end(trial)
    callback.on_experiment_end([])
    assert set(asked) == {"rows", "graphql"}
    assert [row["_step"] for row in server.runs["my-search-t"].metrics] == [1, 2, 3, 4]
    assert server.runs["my-search-t"].exit_code == 0
    assert lines(caplog) == []


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_stays_busy_costs_no_trial_time_and_no_row(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    server.trouble = lambda asked_for: status
    callback = make_callback(mode="online", init_seconds=3.0, finish_seconds=3.0)
    started = time.monotonic()
    for name in ("t1", "t2"):
        log_epochs(callback, FakeTrial(name), 1, 2)
        callback.log_trial_end(FakeTrial(name))
    assert time.monotonic() - started < 1
    callback.on_experiment_end([])
    (line,) = lines(caplog)
    assert line.startswith("W&B cannot be reached (")
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [read_run(file).num_rows for file in files] == [4, 4]


@pytest.mark.parametrize("status", [401, 403])
def test_rows_that_the_server_refuses_are_on_disk_and_told(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    """A key that is revoked during the search: the client itself says that such a run has ended well."""
    callback = make_callback(mode="online", finish_seconds=10.0)
    trial = FakeTrial("t")
    callback.log_trial_start(trial)
    wait_until(lambda: "my-search-t" in server.runs)
    server.trouble = lambda asked_for: status
    log_epochs(callback, trial, 1, 2)
    callback.log_trial_end(trial)
    callback.on_experiment_end([])
    (line,) = lines(caplog)
    (file,) = run_files(tmp_path)
    assert read_run(file).num_rows == 4
    told, _, command = line.partition("; as a new, complete run: ")
    assert told == "W&B: the server refused rows of 1 run(s). Every row is on disk"
    assert command == f"wandb sync --include-online --id my-search-t-again {file.parent}"
    server.trouble = lambda asked_for: None
    subprocess.run([Path(sys.executable).parent / command.split()[0], *command.split()[1:]], check=True)
    assert [row["_step"] for row in server.runs["my-search-t-again"].metrics] == [1, 2, 3, 4]


def test_a_server_that_is_back_gets_the_next_runs(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_writer, "ONLINE_AGAIN_SECONDS", 5.0)
    callback = make_callback(mode="online", init_seconds=3.0)
    server.trouble = lambda asked_for: 500
    log_epochs(callback, FakeTrial("away"), 1)
    callback.log_trial_end(FakeTrial("away"))
    wait_until(lambda: callback.mode == "offline")
    server.trouble = lambda asked_for: None
    log_epochs(callback, FakeTrial("soon"), 1)
    callback.log_trial_end(FakeTrial("soon"))
    wait_until(lambda: len(run_files(tmp_path)) == 3)  # one of the attempt to go online
    time.sleep(5)
    log_epochs(callback, FakeTrial("back"), 1)
    callback.log_trial_end(FakeTrial("back"))
    callback.on_experiment_end([])
    assert list(server.runs) == ["my-search-back"]
    assert callback.mode == "online"
    assert [line.partition(" (")[0] for line in lines(caplog)] == [
        "W&B cannot be reached",
        "W&B can be reached again; runs from here on go there.",
    ]


def test_a_server_that_hangs_delays_nothing_and_loses_nothing(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    callback = make_callback(mode="online", init_seconds=3.0, finish_seconds=3.0)
    before, after = FakeTrial("before"), FakeTrial("after")
    callback.log_trial_start(before)
    log_epochs(callback, before, 1)
    wait_until(lambda: "my-search-before" in server.runs)
    server.hang()
    call_seconds = []
    for call in (
        lambda: log_epochs(callback, before, 2, 3),
        lambda: callback.log_trial_end(before),
        lambda: callback.log_trial_start(after),
        lambda: log_epochs(callback, after, 1, 2),
        lambda: callback.get_state(),
        lambda: callback.log_trial_end(after),
    ):
        started = time.monotonic()
        call()
        call_seconds.append(time.monotonic() - started)
    assert max(call_seconds) < 1, call_seconds  # the server answers after 3 s at the soonest, or never
    callback.on_experiment_end([])
    first, second = lines(caplog)
    assert first.startswith("W&B cannot be reached (CommError")
    assert second.startswith("W&B: the upload of 1 run(s) was cut off after 3 s.")
    by_trial = {file.stem.rpartition("-")[2]: read_run(file) for file in run_files(tmp_path)}
    assert (by_trial["before"].num_rows, by_trial["offline"].num_rows) == (6, 4)
    assert by_trial["offline"].exit_code == 0


def test_a_search_that_has_to_end_in_time_does_not_wait_for_a_hung_server(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    log = SearchLog("val_loss")
    callback = make_callback(mode="online", init_seconds=3.0, finish_seconds=60.0, log=log)
    trial = FakeTrial("before")
    callback.log_trial_start(trial)
    log_epochs(callback, trial, 1)
    wait_until(lambda: "my-search-before" in server.runs)
    server.hang()
    started = time.monotonic()
    log.deadline_seconds = started + SECONDS_FOR_RESULTS + 2
    callback.on_experiment_end([])
    assert time.monotonic() - started < 30  # and not the minute that the upload may take otherwise
    assert lines(caplog)[-1].startswith(("W&B did not take every row in time", "W&B: the upload of 1 run(s) was cut"))


def test_a_client_that_dies_does_not_reach_the_search(tmp_path: Path) -> None:
    done = run_driver(
        """
        import psutil
        callback = make_callback()
        trials = [FakeTrial("t1"), FakeTrial("t2")]
        callback.log_trial_start(trials[0])
        wait_for_runs()
        cores = [child for child in psutil.Process().children(recursive=True) if "wandb-core" in child.name()]
        assert len(cores) == 1
        cores[0].kill()
        cores[0].wait()
        for epoch in (1, 2, 3):
            callback.log_trial_result(epoch, trials[0], epoch_result(epoch))
        callback.log_trial_start(trials[1])
        callback.log_trial_result(1, trials[1], epoch_result(1))
        for trial in trials:
            callback.log_trial_end(trial)
        callback.on_experiment_end(trials)
        print("the search is done")
    """,
        tmp_path,
    )
    assert done.returncode == 0
    assert done.stdout == "the search is done\n"
    assert "W&B cannot start a run (" in done.stderr


def test_a_folder_that_cannot_be_written_turns_wandb_off(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wandb").write_text("in the way")
    callback = make_callback()
    trial = FakeTrial("t")
    callback.log_trial_start(trial)
    log_epochs(callback, trial, 1)
    callback.log_trial_end(trial)
    callback.on_experiment_end([trial])
    assert callback.mode == "disabled"
    (line,) = lines(caplog)
    assert "runs from here on are not logged" in line


def test_the_stop_button_stops_its_trial_alone(
    make_callback: Callable[..., SearchWandbCallback], server: WandbServer
) -> None:
    callback = make_callback(mode="online")
    trials = [FakeTrial("t1"), FakeTrial("t2")]
    for trial in trials:
        callback.log_trial_start(trial)
    server.stopped.add("my-search-t1")
    log_epochs(callback, trials[0], 1)
    wait_until(lambda: callback.stop_requested("t1", {}))
    assert not callback.stop_requested("t2", {})
    callback.on_experiment_end(trials)


def test_disabled_writes_nothing(make_callback: Callable[..., SearchWandbCallback], tmp_path: Path) -> None:
    callback = make_callback(mode="disabled")
    trial = FakeTrial("t")
    callback.log_trial_start(trial)
    log_epochs(callback, trial, 1)
    callback.log_trial_end(trial)
    callback.on_experiment_end([trial])
    assert list(tmp_path.iterdir()) == []
    assert callback.get_state() is None


def test_a_live_callback_pickles_and_the_copy_works(
    make_callback: Callable[..., SearchWandbCallback], tmp_path: Path
) -> None:
    callback = make_callback()
    trial = FakeTrial("t")
    log_epochs(callback, trial, 1)
    copy = pickle.loads(pickle.dumps(callback))  # noqa: S301 made here
    callback.on_experiment_end([trial])
    shutil.rmtree(tmp_path / "wandb")
    log_epochs(copy, trial, 2)
    copy.log_trial_end(trial)
    copy.on_experiment_end([trial])
    assert list(read_run(run_files(tmp_path)[0]).rows) == [1, 2, 3, 4]


def test_the_key_is_written_nowhere(
    make_callback: Callable[..., SearchWandbCallback],
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    callback = make_callback(mode="online")
    trial = FakeTrial("t")
    log_epochs(callback, trial, 1, 2)
    stored = [pickle.dumps(callback), pickle.dumps(callback.get_state())]
    callback.log_trial_end(trial)
    callback.on_experiment_end([trial])
    assert server.keys == {KEY}
    written = [file for place in (tmp_path, Path(os.environ["HOME"])) for file in place.rglob("*")]
    stored += [file.read_bytes() for file in written if file.is_file()]
    assert len(stored) > 3
    assert not any(KEY.encode() in content for content in stored)
    assert KEY not in caplog.text
