"""Paperspace machines as the nodes of a Ray cluster, for `ray up cluster-paperspace.yaml`.

Ray's interface: https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html (`type: external`)
and ray.autoscaler.node_provider. It has not been tried on the real service, only on a local server that speaks the
documented protocol.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    STATUS_UNINITIALIZED,
    STATUS_UP_TO_DATE,
    STATUS_UPDATE_FAILED,
    TAG_RAY_CLUSTER_NAME,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

from tune_cifar.cluster.paperspace.deletion import Deletion
from tune_cifar.cluster.paperspace.errors import launch_error, told
from tune_cifar.cluster.paperspace.launch import wait_until_ready
from tune_cifar.cluster.paperspace.machines import Machine, MachinesApi, api_url
from tune_cifar.cluster.paperspace.node_names import NodeName, parse_name
from tune_cifar.cluster.paperspace.settings import NodeSettings, check_cluster, read_api_key, read_node, read_provider
from tune_cifar.cluster.paperspace.startup_script import ensure_startup_script
from tune_cifar.publish.http_api import JsonApi
from tune_cifar.publish.retry import PublishError, RetryPolicy

logger = logging.getLogger(__name__)
# Others than these only matter to the process that sets them, which is the one that sets the machine up.
_KEPT_STATUSES = frozenset({STATUS_UNINITIALIZED, STATUS_UP_TO_DATE, STATUS_UPDATE_FAILED})
_FRESH_SECONDS = 5.0


class PaperspaceNodeProvider(NodeProvider):  # type: ignore[misc]  # Ray has no types
    """Creates, lists and deletes the machines of one cluster; every method may be called from any thread.

    What a machine is stands in its name, so the laptop and the head see the same cluster. The tags that only say how
    far its set-up is are kept in this process: without them Ray sets a machine up again, which does no harm.
    """

    policy = RetryPolicy()
    poll_seconds = 5.0

    @told
    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._settings = read_provider(provider_config)
        key = read_api_key(self._settings.api_key_file)
        self._api = MachinesApi(JsonApi(api_url(), key, self.policy.reply_seconds), self.policy, logger.warning)
        self._deletion = Deletion(self._api)
        self._lock = threading.Lock()
        self._script_lock = threading.Lock()
        self._seen: dict[str, tuple[float, Machine]] = {}  # by id, with the time at which the API said so
        self._tags: dict[str, dict[str, str]] = {}  # by the unique part of the name

    @staticmethod
    @told
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        """The file with the public key in it, after everything in it was checked."""
        provider = dict(cluster_config["provider"])
        auth = cluster_config["auth"]
        provider.setdefault("ssh_user", auth.get("ssh_user", "paperspace"))
        public_key = Path(f"{auth.get('ssh_private_key', '')}.pub").expanduser()
        if "ssh_public_key" not in provider and public_key.is_file():
            provider["ssh_public_key"] = public_key.read_text().strip()
        check_cluster(cluster_config, provider)
        return {**cluster_config, "provider": provider}

    def prepare_for_head_node(self, cluster_config: dict[str, Any]) -> dict[str, Any]:
        """The file for the head: the key to the API stays there, the workers do not get it."""
        mounts = dict(cluster_config["file_mounts"])
        mounts.pop(str(self.provider_config.get("api_key_file")), None)
        return {**cluster_config, "file_mounts": mounts}

    @told
    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """The ids of the machines with these tags, less those that are being deleted."""
        return [node_id for node_id in self.nodes_for_teardown(tag_filters) if not self._deletion.is_pending(node_id)]

    @told
    def nodes_for_teardown(self, tag_filters: dict[str, str]) -> list[str]:
        """The ids of all machines with these tags that still exist: `ray down` asks until there are none."""
        now = time.monotonic()
        mine = {machine.id: (now, machine) for machine in self._api.machines() if self._is_mine(machine)}
        with self._lock:
            self._seen = mine
        return [node_id for node_id in mine if _has(self.node_tags(node_id), tag_filters)]

    def is_running(self, node_id: str) -> bool:
        """Whether the machine is up."""
        machine = self._look_up(node_id, _FRESH_SECONDS)
        return machine is not None and machine.state == "ready"

    def is_terminated(self, node_id: str) -> bool:
        """Whether the machine is gone, or on its way."""
        return self._deletion.is_pending(node_id) or self._look_up(node_id, _FRESH_SECONDS) is None

    def node_tags(self, node_id: str) -> dict[str, str]:
        """The tags that the name tells, and those that this process has set."""
        machine = self._look_up(node_id)
        name = parse_name(machine.name) if machine else None
        if name is None:
            return {}
        with self._lock:
            return {**_tags_of(name), **self._tags.get(name.unique, {})}

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        """Keep the tags; the status goes into the name when it says whether the machine is of use."""
        machine = self._look_up(node_id)
        name = parse_name(machine.name) if machine else None
        if machine is None or name is None:
            return
        with self._lock:
            self._tags.setdefault(name.unique, {}).update(tags)
        status = tags.get(TAG_RAY_NODE_STATUS, name.status)
        if status != name.status and status in _KEPT_STATUSES:
            self._rename(machine, NodeName(**{**vars(name), "status": status}))

    def external_ip(self, node_id: str) -> str | None:
        """The address by which the laptop reaches the machine, once it has one."""
        machine = self._look_up(node_id)
        if machine is not None and machine.public_ip is None:
            machine = self._look_up(node_id, _FRESH_SECONDS)
        return machine.public_ip if machine else None

    def internal_ip(self, node_id: str) -> str | None:
        """The address in the private network, once the machine has one."""
        machine = self._look_up(node_id)
        if machine is not None and machine.private_ip is None:
            machine = self._look_up(node_id, _FRESH_SECONDS)
        return machine.private_ip if machine else None

    @told
    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, dict[str, Any]]:
        """Create `count` machines and wait until they are ready; the ids, with no data to them.

        Raises `LaunchError`. What did not become ready is deleted again before; what did stays.
        """
        node = read_node(node_config)
        with self._script_lock:  # two threads would each make one
            script_id = ensure_startup_script(self._api, self._settings)
        body = {**self._request(node), "startupScriptId": script_id}
        made: list[Machine] = []
        refusal: PublishError | None = None
        for _ in range(count):
            name = self._new_name(tags)
            with self._lock:
                self._tags[name.unique] = dict(tags)  # before the machine can show up in a list
            try:
                made.append(self._api.create({**body, "name": str(name)}))
            except PublishError as error:
                refusal = error
                break
        ready = wait_until_ready(
            self._api, self._deletion, made, self._settings.ready_minutes * 60, self.poll_seconds, logger.warning
        )
        if refusal is not None:
            raise launch_error(refusal, node, self._settings, self._api)
        return {machine.id: {} for machine in ready}

    def terminate_node(self, node_id: str) -> None:
        """Delete one machine."""
        self.terminate_nodes([node_id])

    @told
    def terminate_nodes(self, node_ids: list[str]) -> None:
        """Delete machines; raises with the ids of those that cannot be, and how to do it by hand."""
        self._deletion.ask(node_ids)

    def _request(self, node: NodeSettings) -> dict[str, Any]:
        return {
            **node.model_dump(by_alias=True),
            "region": self._settings.region,
            "networkId": self._settings.network_id,
            "startOnCreate": True,
            # A net under everything else: a machine that nobody deleted stops costing GPU hours.
            "autoShutdownEnabled": True,
            "autoShutdownTimeout": self._settings.auto_shutdown_hours,
            "autoShutdownForce": True,
        }

    def _new_name(self, tags: Mapping[str, str]) -> NodeName:
        return NodeName(
            cluster=self.cluster_name,
            kind=tags[TAG_RAY_NODE_KIND],
            node_type=tags[TAG_RAY_USER_NODE_TYPE],
            status=tags.get(TAG_RAY_NODE_STATUS, STATUS_UNINITIALIZED),
            launch_hash=tags[TAG_RAY_LAUNCH_CONFIG],
            unique=secrets.token_hex(4),
        )

    def _rename(self, machine: Machine, name: NodeName) -> None:
        try:
            self._api.rename(machine.id, str(name))
        except PublishError as error:
            logger.warning(f"{machine.id} keeps the status {machine.name} in its name: {error}")
            return
        self._look_up(machine.id, 0)

    def _is_mine(self, machine: Machine) -> bool:
        name = parse_name(machine.name)
        return name is not None and name.cluster == self.cluster_name

    @told
    def _look_up(self, node_id: str, at_most_seconds: float = float("inf")) -> Machine | None:
        """What is known of a machine, asked for anew where that is older than `at_most_seconds`."""
        with self._lock:
            seen_seconds, machine = self._seen.get(node_id, (float("-inf"), None))
        if time.monotonic() - seen_seconds <= at_most_seconds and machine is not None:
            return machine
        machine = self._api.machine(node_id)
        with self._lock:
            if machine is None:
                self._seen.pop(node_id, None)
            else:
                self._seen[node_id] = (time.monotonic(), machine)
        return machine


def _tags_of(name: NodeName) -> dict[str, str]:
    return {
        TAG_RAY_CLUSTER_NAME: name.cluster,
        TAG_RAY_NODE_NAME: f"ray-{name.cluster}-{name.kind}",
        TAG_RAY_NODE_KIND: name.kind,
        TAG_RAY_USER_NODE_TYPE: name.node_type,
        TAG_RAY_NODE_STATUS: name.status,
        TAG_RAY_LAUNCH_CONFIG: name.launch_hash,
    }


def _has(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(tags.get(name) == value for name, value in wanted.items())
