"""The provider, got and driven as Ray does it, against the documented API with its faults."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.providers import _clear_provider_cache, _get_node_provider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    STATUS_SETTING_UP,
    STATUS_UNINITIALIZED,
    STATUS_UP_TO_DATE,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_LAUNCH_REQUEST,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_RUNTIME_CONFIG,
    TAG_RAY_USER_NODE_TYPE,
)

from tests.cluster.paperspace_server import KEY, MachinesServer
from tests.commands import run
from tests.publish.loopback import Fault
from tune_cifar.cluster.paperspace import launch
from tune_cifar.cluster.paperspace.errors import ClusterError, LaunchError
from tune_cifar.cluster.paperspace.node_provider import PaperspaceNodeProvider
from tune_cifar.publish.retry import RetryPolicy

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"
PROVIDER = {
    "type": "external",
    "module": "tune_cifar.cluster.paperspace.node_provider.PaperspaceNodeProvider",
    "region": "ny2",
    "network_id": "nprivate",
    "ssh_public_key": f"{PUBLIC_KEY} someone@laptop",
}
NODE = {"machineType": "A4000", "templateId": "tgpu", "diskSize": 50}
LAUNCH_HASH = "a1" * 26
Make = Callable[..., Any]


def tags(kind: str = NODE_KIND_WORKER, **changes: str) -> dict[str, str]:
    return {
        TAG_RAY_NODE_KIND: kind,
        TAG_RAY_NODE_NAME: f"ray-demo-{kind}",
        TAG_RAY_NODE_STATUS: STATUS_UNINITIALIZED,
        TAG_RAY_LAUNCH_CONFIG: LAUNCH_HASH,
        TAG_RAY_USER_NODE_TYPE: "gpu",
        **changes,
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MachinesServer]:
    with MachinesServer() as paperspace:
        monkeypatch.setenv("PAPERSPACE_API_URL", f"{paperspace.url}/v1")
        monkeypatch.setenv("PAPERSPACE_API_KEY", KEY)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield paperspace


@pytest.fixture
def make(server: MachinesServer, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Ray's own way to a provider, each as in a process of its own, with short waits."""
    policy = RetryPolicy(attempts=3, first_wait_seconds=0.01, reply_seconds=5, total_seconds=30)
    monkeypatch.setattr(PaperspaceNodeProvider, "policy", policy)
    monkeypatch.setattr(PaperspaceNodeProvider, "poll_seconds", 0.02)
    monkeypatch.setattr(launch, "DELETE_SECONDS", 0.3)

    def get(cluster: str = "demo", **changes: Any) -> Any:
        _clear_provider_cache()
        return _get_node_provider({**PROVIDER, **changes}, cluster)

    return get


def test_a_machine_is_what_the_file_asks_for(server: MachinesServer, make: Make) -> None:
    (node_id,) = make().create_node(NODE, tags(), 1)
    (request,) = server.asked("POST /v1/machines")
    body = request.json()
    assert body.pop("name").startswith(f"tune_cifar.demo.worker.gpu.uninitialized.{LAUNCH_HASH}.")
    assert body == {
        "machineType": "A4000",
        "templateId": "tgpu",
        "diskSize": 50,
        "publicIpType": "dynamic",
        "enableNvlink": False,
        "region": "ny2",
        "networkId": "nprivate",
        "startupScriptId": "script1",
        "startOnCreate": True,
        "autoShutdownEnabled": True,
        "autoShutdownTimeout": 24,
        "autoShutdownForce": True,
    }
    assert PUBLIC_KEY in server.scripts["script1"]["script"]
    assert node_id in server.machines


def test_the_startup_script_lets_the_key_in(server: MachinesServer, make: Make, tmp_path: Path) -> None:
    import getpass
    import subprocess

    make(ssh_user=getpass.getuser()).create_node(NODE, tags(), 1)
    # The login's home is looked up by getent: a stand-in leads to a folder of the test.
    (tmp_path / "getent").write_text(f"#!/bin/sh\necho x:x:0:0::{tmp_path}/home:/bin/sh\n")
    (tmp_path / "getent").chmod(0o755)
    (tmp_path / "home").mkdir()
    script = server.scripts["script1"]["script"]
    for _ in range(2):
        path = f"{tmp_path}:{os.environ['PATH']}"
        subprocess.run(["sh", "-c", script], check=True, env={"PATH": path})
    keys = tmp_path / "home" / ".ssh" / "authorized_keys"
    assert keys.read_text() == f"{PUBLIC_KEY}\n"
    assert keys.stat().st_mode & 0o777 == 0o600


