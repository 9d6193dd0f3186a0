"""A cluster of two machines, brought up, used, cut in two, mended and brought down, all by the commands of a user.

Some minutes: `make cluster-test` runs it, the plain suite does not.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, hosts, why_no_hosts
from tests.commands import REPOSITORY

pytestmark = pytest.mark.skipif(
    os.environ.get("TUNE_CIFAR_CLUSTER_TESTS") != "1", reason="minutes long; `make cluster-test` runs it"
)

# What is waited for takes seconds on an idle machine; a loaded one is no reason to fail.
PATIENCE_SECONDS = 420
SEARCH = "env --chdir=tune_cifar .venv/bin/python -m tune_cifar.search ../shared/cut.yaml --data digits "
SEARCH += "--train-images 128 --wandb disabled --results ../shared/results --name cut --max-failures 3"
EPOCHS = 25
SWEEP = f"""
method: random
metric: {{goal: minimize, name: val_loss}}
parameters:
  model: {{value: ResNet18}}
  batch_size: {{value: 32}}
  epochs: {{value: {EPOCHS}}}
  lr: {{distribution: log_uniform_values, min: 0.001, max: 0.01}}
run_cap: 4
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all machines share, as by NFS: checkpoints of one are read by another."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[dict[str, Host]]:
    if why := why_no_hosts():
        pytest.skip(why)
    with hosts(tmp_path_factory.mktemp("hosts"), "laptop", "head", "worker", shared=shared) as made:
        text = (REPOSITORY / "cluster.yaml").read_text()
        for line, edited in (  # the three lines that a user edits
            (r"head_ip: 10.0.0.1 ", f"head_ip: {made['head'].address} "),
            (r"worker_ips: \[.*\]", f"worker_ips: [{made['worker'].address}]"),
            (r"ssh_user: ubuntu", "ssh_user: root"),
        ):
            text, num_edits = re.subn(line, edited, text)
            assert num_edits == 1
        (made["laptop"].home / "cluster.yaml").write_text(text)
        for host in made.values():  # a key that a login shell exports is none of Ray's business
            with (host.home / ".bashrc").open("a") as file:
                file.write("export WANDB_API_KEY=a-key-of-somebody\n")
        yield made


@pytest.fixture(scope="module")
def cluster(machines: dict[str, Host]) -> dict[str, Host]:
    """The machines with Ray on them."""
    done = _cluster(machines, "up")
    assert done.returncode == 0, done.stdout + done.stderr
    head, worker = machines["head"].address, machines["worker"].address
    assert f"up       2 machine(s): {head}, {worker}" in done.stdout
    assert f"ssh root@{head}" in done.stdout
    return machines


def test_the_token_is_on_every_machine_and_shows_nowhere(cluster: dict[str, Host]) -> None:
    paths = [host.home / ".ray" / "auth_token" for host in cluster.values()]
    (token,) = {path.read_text() for path in paths}
    assert len(token) == 64
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600] * 3
    for host in cluster.values():
        assert [command for command in host.processes() if token in command] == []
        found = host.run(f"grep -rIl --devices=skip -e {token} /tmp /run/host/sshd.log; true").stdout
        assert found == ""


def test_who_has_no_token_is_refused(cluster: dict[str, Host]) -> None:
    script = f"import ray; ray.init(address='{cluster['head'].address}:6379')"
    python = f"HOME=/tmp RAY_AUTH_MODE={{}} ~/tune_cifar/.venv/bin/python -c {script!r}"
    refused = cluster["worker"].run(python.format("disabled").replace("~", "/home/ray"), seconds=PATIENCE_SECONDS)
    assert refused.returncode != 0
    assert "uthenti" in refused.stdout + refused.stderr


def test_ray_has_no_key_of_the_login_shell(cluster: dict[str, Host]) -> None:
    for name in ("head", "worker"):
        found = cluster[name].run("grep -l a-key-of-somebody $(ls /proc/*/environ); pgrep -f raylet/raylet").stdout
        raylet = found.split()[-1]
        assert raylet.isdigit()
        assert f"/proc/{raylet}/environ" not in found


def test_a_cluster_that_runs_is_left_alone(cluster: dict[str, Host]) -> None:
    before = _raylets(cluster)
    done = _cluster(cluster, "up")
    assert done.returncode == 0
    assert "running  already" in done.stdout
    assert _raylets(cluster) == before
    assert _cluster(cluster, "check").returncode == 0  # its own ports are no problem


