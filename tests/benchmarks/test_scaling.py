"""The simulated cluster runs Tune's own loop, and counts how busy its GPUs were as one would by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scaling import EPOCHS, epochs_of, figures
from benchmarks.simulated_actors import Clock, Usage
from tests.commands import REPOSITORY, environment


def test_a_search_on_simulated_machines_runs_every_trial(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "scaling.py"), "--machines", "1", "--trials", "12"]
    command += ["--epoch-seconds", "30", "--methods", "random", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "figures.json").read_text())["cases"]
    assert (case["trials"], case["finished"], case["method"]) == (12, 12, "random")
    # Each trial: every epoch's result and its checkpoint, and a start or the reset of an actor.
    assert case["events"] >= 12 * (2 * EPOCHS + 1)
    # Two rounds of trials on 8 GPUs: at least as long as the two shortest, which no machine really takes.
    assert case["seconds"] > 2 * EPOCHS * 30 * 0.9
    assert 0.5 < case["busy_in_all"] < 1.0
    assert "12 trials of 5 epochs on 1 machines with 8 GPUs" in done.stdout


def test_slots_are_busy_while_epochs_are_trained_in_them() -> None:
    # Two slots; trials start at 0, 1 and 5: the second slot waits from 4 to 5, and is empty from 8 on.
    usage = Usage([(0, 10), (1, 4), (5, 8)], trial_starts=[0, 1, 5], driver_seconds=2.0, num_events=4)
    assert figures(usage, slots=2) == {
        "seconds": 10,
        "filled_seconds": 1,
        "busy_while_trials_are_left": pytest.approx(7 / 8),
        "busy_in_all": pytest.approx(16 / 20),
        "driver_load": 0.2,
        "driver_ms_per_event": 500.0,
        "events": 4,
    }


def test_a_clock_that_skips_is_ahead_by_what_it_skipped() -> None:
    clock = Clock()
    before = clock.monotonic(), clock.time()
    clock.skip(100.0)
    assert clock.monotonic() - before[0] == pytest.approx(100.0, abs=5.0)
    assert clock.time() - before[1] == pytest.approx(100.0, abs=5.0)


def test_the_larger_network_takes_longer_and_the_best_rate_is_known() -> None:
    epoch_of = epochs_of(10.0)
    config = {"model": "ResNet18", "batch_size": 32, "lr": 0.01}
    epoch = epoch_of(config, EPOCHS)
    assert 9.0 <= epoch["epoch_runtime (seconds)"] <= 11.0
    assert epoch_of({**config, "model": "ResNet34"}, 1)["epoch_runtime (seconds)"] > 16.0
    assert epoch["val_loss"] < epoch_of({**config, "lr": 0.0001}, EPOCHS)["val_loss"]
    assert (epoch["status"], epoch["done"]) == ("finished", True)
