"""Paperspace's v1 API as far as a cluster needs it, on the loopback.

Made after https://docs.digitalocean.com/reference/paperspace/api-reference/machine, …/machine-types/ and the schema
of the official command line (https://github.com/Paperspace/cli, api/openapi.ts). Not documented, and so a guess here:
the status and words of a refusal, how long a deleted machine stays listed, and what a lost request leaves behind.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from tests.publish.loopback import LoopbackServer, Reply, Request, json_reply

KEY = "planted-paperspace-key"
PAGE_SIZE = 2
REQUIRED = {"name", "machineType", "templateId", "diskSize", "region"}
OPTIONAL = {
    "networkId",
    "publicIpType",
    "startupScriptId",
    "startOnCreate",
    "enableNvlink",
    "autoShutdownEnabled",
    "autoShutdownForce",
    "autoShutdownTimeout",
}


class MachinesServer(LoopbackServer):
    """Machines that are ready after `boot_seconds`, and gone `deletion_seconds` after they were deleted.

    `refusals` are answers, each as often as its count, to requests for machines; `never_ready` and `failed_events`
    (reasons) hold for the machines made while they are set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.machines: dict[str, dict[str, Any]] = {}
        self.scripts: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.boot_seconds = 0.0
        self.deletion_seconds = 0.0
        self.never_ready = False
        self.failed_event: str | None = None
        self.undeletable: set[str] = set()
        self.is_available = True
        self.ever_made = 0
        self.templates = [
            {
                "id": "tgpu",
                "name": "ML-in-a-Box",
                "availableMachineTypes": [{"machineTypeLabel": "A4000", "isAvailable": True}],
            }
        ]

    @property
    def names(self) -> list[str]:
        return [machine["name"] for machine in self.machines.values()]

    def answer(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, "Unauthorized")
        self._let_time_pass()
        _, version, kind, *rest = request.path.split("/")
        assert version == "v1"
        match request.method, kind, rest:
            case "GET", "machines", []:
                return self._page(request, list(self.machines.values()))
            case "GET", "startup-scripts", []:
                return self._page(request, list(self.scripts.values()))
            case "GET", "os-templates", []:
                return self._page(request, self.templates)
            case "GET", "custom-templates", []:
                return self._page(request, [])
            case "GET", "machine-events", []:
                wanted = request.query["machineId"]
                return self._page(request, [event for event in self.events if event["machineId"] == wanted])
            case "GET", "machine-availability", []:
                assert set(request.query) == {"machineType", "region"}
                return json_reply({"available": self.is_available})
            case "POST", "machines", []:
                return self._create(request.json())
            case "POST", "startup-scripts", []:
                return self._script(request.json())
            case _, "machines", [machine_id]:
                return self._one(request, machine_id)
        return _error(404, f"no such place: {request.method} {request.path}")

    def _one(self, request: Request, machine_id: str) -> Reply:
        machine = self.machines.get(machine_id)
        if machine is None:
            return _error(404, "machine not found")
        if request.method == "PUT":
            assert set(request.json()) == {"name"}
            machine["name"] = request.json()["name"]
        elif request.method == "DELETE" and machine_id not in self.undeletable:
            machine.setdefault("_gone_at", time.monotonic() + self.deletion_seconds)
            self._let_time_pass()
        return json_reply(_shown(machine) if request.method == "GET" else {"data": _shown(machine), "event": {}})

    def _create(self, body: dict[str, Any]) -> Reply:
        assert set(body) >= REQUIRED, f"missing: {REQUIRED - set(body)}"
        assert set(body) <= REQUIRED | OPTIONAL, f"not documented: {set(body) - REQUIRED - OPTIONAL}"
        if body["machineType"] not in ("A4000", "A6000") or body["templateId"] not in ("tgpu", "told"):
            return _error(400, "Invalid request")
        if not self.is_available:
            return _error(409, "Cannot create the machine")
        self.ever_made += 1
        machine_id = f"ps{self.ever_made:06}"
        self.machines[machine_id] = {
            "id": machine_id,
            "name": body["name"],
            "state": "provisioning",
            "machineType": body["machineType"],
            "region": body["region"],
            "privateIp": f"10.0.0.{self.ever_made}",
            "publicIp": None if body.get("publicIpType") == "none" else f"198.51.100.{self.ever_made}",
            "usageRate": 0.76,
            "storageRate": 0.01,
            "dtCreated": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "dtDeleted": None,
            "_ready_at": float("inf") if self.never_ready else time.monotonic() + self.boot_seconds,
        }
        if self.failed_event:
            event = {"name": "create", "state": "error", "error": self.failed_event, "machineId": machine_id}
            self.events.append(event)
        return json_reply({"data": _shown(self.machines[machine_id]), "event": {"id": "e1", "state": "new"}})

    def _script(self, body: dict[str, Any]) -> Reply:
        assert set(body) == {"name", "script", "isRunOnce"}
        script_id = f"script{len(self.scripts) + 1}"
        self.scripts[script_id] = {"id": script_id, "dtDeleted": None, **body}
        return json_reply(self.scripts[script_id])

    def _page(self, request: Request, items: list[dict[str, Any]]) -> Reply:
        assert 1 <= int(request.query["limit"]) <= 120
        start = int(request.query.get("after", 0))
        page = [_shown(item) for item in items[start : start + PAGE_SIZE]]
        more = start + PAGE_SIZE < len(items)
        return json_reply({"hasMore": more, "items": page} | ({"nextPage": str(start + PAGE_SIZE)} if more else {}))

    def _let_time_pass(self) -> None:
        now = time.monotonic()
        for machine in list(self.machines.values()):
            if machine["state"] == "provisioning" and now >= machine["_ready_at"]:
                machine["state"] = "ready"
            if now >= machine.get("_gone_at", float("inf")):
                del self.machines[machine["id"]]


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in json.loads(json.dumps(item)).items() if not key.startswith("_")}


def _error(status: int, message: str) -> Reply:
    return json_reply({"code": "CODE", "message": message}, status=status)
