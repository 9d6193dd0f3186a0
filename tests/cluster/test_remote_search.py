"""A search on the head of a real cluster, started from another host. It takes minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, hosts, why_no_hosts

# The limits are for a machine that is busy with other things.
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.environ.get("TUNE_CIFAR_CLUSTER_TESTS") != "1", reason="minutes long; `make cluster-test` runs it"
    ),
]
WAIT_SECONDS = 600
SEARCH = "~/tune_cifar/.venv/bin/python -W error:::tune_cifar -m tune_cifar.search --address head"
DATA = "--data digits --train-images 64 --prediction-images 0"
SWEEP = """
method: random
metric: {name: val_loss, goal: minimize}
parameters:
  lr: {min: 0.001, max: 0.01}
  epochs: {value: 4}
  batch_size: {value: 32}
  model: {value: ResNet18}
run_cap: 2
"""


@dataclass(frozen=True)
class Machines:
    """Two hosts: `head` runs a Ray that asks for a token, `laptop` has sweep files in `work`."""

    laptop: Host
    head: Host
    work: Path

    def search(self, flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.laptop.run(f"cd work; {SEARCH} {flags}", seconds=WAIT_SECONDS, **environment)

    def start(self, flags: str, output: Path) -> subprocess.Popen[bytes]:
        return self.laptop.start(f"env -C work {SEARCH} {flags}", output)

    def log(self, job_id: str) -> str:
        """What the search itself wrote into its job's log."""
        log = self.head.run(f"cat /tmp/ray/session_latest/logs/job-driver-{job_id}.log").stdout
        return log.partition(f"Running entrypoint for job {job_id}")[2].partition("\n")[2]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    if reason := why_no_hosts():
        pytest.skip(reason)
    with hosts(tmp_path_factory.mktemp("hosts"), "laptop", "head") as both:
        laptop, head = both["laptop"], both["head"]
        work = laptop.home / "work"
        work.mkdir()
        (work / "sweep.yaml").write_text(SWEEP)
        (work / "long.yaml").write_text(SWEEP.replace("value: 4", "value: 3000").replace("run_cap: 2", "run_cap: 1"))
        ray = "~/tune_cifar/.venv/bin/ray"
        options = "--head --num-cpus=2 --object-store-memory=200000000 --disable-usage-stats"
        started = head.run(
            f"export RAY_AUTH_MODE=token; {ray} get-auth-token --generate > /dev/null && {ray} start {options}",
            seconds=WAIT_SECONDS,
        )
        assert started.returncode == 0, started.stderr
        yield Machines(laptop, head, work)


def wait_until_shown(text: str, output: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while text not in output.read_text():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.2)


def cut_tunnel(host: Host) -> None:
    """End the ssh that holds the tunnel, as a connection does that breaks."""
    assert host.run("kill $(ps -e -ww -o pid=,args= | awk '$2 == \"ssh\" && / -L / {print $1}')").returncode == 0


def test_a_search_is_shown_to_its_end_over_a_broken_connection(machines: Machines, tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = machines.start(f"sweep.yaml --name one {DATA}", output)
    wait_until_shown("epoch 1/4", output, process)
    cut_tunnel(machines.laptop)
    assert process.wait(WAIT_SECONDS) == 0
    shown = output.read_text()
    assert shown.count("The connection to head broke. The search goes on there; trying to connect again.\n") == 1
    log = machines.log("search-1-one")
    assert "[2/2] epoch 4/4" in log
    lines = [line for line in shown.splitlines() if not line.startswith(("cluster  ", "The connection"))]
    assert lines == log.splitlines()

    folder = machines.work / "results" / "one"
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "trials.csv", "trials.json", "summary.json", "best", "wandb", "search.json"} <= names, log
    assert not names & {"ray", ".lock"}
    assert json.loads((folder / "summary.json").read_text())["best"]
    assert machines.laptop.processes() == []

    again = machines.search("--attach one")
    assert again.returncode == 0
    assert again.stdout.startswith(log)
    token = (machines.head.home / ".ray" / "auth_token").read_text().strip()
    assert token not in shown + again.stdout + again.stderr

    taken = machines.search(f"sweep.yaml --name one --results other {DATA}")
    assert taken.returncode == 2
    assert "one exists on head" in taken.stderr
    refused = machines.search("--attach one", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode == 2
    assert "does not take the token of RAY_AUTH_TOKEN" in refused.stderr
    nothing = machines.search("--attach nothing")
    assert nothing.returncode == 2
    assert "knows no search called nothing" in nothing.stderr
    elsewhere = machines.laptop.run(f"cd work; {SEARCH}:8999 --attach one", seconds=WAIT_SECONDS)
    assert elsewhere.returncode == 2
    assert "No Ray answers on port 8999 of head" in elsewhere.stderr


def test_a_search_goes_on_without_the_laptop_until_it_is_stopped(machines: Machines, tmp_path: Path) -> None:
    for number, leave in enumerate((signal.SIGINT, signal.SIGHUP), start=1):
        output = tmp_path / f"output-{number}"
        flags = f"long.yaml --name long {DATA}" if number == 1 else "--resume --name long"
        process = machines.start(flags, output)
        wait_until_shown("] epoch ", output, process)
        machines.laptop.send(process, leave)
        assert process.wait(WAIT_SECONDS) == 130
        hint = "--address head --attach long"
        assert hint in output.read_text()
        assert machines.laptop.processes() == []
        assert any("--name long" in command for command in machines.head.processes())

        if number == 1:
            running = machines.search(f"long.yaml --resume --name long {DATA}")
            assert running.returncode == 2
            assert "long is running on head" in running.stderr

        stopped = machines.search("--stop long")
        assert stopped.returncode == 0, stopped.stderr
        assert "Go on with it by python -m tune_cifar.search --address head --resume --name long" in stopped.stdout
        assert not any("--name long" in command for command in machines.head.processes())
        trials = json.loads((machines.work / "results" / "long" / "trials.json").read_text())
        assert trials["state"] == "interrupted"
        # It ended by itself: its last line is written after all else.
        assert "report   " in machines.log(f"search-{number}-long")

    ended = machines.search("--stop long")
    assert ended.returncode == 2
    assert "has ended already" in ended.stderr
    local = machines.laptop.run(
        "cd work; ~/tune_cifar/.venv/bin/python -m tune_cifar.search --resume", seconds=WAIT_SECONDS
    )
    assert local.returncode == 2
    assert "was fetched from a cluster" in local.stderr
