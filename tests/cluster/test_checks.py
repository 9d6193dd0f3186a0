"""Whatever keeps machines from becoming a cluster must be told at once: which machine, which rule, which fix."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.hosts import HOME, Host, hosts, why_no_hosts
from tests.commands import REPOSITORY
from tune_cifar.cluster.checks import MachineFacts, _check_here, _check_machine, _compare
from tune_cifar.cluster.cluster_file import Cluster

GOOD = MachineFacts((3, 12), (), 20 * 10**9, False, None, {}, 0, 0.1, 40000)
CLUSTER = Cluster(Path("c.yaml"), "test", "head", ("worker",), "ray", None, "head", "python3")
CHECK = f"{REPOSITORY}/.venv/bin/python -m tune_cifar.cluster check cluster.yaml"


def test_a_good_machine_has_no_problem() -> None:
    assert _check_machine(CLUSTER, "head", GOOD) == []
    assert _compare(CLUSTER, {"head": GOOD, "worker": GOOD}) == []


def test_every_rule_of_one_machine() -> None:
    bad = dataclasses.replace(
        GOOD, python=(3, 9), missing=("make",), free_bytes=3 * 10**9, taken_ports={6379: "process 7: redis"}
    )
    assert _check_machine(CLUSTER, "head", bad) == [
        "head has no make. Install the package make.",
        "head: Python 3.11 to 3.13 is needed, but python3 is 3.9. Name another in setup_commands: "
        "make PYTHON=python3.12 setup.",
        "head: 10 GB must be free in the home of ray for the environment, got 3.0 GB. Make room.",
        "head: port 6379 must be free on the head, but process 7: redis listens there. End it.",
    ]
    # A worker listens at no fixed port, and what is installed needs no room.
    fine = dataclasses.replace(GOOD, free_bytes=0, has_environment=True, taken_ports={6379: "process 7: redis"})
    assert _check_machine(CLUSTER, "worker", fine) == []


def test_machines_are_compared_with_the_head() -> None:
    other = dataclasses.replace(GOOD, python=(3, 11), clock_seconds=-30.0)
    python, clock = _compare(CLUSTER, {"head": GOOD, "worker": other})
    assert python.startswith("worker has Python 3.11 and the head 3.12: it must be the same on all.")
    assert clock.startswith("worker: its clock is 30 s behind the head's, at most 5 s will do.")


def test_the_programs_that_this_machine_lacks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _check_here(CLUSTER) == [
        "this machine has no ssh. Install the package openssh-client.",
        "this machine has no rsync. Install the package rsync.",
    ]


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen: install the package openssh-client")
def test_a_key_must_be_there_and_need_no_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rsync = tmp_path / "bin" / "rsync"  # only looked for; a machine that has none can be used to test
    rsync.parent.mkdir()
    rsync.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(rsync.parent), prepend=os.pathsep)
    with_key = dataclasses.replace(CLUSTER, key=tmp_path / "key")
    assert _check_here(with_key) == [
        f"c.yaml: auth.ssh_private_key: there is no {tmp_path}/key. Make it: ssh-keygen -f {tmp_path}/key"
    ]
    (tmp_path / "key").write_text("no key")
    (tmp_path / "key").chmod(0o600)
    (problem,) = _check_here(with_key)
    assert "cannot be used without a question" in problem


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    if why := why_no_hosts():
        pytest.skip(why)
    with hosts(tmp_path_factory.mktemp("hosts"), "laptop", "head", "worker", "shut") as made:
        yield made


def test_machines_in_order(machines: dict[str, Host]) -> None:
    done = _check(machines, "head", "worker")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ready    2 machine(s) can become a cluster" in done.stdout


def test_workers_behind_the_head_are_reached_through_it(machines: dict[str, Host]) -> None:
    worker = machines["worker"].address
    barred = f"ip route add unreachable {worker}"
    assert machines["laptop"].run(barred).returncode == 0
    try:
        assert f"{worker} cannot be reached by ssh" in _check(machines, "head", "worker").stderr
        assert _check(machines, "head", "worker", external_head_ip="head").returncode == 0
    finally:
        machines["laptop"].run(barred.replace("add", "delete"))


def test_all_problems_of_all_machines_in_one_message(machines: dict[str, Host]) -> None:
    head, worker, shut = (machines[name] for name in ("head", "worker", "shut"))
    (shut.home.parent / "authorized_keys").write_text("")
    assert worker.run("mount --bind /dev/null /usr/bin/rsync").returncode == 0
    assert worker.run(f"ip route add unreachable {head.address}").returncode == 0
    server = head.start("python3 -m http.server 8265", head.home / "server.log")
    try:
        wait = "until ss -ltn 'sport = :8265' | grep -q LISTEN; do sleep 0.1; done"
        assert head.run(wait).returncode == 0
        done = _check(machines, "head", "worker", "shut", name="10.77.0.99")
    finally:
        server.kill()
        server.wait()
    assert (done.returncode, done.stdout) == (2, f"checking {_addresses(machines)}, 10.77.0.99\n")
    heading, *problems = done.stderr.splitlines()
    assert heading == "error: cluster.yaml cannot become a cluster yet, 6 problem(s):"
    gone, refused, port, rsync, far, far_back = sorted(problems, key=_rank)
    assert gone.startswith("10.77.0.99 cannot be reached by ssh")
    assert refused == (
        f"{shut.address} does not take the login without a question. "
        f"Let it in with: ssh-copy-id -i {HOME}/.ssh/id_ed25519.pub root@{shut.address}"
    )
    assert port.startswith(f"{head.address}: port 8265 must be free on the head, but process ")
    assert "http.server 8265" in port
    assert rsync == f"{worker.address} has no rsync. Install the package rsync."
    assert far.startswith(f"{head.address} cannot reach {worker.address} on port ")
    assert far_back.startswith(f"{worker.address} cannot reach {head.address} on port ")


def _rank(problem: str) -> int:
    words = ("by ssh", "login", "must be free", "rsync", "10.77.0.2 cannot reach", "10.77.0.3 cannot reach")
    return next(rank for rank, word in enumerate(words) if word in problem)


def _addresses(machines: dict[str, Host]) -> str:
    return ", ".join(machines[name].address for name in ("head", "worker", "shut"))


def _check(
    machines: dict[str, Host], *names: str, name: str | None = None, **provider: str
) -> subprocess.CompletedProcess[str]:
    head, *workers = [machines[each].address for each in names]
    local = {"type": "local", "head_ip": head, "worker_ips": [*workers, *([name] if name else [])], **provider}
    auth = {"ssh_user": "root", "ssh_private_key": "~/.ssh/id_ed25519"}
    laptop = machines["laptop"]
    (laptop.home / "cluster.yaml").write_text(yaml.safe_dump({"cluster_name": "test", "provider": local, "auth": auth}))
    return laptop.run(CHECK)
