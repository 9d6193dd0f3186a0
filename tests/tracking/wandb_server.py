"""A loopback W&B server: the part of the protocol that the real client needs, so that no test uses a network.

It answers GraphQL (who am I, create or resume a run, create a sweep, upload an artifact), takes the rows that
file_stream brings and keeps them a run at a time, so that a test can compare what arrived with what was logged.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tests.tracking.wandb_artifacts import ArtifactStore, ServedArtifact


@dataclass
class ServedRun:
    """What the server knows of one run."""

    run_id: str
    display_name: str = ""
    group: str = ""
    notes: str = ""
    sweep: str = ""
    project: str = ""
    entity: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows without the client's own columns, the step kept."""
        return [
            {key: value for key, value in row.items() if key == "_step" or not key.startswith("_")} for row in self.rows
        ]


@dataclass
class ServedSweep:
    """What the server knows of one sweep."""

    config: dict[str, Any]
    project: str
    entity: str
    state: str = "PENDING"


class WandbServer(ThreadingHTTPServer):
    """Serves on a loopback port (0: a free one) inside `with`; `reject_keys` answers 401, `stopped` names runs to stop.

    After `hang()` it takes connections and requests, and answers none until it dies. `trouble` may hold a request up,
    or return the status with which to refuse it; it is given what is asked for ("rows" or "graphql").
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, *, reject_keys: bool = False, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.runs: dict[str, ServedRun] = {}
        self.sweeps: dict[str, ServedSweep] = {}
        self.refuse_sweeps = False
        self.artifact_store = ArtifactStore()
        self.stopped: set[str] = set()
        self.reject_keys = reject_keys
        self.trouble: Callable[[str], int | None] = lambda asked_for: None
        self.keys: set[str] = set()
        self.lock = threading.Lock()
        self.answering = threading.Event()
        self.answering.set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The base URL for WANDB_BASE_URL."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def artifacts(self) -> list[ServedArtifact]:
        """The artifacts that arrived, in order."""
        return self.artifact_store.artifacts

    def hang(self) -> None:
        """Answer nothing from here on."""
        self.answering.clear()

    def __enter__(self) -> WandbServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()

    def die(self) -> None:
        """Close the port, as a server that goes down does; may be called twice."""
        self.answering.set()
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no fault of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def do_POST(self) -> None:
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        _user, _, key = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).partition(b":")
        self.server.answering.wait()
        refusal = self.server.trouble("rows" if path.endswith("/file_stream") else "graphql")
        with self.server.lock:
            self.server.keys.add(key.decode())
            if refusal is not None:
                self._answer({"errors": [{"message": "trouble"}]}, status=refusal)
            elif self.server.reject_keys:
                self._answer({"errors": [{"message": "user is not logged in"}]}, status=401)
            elif self.server.refuse_sweeps and "upsertSweep" in body.get("query", ""):
                self._answer({"data": None, "errors": [{"message": "invalid sweep config"}]})
            elif path == "/graphql":
                self._answer({"data": self._graphql(body["query"], body.get("variables") or {})})
            elif path.endswith("/file_stream"):
                self._answer(self._file_stream(path.split("/")[-2], body))
            else:
                self._answer({}, status=404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.answering.wait()
        with self.server.lock:
            self.server.artifact_store.put(unquote(urlsplit(self.path).path), content)
        self._answer({})

    def do_GET(self) -> None:
        self.server.answering.wait()
        with self.server.lock:
            content = self.server.artifact_store.get(unquote(urlsplit(self.path).path))
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def _body(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        return content

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertBucket" in query:
            inserted = bool(variables.get("name")) and variables["name"] not in self.server.runs
            return {"upsertBucket": {"bucket": self._upsert(variables), "inserted": inserted}}
        if "query ArtifactType" in query:
            return {"project": {"artifact": None}}
        if "query RunResumeStatus" in query:
            known = self.server.runs.get(variables["name"])
            return {"model": {"id": "cA==", "name": "p", "bucket": _resume_status(known) if known else None}}
        if "createRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"{self.server.url}/put/{name}"} for name in variables.get("files", [])
            ]
            return {"createRunFiles": {"runID": "cg==", "uploadHeaders": [], "files": files}}
        if "upsertSweep" in query:
            return {"upsertSweep": self._upsert_sweep(variables)}
        if "query Viewer" in query or "query Login" in query:
            return {
                "viewer": {
                    "id": "v",
                    "entity": "tester",
                    "username": "tester",
                    "flags": "{}",
                    "teams": {"edges": []},
                }
            }
        return self.server.artifact_store.graphql(query, variables, self.server.url) or {}

    def _upsert_sweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        if variables.get("id"):
            self.server.sweeps[variables["id"]].state = variables["state"]
            return {"sweep": {"name": variables["id"]}}
        project, entity = variables.get("projectName") or "uncategorized", variables.get("entityName") or "tester"
        name = f"sweep{len(self.server.sweeps) + 1}"
        self.server.sweeps[name] = ServedSweep(yaml.safe_load(variables["config"]), project, entity)
        place = {"name": project, "entity": {"name": entity}}
        return {"sweep": {"id": name, "name": name, "project": place}, "configValidationWarnings": []}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        run_id = variables.get("name") or base64.b64decode(variables["id"]).decode()
        run = self.server.runs.setdefault(run_id, ServedRun(run_id))
        run.display_name = variables.get("displayName") or run.display_name
        run.group = variables.get("groupName") or run.group
        run.notes = variables.get("notes") or run.notes
        run.project = variables.get("project") or run.project
        run.entity = variables.get("entity") or run.entity
        run.sweep = variables.get("sweep") or run.sweep
        if variables.get("tags") is not None:
            run.tags = variables["tags"]
        if variables.get("config"):
            run.config = {name: entry["value"] for name, entry in json.loads(variables["config"]).items()}
        if variables.get("summaryMetrics"):
            run.summary = json.loads(variables["summaryMetrics"])
        project = {
            "id": "cA==",
            "name": variables.get("project") or "p",
            "entity": {"id": "ZQ==", "name": "tester"},
        }
        return {
            "id": base64.b64encode(run_id.encode()).decode(),
            "name": run_id,
            "displayName": run.display_name,
            "config": "{}",
            "sweepName": run.sweep or None,
            "project": project,
            "historyLineCount": len(run.rows),
        }

    def _file_stream(self, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        run = self.server.runs[run_id]
        files = body.get("files") or {}
        history = files.get("wandb-history.jsonl")
        if history:
            rows = [json.loads(line) for line in history["content"]]
            run.rows[history["offset"] : history["offset"] + len(rows)] = rows
        summary = files.get("wandb-summary.json")
        if summary:
            run.summary = json.loads(summary["content"][-1])
        if body.get("complete"):
            run.exit_code = body["exitcode"]
        return {"stopped": run_id in self.server.stopped}


def _resume_status(run: ServedRun) -> dict[str, Any]:
    last_row = json.dumps(run.rows[-1]) if run.rows else "{}"
    return {
        "id": base64.b64encode(run.run_id.encode()).decode(),
        "name": run.run_id,
        "summaryMetrics": json.dumps(run.summary),
        "displayName": run.display_name,
        "logLineCount": 0,
        "historyLineCount": len(run.rows),
        "eventsLineCount": 0,
        "historyTail": json.dumps([last_row]) if run.rows else "[]",
        "eventsTail": "[]",
        "config": json.dumps({name: {"value": value} for name, value in run.config.items()}),
        "tags": run.tags,
        "notes": run.notes,
        "wandbConfig": json.dumps({"t": 1}),
    }
