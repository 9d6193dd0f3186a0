from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cluster.loopback_sshd import loopback_sshd, why_no_sshd
from tune_cifar.cluster import remote_job
from tune_cifar.cluster.remote import _exit_code
from tune_cifar.cluster.remote_head import Head, HeadFacts
from tune_cifar.cluster.remote_job import ConnectionLostError, remote_jobs
from tune_cifar.cluster.ssh_tunnel import SshLogin
from tune_cifar.errors import UserError

FACTS = HeadFacts("/p", "3.11", "2", "0", "/p/results/x", folder_exists=False, token="of-the-head")  # noqa: S106 - none
OURS = json.dumps({"ray_version": version("ray")})


class Dashboard(ThreadingHTTPServer):
    """Answers every request for a path with that path's status and body, and keeps the tokens that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, tuple[int, str]] = {}
        self.tokens: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers["Authorization"])
        status, body = self.server.replies.get(self.path, (404, ""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if reason := why_no_sshd():
        pytest.skip(reason)
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as folder:
        yield folder


@pytest.fixture
def dashboard(programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    with Dashboard() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def head(server: Dashboard) -> Head:
    return Head("head", SshLogin("head"), server.server_address[1])


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, '{"ray_version": "2.1.0"}', "head runs Ray 2.1.0, this machine has"),
        (200, "<html>", "is no Ray"),
        (404, "", r"is no Ray \(404"),
        (403, "", "does not take the token of ~/.ray/auth_token there. "),
    ],
)
def test_what_answers_must_be_a_ray_of_our_version_that_takes_the_token(
    dashboard: Dashboard, status: int, body: str, message: str
) -> None:
    dashboard.replies["/api/version"] = (status, body)
    with pytest.raises(UserError, match=message), remote_jobs(head(dashboard), FACTS, print):
        pass
    assert dashboard.tokens == ["Bearer of-the-head"]


def test_neither_a_proxy_nor_another_rays_address_is_in_the_way(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.com")
    dashboard.replies = {"/api/version": (200, OURS), "/api/jobs/": (200, "[]")}
    with remote_jobs(head(dashboard), FACTS, print) as jobs:
        assert jobs.of_search("x") == []
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"
    assert os.environ["no_proxy"] == "example.com"


def test_a_server_that_fails_again_and_again_is_given_up(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_job, "_MOST_BREAKS", 1)
    dashboard.replies = {"/api/version": (200, OURS), "/api/jobs/": (500, "no agent")}
    said: list[str] = []
    with remote_jobs(head(dashboard), FACTS, said.append) as jobs:
        with pytest.raises(ConnectionLostError, match="500: no agent"):
            jobs.of_search("x")
        assert len(said) == 1


def test_a_head_that_does_not_come_back_is_given_up(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_job, "PATIENCE_SECONDS", 0.5)
    dashboard.replies = {"/api/version": (200, OURS)}
    with remote_jobs(head(dashboard), FACTS, print) as jobs:
        dashboard.shutdown()
        dashboard.socket.close()
        with pytest.raises(ConnectionLostError, match="did not come back: No Ray answers"):
            jobs.of_search("x")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [(0, "SUCCEEDED", 0), (2, "FAILED", 2), (-9, "FAILED", 137), (None, "STOPPED", 143), (None, "FAILED", 1)],
)
def test_the_exit_code_is_the_searchs_own(code: int | None, status: str, expected: int) -> None:
    assert _exit_code(SimpleNamespace(driver_exit_code=code, status=status)) == expected
