"""A loopback HTTP server that notes what it is asked and fails on purpose, the base of every store of these tests."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `path` is without the query and unquoted."""

    method: str
    path: str
    target: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Reply:
    """What is answered."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """`times` requests whose "METHOD /path" starts with `start` fail.

    "status" answers `status`; "drop" breaks the connection before the work is done and "drop after" when it is, "break"
    when half of the request's body has arrived;
    "hang" never answers; "slow" answers as it should after `delay_seconds`; "cut" breaks off within its answer.
    """

    start: str
    kind: Literal["status", "break", "drop", "drop after", "hang", "slow", "cut"] = "status"
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"message": "planned"}'
    times: int = 1
    delay_seconds: float = 0.0


def json_reply(content: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


class LoopbackServer(ThreadingHTTPServer):
    """Serves `answer` on a free loopback port inside `with`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def asked(self, start: str) -> list[Request]:
        """The requests whose "METHOD /path" starts with `start`."""
        return [request for request in self.requests if f"{request.method} {request.path}".startswith(start)]

    def take_fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and f"{request.method} {request.path}".startswith(fault.start):
                fault.times -= 1
                return fault
        return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no fault of the test; an answer that could not be made is."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackServer

    def handle_one(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(self.command, unquote(parts.path), self.path, query, headers, b"")
        with self.server.lock:
            fault = self.server.take_fault(request)
        if fault and fault.kind == "break":
            self.rfile.read(int(headers.get("content-length", 0)) // 2)
            self.close_connection = True
            return
        request = replace(request, body=self._body(headers))
        with self.server.lock:
            self.server.requests.append(request)
            reply = Reply()
            if fault is None or fault.kind in ("drop after", "slow", "cut"):
                reply = self.server.answer(request)
        if fault and fault.kind == "hang":
            self.server.ended.wait(60)
        if fault and fault.kind == "slow":
            self.server.ended.wait(fault.delay_seconds)
        elif fault and fault.kind not in ("status", "cut"):
            self.close_connection = True
            return
        if fault and fault.kind == "status":
            reply = Reply(fault.status, fault.body, {"Content-Type": "application/json", **fault.headers})
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in reply.headers:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        body = reply.body
        if fault and fault.kind == "cut":
            body, self.close_connection = body[: len(body) // 2], True
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_one  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content