def test_a_search_uses_both_machines_and_a_cut_off_one_loses_no_trial(cluster: dict[str, Host], shared: Path) -> None:
    head, worker = cluster["head"], cluster["worker"]
    (shared / "cut.yaml").write_text(SWEEP)
    results, log = shared / "results" / "cut", shared / "cut.log"
    search = head.start(SEARCH, log)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while _machines_at_work(results, epochs=2) != {head.address, worker.address}:
            assert search.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        there = [trial for trial, address in _where(results).items() if address == worker.address]
        worker.set_link(up=False)
        assert search.wait(timeout=PATIENCE_SECONDS) == 0, log.read_text()
    finally:
        search.kill()
        worker.set_link(up=True)
    assert "on 2 machine(s)" in log.read_text()
    assert "4 finished" in log.read_text()
    assert log.read_text().count("the trial's machine is gone") >= len(there)
    moved = {trial: _epochs(results / "ray" / trial, head.address) for trial in there}
    # From its checkpoint, and not from the start.
    assert all(epochs and epochs[0] > 1 and epochs[-1] == EPOCHS for epochs in moved.values()), moved
    missing = "cd tune_cifar && RAY_AUTH_MODE=token .venv/bin/python -m tune_cifar.cluster.missing_workers "
    arguments = f"{head.address}:6379 {PATIENCE_SECONDS} {worker.address}"
    asked = head.run(missing + arguments, seconds=2 * PATIENCE_SECONDS)
    assert asked.stdout.splitlines()[-1] == "[]", asked.stdout + asked.stderr


def test_down_ends_all_of_the_cluster_and_nothing_else(cluster: dict[str, Host]) -> None:
    worker = cluster["worker"]
    other = worker.start("bash -c 'exec -a raylet sleep 3601'", worker.home / "other.log")
    try:
        done = _cluster(cluster, "down")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("nothing of the cluster is left") == 2
        assert cluster["head"].processes() == []
        assert worker.processes() == ["raylet 3601"]
    finally:
        worker.send(other, signal.SIGTERM)
        other.wait()
    again = _cluster(cluster, "down")
    assert (again.returncode, again.stdout.count(" 0 processes")) == (0, 2)


def test_a_worker_that_does_not_join_is_named(cluster: dict[str, Host]) -> None:
    """After down, as the first start of a cluster whose worker cannot be set up."""
    worker = cluster["worker"]
    (worker.home / "tune_cifar" / "Makefile").unlink()
    (worker.home / "tune_cifar" / "Makefile").mkdir()
    try:
        done = _cluster(cluster, "up", "--join-seconds", "10")
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"missing  {worker.address} did not join within 10 s" in done.stdout
        assert f"ssh root@{cluster['head'].address} tail -n 50 /tmp/ray/session_latest/logs/monitor.out" in done.stdout
    finally:
        assert _cluster(cluster, "down").returncode == 0
    assert [cluster[name].processes() for name in ("head", "worker")] == [[], []]


def _cluster(machines: dict[str, Host], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = f"{REPOSITORY}/.venv/bin/python -m tune_cifar.cluster {' '.join(arguments)}"
    return machines["laptop"].run(command, seconds=PATIENCE_SECONDS)


def _raylets(machines: dict[str, Host]) -> list[str]:
    return [machines[name].run("pgrep -f raylet/raylet").stdout for name in ("head", "worker")]


def _rows(trial: Path) -> list[dict[str, object]]:
    path = trial / "result.json"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _where(results: Path) -> dict[str, str]:
    """The machine of each trial's last epoch, by the name of the trial's folder."""
    trials = {folder.name: _rows(folder) for folder in (results / "ray").glob("trial-*")}
    return {name: str(rows[-1]["node_ip"]) for name, rows in trials.items() if rows}


def _machines_at_work(results: Path, epochs: int) -> set[str]:
    """The machines on which a trial has trained so many epochs."""
    where = _where(results)
    return {address for trial, address in where.items() if len(_epochs(results / "ray" / trial, address)) >= epochs}


def _epochs(trial: Path, address: str) -> list[int]:
    """The epochs that a trial trained on one machine."""
    return [int(str(row["epoch"])) for row in _rows(trial) if row["node_ip"] == address]
