from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.cluster.loopback_sshd import loopback_sshd, why_no_sshd
from tests.commands import REPOSITORY
from tune_cifar.cluster.origin import check_local, check_runs_here
from tune_cifar.cluster.remote_files import fetch_results, send_files
from tune_cifar.cluster.remote_head import ask_head, parse_address
from tune_cifar.errors import UserError


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if reason := why_no_sshd():
        pytest.skip(reason)
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as folder:
        yield folder


@pytest.fixture
def home(programs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a login on `head`, with the project installed in it."""
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    folder = programs.parent / "home"
    project = folder / "tune_cifar"
    if not project.is_dir():
        project.mkdir()
        (project / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.mark.parametrize(
    ("text", "destination", "port"),
    [
        ("head", "head", 8265),
        ("me@gpu-1.example.com:8300", "me@gpu-1.example.com", 8300),
        ("10.0.0.1", "ubuntu@10.0.0.1", 8265),
        ("other@10.0.0.1", "other@10.0.0.1", 8265),
        ("10.0.0.2", "10.0.0.2", 8265),
    ],
)
def test_an_address_takes_user_and_key_from_the_cluster_file_of_that_head(
    monkeypatch: pytest.MonkeyPatch, text: str, destination: str, port: int
) -> None:
    monkeypatch.chdir(REPOSITORY)
    head = parse_address(text)
    assert (head.login.destination, head.dashboard_port) == (destination, port)
    assert (head.login.key is not None) == ("10.0.0.1" in text)


@pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "a b", "http://head:8265", "head:99999", "a@b@c", "head;ls"])
def test_what_is_no_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--address must be"):
        parse_address(text)


def test_the_head_tells_what_is_there(home: Path) -> None:
    (home / ".ray").mkdir(exist_ok=True)
    (home / ".ray" / "auth_token").write_text("secret-token\n")
    facts = ask_head(parse_address("head"), "fresh", "results")
    assert facts.folder == str(home / "tune_cifar" / "results" / "fresh")
    assert (facts.folder_exists, facts.token) == (False, "secret-token")
    assert "secret-token" not in repr(facts)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "not installed in ~/tune_cifar"),
        ("echo hello", "does not work: hello"),
        ("exit 127", "does not work: no answer"),
        ("echo Welcome; echo '{facts}'", "ray is 2.1 there and .* here; tune-cifar is missing there"),
    ],
)
def test_a_head_that_cannot_run_the_search_is_refused(home: Path, program: str | None, message: str) -> None:
    facts = asdict(ask_head(parse_address("head"), "fresh", "results")) | {"ray": "2.1", "tune_cifar": None}
    project = home / "tune_cifar"
    project.rename(home / "kept")
    try:
        if program is not None:
            (project / ".venv" / "bin").mkdir(parents=True)
            python = project / ".venv" / "bin" / "python"
            python.write_text("#!/bin/sh\n" + program.replace("{facts}", json.dumps(facts)) + "\n")
            python.chmod(0o700)
        with pytest.raises(UserError, match=message):
            ask_head(parse_address("head"), "fresh", "results")
    finally:
        if project.exists():
            project.rename(home / f"broken-{len(list(home.iterdir()))}")
        (home / "kept").rename(project)


def test_files_go_there_and_results_come_back_without_checkpoints(home: Path, tmp_path: Path) -> None:
    head = parse_address("head")
    facts = ask_head(head, "one", "results")
    (tmp_path / "my sweep.yaml").write_text("method: random\n")
    earlier = tmp_path / "an earlier one"
    (earlier / "ray").mkdir(parents=True)
    (earlier / "trials.csv").write_text("number\n")
    sent = send_files(head, facts, "one", tmp_path / "my sweep.yaml", [earlier, earlier / "trials.csv"])
    project = home / "tune_cifar"
    assert (project / str(sent.sweep)).read_text() == "method: random\n"
    assert sorted(path.name for path in (project / sent.priors[0]).iterdir()) == ["trials.csv"]
    assert (project / sent.priors[1]).read_text() == "number\n"

    local = tmp_path / "results" / "one"
    assert not fetch_results(head, facts.folder, local)
    assert not local.exists()
    theirs = Path(facts.folder)
    for name in ("ray/checkpoint", "best/model.pth", "wandb/ray/run", "report.html"):
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_text("1")
    assert fetch_results(head, facts.folder, local)
    (theirs / "report.html").write_text("a later one")
    assert fetch_results(parse_address("head:8300"), facts.folder, local)
    got = {str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()}
    assert got == {"best/model.pth", "wandb/ray/run", "report.html", "cluster.json"}
    assert (local / "report.html").read_text() == "a later one"


def test_fetched_results_are_mixed_with_nothing_else(tmp_path: Path, home: Path) -> None:
    facts = ask_head(parse_address("head"), "two", "results")
    Path(facts.folder).mkdir(parents=True, exist_ok=True)
    local = tmp_path / "two"
    assert fetch_results(parse_address("head"), facts.folder, local)
    check_local(local, "user@head", facts.folder)
    with pytest.raises(UserError, match="--address head --resume --name two"):
        check_runs_here(local)
    for address, folder in (("other", facts.folder), ("head", "/mnt/two")):
        with pytest.raises(UserError, match="holds something else"):
            check_local(local, address, folder)
    (local / "cluster.json").unlink()
    check_runs_here(local)
    with pytest.raises(UserError, match="holds something else"):
        check_local(local, "head", facts.folder)


def test_a_remote_folder_that_needs_quotes_is_refused(home: Path) -> None:
    with pytest.raises(UserError, match="--remote-results must be"):
        ask_head(parse_address("head"), "x", "/mnt/my results")