def test_laptop_and_head_see_the_same_nodes(server: MachinesServer, make: Make) -> None:
    laptop, head, other = make(), make(), make("other")
    (head_id,) = laptop.create_node(NODE, tags(NODE_KIND_HEAD), 1)
    workers = head.create_node(NODE, tags(), 3)
    other.create_node(NODE, tags(NODE_KIND_HEAD), 1)
    server.machines["foreign"] = {**server.machines[head_id], "id": "foreign", "name": "my desktop"}
    for provider in (laptop, head, make()):
        assert set(provider.non_terminated_nodes({})) == {head_id, *workers}
        assert provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_HEAD}) == [head_id]
        # Ray asks for the new head by all of its tags, and makes another when the launch hash has changed.
        assert provider.non_terminated_nodes(tags(NODE_KIND_HEAD)) == [head_id]
        assert provider.node_tags(head_id)[TAG_RAY_LAUNCH_CONFIG] == LAUNCH_HASH
        assert provider.is_running(head_id)
        assert provider.external_ip(head_id) == "198.51.100.1"
        assert provider.internal_ip(head_id) == "10.0.0.1"
        assert provider.get_node_id("10.0.0.1", use_internal_ip=True) == head_id


def test_a_status_of_use_to_others_is_kept_in_the_name(server: MachinesServer, make: Make) -> None:
    provider = make()
    (node_id,) = provider.create_node(NODE, tags(**{TAG_RAY_LAUNCH_REQUEST: "request-1"}), 1)
    provider.set_node_tags(node_id, {TAG_RAY_NODE_STATUS: STATUS_SETTING_UP})
    assert provider.node_tags(node_id)[TAG_RAY_NODE_STATUS] == STATUS_SETTING_UP
    assert make().node_tags(node_id)[TAG_RAY_NODE_STATUS] == STATUS_UNINITIALIZED
    provider.set_node_tags(node_id, {TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE, TAG_RAY_RUNTIME_CONFIG: "hash"})
    assert make().node_tags(node_id)[TAG_RAY_NODE_STATUS] == STATUS_UP_TO_DATE
    mine = provider.node_tags(node_id)
    assert (mine[TAG_RAY_RUNTIME_CONFIG], mine[TAG_RAY_LAUNCH_REQUEST]) == ("hash", "request-1")
    assert len(server.asked("PUT")) == 1


