"""Brings a cluster up by Ray's launcher and down again, with what the launcher leaves to the user done for them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tune_cifar.cluster import node
from tune_cifar.cluster.checks import Findings, check_cluster
from tune_cifar.cluster.cluster_file import Cluster
from tune_cifar.cluster.logins import Login, ask_all, log_in, ssh_command
from tune_cifar.errors import UserError
from tune_cifar.runner.ray_token import provide_token
from tune_cifar.scrubbing import environment_without_secrets

EXIT_INCOMPLETE = 1
JOIN_SECONDS = 900.0
"""The head sets up the workers one command after the other; the environment takes minutes the first time."""
_LAST_LINES = 30
_CHECKOUT = Path(__file__).parent.parent.parent
_WORKERS_LOG = "/tmp/ray/session_latest/logs/monitor.out"  # noqa: S108


def check(cluster: Cluster, console: Console) -> Findings:
    """Check all machines; raises `UserError` with every problem."""
    console.print(f"checking {', '.join(cluster.machines)}", soft_wrap=True)
    findings = check_cluster(cluster)
    if findings.problems:
        heading = f"{cluster.path} cannot become a cluster yet, {len(findings.problems)} problem(s):"
        raise UserError("\n".join([heading, *findings.problems]))
    return findings


def up(cluster: Cluster, console: Console, *, join_seconds: float = JOIN_SECONDS) -> int:
    """Check, start Ray on all machines, wait for all to join; returns the exit code."""
    findings = check(cluster, console)
    if findings.facts[cluster.head].num_processes:
        console.print("running  already; `make cluster-down` first brings changes of the code and the file to it")
    else:
        _launch(cluster, console)
    console.print(f"waiting  for {len(cluster.workers)} worker(s)")
    if missing := _wait_for_workers(cluster, join_seconds):
        log = shlex.join(["ssh", cluster.login(cluster.head), "tail", "-n", "50", _WORKERS_LOG])
        console.print(
            f"missing  {', '.join(missing)} did not join within {join_seconds:g} s. The head sets them up and"
        )
        console.print(f"         keeps trying; what it does stands in its log: {log}", soft_wrap=True)
        return EXIT_INCOMPLETE
    _check_versions(cluster)
    console.print(f"up       {len(cluster.machines)} machine(s): {', '.join(cluster.machines)}", soft_wrap=True)
    console.print("Now, on the head:")
    console.print(f"  ssh {cluster.login(cluster.head)}", soft_wrap=True)
    console.print(f"  cd {node.PROJECT} && source .venv/bin/activate")
    console.print("  python -m tune_cifar.search configs/sweep.yaml --results A_FOLDER_ALL_SHARE", soft_wrap=True)
    return 0


def down(cluster: Cluster, console: Console) -> int:
    """End the cluster's processes on every machine, look again, and say what is left; returns the exit code."""
    # The head first: its autoscaler would start Ray on the workers again.
    left_somewhere = False
    for addresses in ((cluster.head,), cluster.workers):
        with log_in(cluster, addresses) as logins:
            answers, errors = ask_all(logins, lambda login: _stop(login, cluster))
        for address, error in errors.items():
            left_somewhere = True
            console.print(f"failed   {address} {error}", soft_wrap=True, markup=False)
        for address, (num_ended, left) in answers.items():
            left_somewhere = left_somewhere or bool(left)
            verdict = "nothing of the cluster is left" if not left else f"these do not end: {'; '.join(left)}"
            console.print(f"stopped  {address}: {num_ended} processes; {verdict}", soft_wrap=True, markup=False)
    node.forget(cluster.name, cluster.gcs_address)
    return EXIT_INCOMPLETE if left_somewhere else 0


def _stop(login: Login, cluster: Cluster) -> tuple[int, list[str]]:
    num_ended, left = login.ask("stop", cluster.name)
    login.ask("forget", cluster.name, cluster.gcs_address)
    return num_ended, left


def _launch(cluster: Cluster, console: Console) -> None:
    _provide_token_file(cluster)
    # A set-up that was noted earlier would be skipped, whatever became of the machines since.
    node.forget(cluster.name, cluster.gcs_address)
    with log_in(cluster, cluster.machines) as logins:
        ask_all(logins, lambda login: login.ask("forget", cluster.name, cluster.gcs_address))
    descriptor, log_name = tempfile.mkstemp(prefix="tune-cifar-cluster-", suffix=".log")
    log = Path(log_name)
    console.print(f"setup    of the head by Ray's launcher, minutes the first time; its log: {log}", soft_wrap=True)
    command = [
        "up",
        str(cluster.path.resolve()),
        "--yes",
        "--no-config-cache",
        "--disable-usage-stats",
        "--log-style",
        "pretty",
        "--log-color",
        "false",
    ]
    environment = {
        **environment_without_secrets(),
        # Ray 2.60 starts the workers of a `local` provider only with the older autoscaler
        # (https://github.com/ray-project/ray/issues/57153).
        "RAY_UP_enable_autoscaler_v2": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    # To a file: it tells much, and ends by naming `ray stop` and `ray down`, which end too much and too little.
    with os.fdopen(descriptor, "wb") as file:
        launcher = subprocess.run(  # noqa: S603
            [Path(sys.executable).parent / "ray", *command],
            cwd=_CHECKOUT,  # whose files the cluster file names
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if launcher.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        raise UserError(f"Ray's launcher failed (exit code {launcher.returncode}). The end of {log}:\n{last}")


def _provide_token_file(cluster: Cluster) -> None:
    """Have ~/.ray/auth_token, readable by the user alone, for the launcher to copy to the machines as it is."""
    provide_token()
    path = Path.home() / ".ray" / "auth_token"
    if not path.is_file():
        raise UserError(
            f"{path} must be there for {cluster.path} to copy it, but RAY_AUTH_MODE or RAY_AUTH_TOKEN keeps it from "
            "being made. Unset them, or make it with: ray get-auth-token --generate"
        )


def _wait_for_workers(cluster: Cluster, seconds: float) -> list[str]:
    arguments = [cluster.gcs_address, f"{seconds:g}", *cluster.workers]
    python = "RAY_AUTH_MODE=token .venv/bin/python"
    command = f"cd {node.PROJECT} && {python} -m tune_cifar.cluster.missing_workers {shlex.join(arguments)}"
    asked = subprocess.run(  # noqa: S603
        ssh_command(cluster, cluster.head, command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        said = " ".join(asked.stderr.split()[-60:])
        raise UserError(f"{cluster.head}: Ray does not answer on the head after its start: {said}")
    missing: list[str] = json.loads(asked.stdout.splitlines()[-1])
    return missing


def _check_versions(cluster: Cluster) -> None:
    """The lock file gives every machine the same Ray; an environment that was changed by hand may have another."""
    with log_in(cluster, cluster.machines) as logins:
        answers, _ = ask_all(logins, lambda login: login.ask("facts")["ray"])
    if len(set(answers.values())) > 1:
        versions = ", ".join(f"{address} {version}" for address, version in answers.items())
        raise UserError(
            f"The machines have different versions of Ray: {versions}. Remove {node.PROJECT}/.venv where it differs "
            "from requirements.lock, then `make cluster-down` and `make cluster-up`."
        )
