"""The machines of a Paperspace team by its v1 API, each call tried again while the service is busy.

Written after https://docs.digitalocean.com/reference/paperspace/api-reference/machine and the schema of the official
command line (https://github.com/Paperspace/cli, api/openapi.ts). It has not been tried on the real service.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tune_cifar.errors import UserError
from tune_cifar.publish.http_api import PAPERSPACE_URL, JsonApi
from tune_cifar.publish.retry import PublishError, RetryPolicy, TransientError, with_retries

_PAGE_SIZE = 120  # the most that the API takes
_NOT_FOUND = 404


@dataclass(frozen=True)
class Machine:
    """One machine. `state` is one of off, starting, stopping, restarting, serviceready, ready, upgrading, provisioning.

    The API does not say in which unit `usage_rate` and `storage_rate` are; both are None where it gives none.
    """

    id: str
    name: str
    state: str
    machine_type: str
    private_ip: str | None
    public_ip: str | None
    created: datetime | None
    usage_rate: float | None
    storage_rate: float | None


@dataclass(frozen=True)
class MachinesApi:
    """The calls that a cluster needs; all raise `PublishError` when the service refuses or stays busy."""

    api: JsonApi
    policy: RetryPolicy
    say: Callable[[str], None]

    def machines(self) -> list[Machine]:
        """Every machine of the team, of whatever cluster."""
        return [_read(item) for item in self.items("/machines") if not item.get("dtDeleted")]

    def machine(self, machine_id: str) -> Machine | None:
        """One machine, or None when there is none any more."""
        try:
            item = self._call("GET", f"/machines/{machine_id}")
        except PublishError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return None if item.get("dtDeleted") else _read(item)

    def create(self, body: Mapping[str, Any]) -> Machine:
        """Ask for one machine; where an answer was lost, the machine of that name is looked for before asking again."""
        may_exist = False

        def ask() -> Machine:
            nonlocal may_exist
            if may_exist and (found := self._named(body["name"])):
                return found
            may_exist = True
            return _read(self.api.request("POST", "/machines", body=body).get("data"))

        try:
            return with_retries(ask, self.policy, self.say)
        except TransientError:
            if found := self._named(body["name"]):
                return found
            raise

    def rename(self, machine_id: str, name: str) -> None:
        """Give a machine another name; nothing else about it changes."""
        self._call("PUT", f"/machines/{machine_id}", body={"name": name})

    def delete(self, machine_id: str) -> None:
        """Ask for the end of a machine, which takes the service a while; one that is gone already is no fault."""
        try:
            self._call("DELETE", f"/machines/{machine_id}")
        except PublishError:
            if self.machine(machine_id) is not None:
                raise

    def creation_failure(self, machine_id: str) -> str | None:
        """Why the service gave up creating a machine, or None while it has not."""
        for event in self.items("/machine-events", {"machineId": machine_id}):
            if event.get("name") == "create" and event.get("state") in ("error", "cancelled"):
                return str(event.get("error") or event["state"])
        return None

    def startup_script(self, name: str, script: str) -> str:
        """The id of the script of that name, made on first use; it runs once, at a machine's first boot."""

        def ensure() -> str:
            for item in self.items("/startup-scripts"):
                if item.get("name") == name and not item.get("dtDeleted"):
                    return str(item["id"])
            body = {"name": name, "script": script, "isRunOnce": True}
            return str(self.api.request("POST", "/startup-scripts", body=body)["id"])

        return with_retries(ensure, self.policy, self.say)

    def is_available(self, machine_type: str, region: str) -> bool:
        """Whether the service has such machines now (`GET /machine-availability`)."""
        query = {"machineType": machine_type, "region": region}
        return bool(self._call("GET", "/machine-availability", query=query).get("available"))

    def items(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """Every item of a list, a page at a time."""
        asked = {"limit": str(_PAGE_SIZE), **(query or {})}
        seen: set[str] = set()
        while True:
            page = self._call("GET", path, query=asked)
            yield from page.get("items", [])
            if not page.get("hasMore"):
                return
            after = str(page.get("nextPage"))
            if after in seen:
                raise PublishError(f"GET {path}: the list never ends, its page after {after} leads back to itself")
            seen.add(after)
            asked["after"] = after

    def _named(self, name: str) -> Machine | None:
        return next((machine for machine in self.machines() if machine.name == name), None)

    def _call(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            return self.api.request(method, path, query=query, body=body)

        return with_retries(ask, self.policy, self.say)


def api_url() -> str:
    """The API's base address: PAPERSPACE_API_URL where it is set."""
    url = os.environ.get("PAPERSPACE_API_URL") or PAPERSPACE_URL
    if not url.startswith(("https://", "http://")):
        raise UserError(f"PAPERSPACE_API_URL must start with https://, got {url!r}.")
    return url.rstrip("/")


def _read(item: Any) -> Machine:
    try:
        created = item.get("dtCreated")
        return Machine(
            id=str(item["id"]),
            name=str(item["name"]),
            state=str(item["state"]),
            machine_type=str(item.get("machineType", "")),
            private_ip=item.get("privateIp"),
            public_ip=item.get("publicIp"),
            created=datetime.fromisoformat(created) if created else None,
            usage_rate=item.get("usageRate"),
            storage_rate=item.get("storageRate"),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise PublishError(f"a machine in the reply is not what the API is documented to send: {item!r}") from None