def test_a_name_that_cannot_be_changed_is_told_and_no_more(
    server: MachinesServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    provider = make()
    (node_id,) = provider.create_node(NODE, tags(), 1)
    server.faults.append(Fault("PUT /v1/machines", status=400))
    provider.set_node_tags(node_id, {TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE})
    assert provider.node_tags(node_id)[TAG_RAY_NODE_STATUS] == STATUS_UP_TO_DATE
    assert "keeps the status" in caplog.text


@pytest.mark.parametrize("kind", ["drop after", "drop", "cut"])
def test_a_lost_answer_makes_no_second_machine(server: MachinesServer, make: Make, kind: Any) -> None:
    server.faults.append(Fault("POST /v1/machines", kind))
    (node_id,) = make().create_node(NODE, tags(), 1)
    assert list(server.machines) == [node_id]
    assert server.ever_made == 1


def test_a_machine_that_shows_up_late_after_a_lost_answer_is_not_paid_twice(server: MachinesServer, make: Make) -> None:
    # The list does not show the first machine when its answer is lost, so a second one is asked for.
    server.faults.append(Fault("POST /v1/machines", "drop after"))
    empty = b'{"hasMore": false, "items": []}'
    server.faults.append(Fault("GET /v1/machines", status=200, body=empty))
    provider = make()
    (node_id,) = provider.create_node(NODE, tags(), 1)
    assert server.ever_made == 2
    assert list(server.machines) == [node_id] == provider.non_terminated_nodes({})


def test_when_every_answer_is_lost_the_machine_is_found_by_its_name(server: MachinesServer, make: Make) -> None:
    server.faults.append(Fault("POST /v1/machines", "drop after"))
    server.faults.append(Fault("POST /v1/machines", "drop", times=2))
    (node_id,) = make().create_node(NODE, tags(), 1)
    assert list(server.machines) == [node_id]


@pytest.mark.parametrize(
    ("status", "message", "category", "hint"),
    [
        (403, "Forbidden", "no access", "PAPERSPACE_API_KEY"),
        (400, "You have reached your quota for A4000", "quota", "max_workers"),
        (409, "We are out of capacity", "no capacity", "another type or region"),
        (422, "Something else", "refused", "422 Something else"),
        (500, "oops", "service busy", "make cluster-list"),
    ],
)
def test_a_refusal_says_why(
    server: MachinesServer, make: Make, status: int, message: str, category: str, hint: str
) -> None:
    body = f'{{"code": "X", "message": "{message}"}}'.encode()
    server.faults.append(Fault("POST /v1/machines", status=status, body=body, times=9))
    with pytest.raises(LaunchError) as caught:
        make().create_node(NODE, tags(), 1)
    assert caught.value.category == category
    assert hint in caught.value.format_message()
    assert message in caught.value.format_message()
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - Ray hands it between processes
    assert (copy.category, copy.description) == (category, caught.value.description)
    assert server.machines == {}


@pytest.mark.parametrize(
    ("node", "hint"),
    [
        ({"templateId": "tnone"}, "There is no template tnone; there are: tgpu (ML-in-a-Box)"),
        ({"machineType": "Q9000"}, "Template tgpu is not offered for Q9000, but for: A4000"),
    ],
)
def test_what_the_service_calls_invalid_is_named(
    server: MachinesServer, make: Make, node: dict[str, str], hint: str
) -> None:
    with pytest.raises(LaunchError, match="wrong request") as caught:
        make().create_node({**NODE, **node}, tags(), 1)
    assert hint in caught.value.format_message()


def test_capacity_is_asked_for_where_the_words_do_not_tell(server: MachinesServer, make: Make) -> None:
    server.is_available = False
    with pytest.raises(LaunchError, match="no capacity"):
        make().create_node(NODE, tags(), 1)


def test_a_machine_that_never_becomes_ready_is_deleted_again(server: MachinesServer, make: Make) -> None:
    server.never_ready = True
    with pytest.raises(LaunchError, match=r"not ready after 0\.001 minutes") as caught:
        make(ready_minutes=0.001).create_node(NODE, tags(), 2)
    assert "deleted again" in caught.value.format_message()
    assert (server.ever_made, server.machines) == (2, {})


def test_a_machine_that_the_service_gives_up_is_deleted_at_once(server: MachinesServer, make: Make) -> None:
    server.never_ready, server.failed_event = True, "no host left"
    with pytest.raises(LaunchError, match="no host left"):
        make().create_node(NODE, tags(), 1)
    assert server.machines == {}


def test_a_machine_left_behind_is_named_with_the_command(server: MachinesServer, make: Make, tmp_path: Path) -> None:
    server.never_ready, server.undeletable = True, {"ps000001"}
    with pytest.raises(LaunchError, match="NOT DELETED, and still charged for") as caught:
        make(ready_minutes=0.001).create_node(NODE, tags(), 1)
    command = "python -m tune_cifar.cluster.paperspace --delete ps000001"
    assert command in caught.value.format_message()
    server.undeletable = set()
    result = run("cluster.paperspace", "--delete", "ps000001", "--expect-none", folder=tmp_path)
    assert (result.returncode, server.machines) == (0, {}), result.stderr


def test_part_of_what_was_asked_for_stays(server: MachinesServer, make: Make) -> None:
    provider = make()
    original = server.answer
    server.answer = lambda request: _after_two(server, request, original)  # type: ignore[method-assign]
    with pytest.raises(LaunchError, match="quota"):
        provider.create_node(NODE, tags(), 3)
    assert len(provider.non_terminated_nodes({})) == 2


def _after_two(server: MachinesServer, request: Any, answer: Any) -> Any:
    from tests.publish.loopback import json_reply

    if request.method == "POST" and request.path == "/v1/machines" and server.ever_made == 2:
        return json_reply({"code": "X", "message": "over quota"}, status=400)
    return answer(request)


def test_deleted_machines_are_gone_for_the_autoscaler_and_watched_by_ray_down(
    server: MachinesServer, make: Make
) -> None:
    server.deletion_seconds = 0.3
    provider = make()
    nodes = list(provider.create_node(NODE, tags(), 3))
    provider.terminate_nodes(nodes[:2])
    assert provider.non_terminated_nodes({}) == nodes[2:]
    assert provider.is_terminated(nodes[0])
    assert set(provider.nodes_for_teardown({})) == set(nodes)
    provider.terminate_nodes(nodes[:2])
    assert len(server.asked("DELETE")) == 2
    threading.Event().wait(0.4)
    assert provider.nodes_for_teardown({}) == nodes[2:]


def test_a_delete_that_fails_is_tried_again_and_then_named(server: MachinesServer, make: Make) -> None:
    provider = make()
    first, second, third = provider.create_node(NODE, tags(), 3)
    server.faults.append(Fault(f"DELETE /v1/machines/{first}", status=500, times=2))
    server.faults.append(Fault(f"DELETE /v1/machines/{second}", status=409, times=9))
    with pytest.raises(ClusterError, match=f"--delete {second}\n") as caught:
        provider.terminate_nodes([first, second, third])
    assert first not in caught.value.format_message()
    assert list(server.machines) == [second] == provider.non_terminated_nodes({})


def test_a_machine_that_outlives_its_deletion_is_deleted_again_and_then_named(
    server: MachinesServer, make: Make
) -> None:
    provider = make()
    (node_id,) = provider.create_node(NODE, tags(), 1)
    server.undeletable = {node_id}
    provider._deletion.again_seconds = 0.0
    for _ in range(3):
        provider.terminate_node(node_id)
        assert provider.non_terminated_nodes({}) == [node_id]
    with pytest.raises(ClusterError, match="still there after it was deleted 3 times"):
        provider.terminate_node(node_id)


def test_a_machine_deleted_by_hand_is_terminated(server: MachinesServer, make: Make) -> None:
    provider = make()
    (node_id,) = provider.create_node(NODE, tags(), 1)
    server.machines.clear()
    provider.terminate_node(node_id)
    assert provider.non_terminated_nodes({}) == []
    assert provider.is_terminated(node_id)
    assert not provider.is_running(node_id)
    assert provider.node_tags(node_id) == {}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_service_is_asked_again(server: MachinesServer, make: Make, status: int) -> None:
    for start in ("GET /v1/machines", "POST /v1/machines", "POST /v1/startup-scripts", "GET /v1/startup-scripts"):
        server.faults.append(Fault(start, status=status, headers={"Retry-After": "0.01"}))
    provider = make()
    assert len(provider.create_node(NODE, tags(), 1)) == 1
    assert len(server.machines) == len(server.scripts) == 1


def test_a_wrong_key_is_one_message_without_the_key(
    server: MachinesServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAPERSPACE_API_KEY", "planted-wrong-key")
    with pytest.raises(ClusterError, match="Paperspace refuses the key") as caught:
        make().non_terminated_nodes({})
    assert "planted-wrong-key" not in caught.value.format_message()


def test_many_threads_at_once(server: MachinesServer, make: Make) -> None:
    server.deletion_seconds = 0.05
    provider = make()
    stop = threading.Event()
    problems: list[BaseException] = []

    def watch() -> None:
        while not stop.is_set():
            try:
                for node_id in provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER}):
                    provider.node_tags(node_id), provider.is_running(node_id), provider.internal_ip(node_id)
            except Exception as error:
                problems.append(error)

    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()

    def live(index: int) -> str:
        first, second = provider.create_node(NODE, tags(**{TAG_RAY_LAUNCH_REQUEST: f"r{index}"}), 2)
        for node_id in (first, second):
            assert provider.node_tags(node_id)[TAG_RAY_LAUNCH_REQUEST] == f"r{index}"
            provider.set_node_tags(node_id, {TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE})
        provider.terminate_node(first)
        return str(second)

    with ThreadPoolExecutor(6) as pool:
        left = list(pool.map(live, range(6)))
    stop.set()
    for watcher in watchers:
        watcher.join()
    assert problems == []
    deadline_seconds = time.monotonic() + 60
    while len(provider.nodes_for_teardown({})) > 6:
        assert time.monotonic() < deadline_seconds
    assert sorted(provider.non_terminated_nodes({})) == sorted(left)
    assert server.ever_made == 12
    assert Counter(name.split(".")[4] for name in server.names) == {STATUS_UP_TO_DATE: 6}
    assert len(server.scripts) == 1, "one script for all"
