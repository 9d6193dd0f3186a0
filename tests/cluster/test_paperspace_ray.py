"""`ray up`, both autoscalers and `ray down` with cluster-paperspace.yaml, up to the SSH that reaches no machine."""

from __future__ import annotations

import copy
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml
from ray.autoscaler._private import commands
from ray.autoscaler._private.autoscaler import StandardAutoscaler
from ray.autoscaler._private.load_metrics import LoadMetrics
from ray.autoscaler._private.providers import _clear_provider_cache, _get_node_provider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import FileConfigReader
from ray.autoscaler.v2.instance_manager.node_provider import LaunchNodeError, NodeProviderAdapter
from ray.core.generated.instance_manager_pb2 import NodeKind

from tests.cluster.paperspace_server import KEY, MachinesServer
from tests.commands import REPOSITORY
from tests.publish.loopback import Fault
from tune_cifar.cluster.paperspace.__main__ import main
from tune_cifar.cluster.paperspace.errors import ClusterError
from tune_cifar.cluster.paperspace.node_names import parse_name
from tune_cifar.cluster.paperspace.node_provider import PaperspaceNodeProvider
from tune_cifar.cluster.paperspace.settings import read_node, read_provider
from tune_cifar.errors import UserError
from tune_cifar.publish.retry import RetryPolicy

# Ray 2.60 leaves the closing of its cluster file to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
FILE = REPOSITORY / "cluster-paperspace.yaml"
WAIT_SECONDS = 60.0
TOKEN = "planted-ray-token"  # noqa: S105 - to be looked for
# Both note what they were asked; rsync puts files where the machine of that address would have them.
SSH = '#!/bin/sh\nprintf "%s\\n" "$*" >> "$CALLS"\n'
RSYNC = """#!/bin/sh
printf "rsync %s\\n" "$*" >> "$CALLS"
for argument do source=$target; target=$argument; done
host=${target%%:*}; place="$MACHINES/${host#*@}/${target#*:\\~/}"
if [ -d "$source" ]; then mkdir -p "$place"; else mkdir -p "$(dirname "$place")" && cp -p "$source" "$place"; fi
"""


@dataclass
class Laptop:
    """A home with keys, a cluster file, stand-ins for ssh and rsync, and Paperspace on the loopback."""

    server: MachinesServer
    home: Path
    file: Path
    calls: Path
    machines: Path

    def up(self) -> None:
        """What `ray up --yes` does."""
        _clear_provider_cache()
        commands.create_or_update_cluster(
            str(self.file), None, None, no_restart=False, restart_only=False, yes=True, no_config_cache=True
        )

    def down(self) -> None:
        """What `ray down --yes` does."""
        _clear_provider_cache()
        commands.teardown_cluster(
            str(self.file), yes=True, workers_only=False, override_cluster_name=None, keep_min_workers=False
        )

    def kinds(self) -> list[str]:
        return sorted(name.kind for text in self.server.names if (name := parse_name(text)))


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Laptop]:
    home, folder, tools = tmp_path / "laptop", tmp_path / "checkout", tmp_path / "tools"
    for path in (home / ".ssh", home / ".ray", folder, tools, tmp_path / "temporary"):
        path.mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("planted-private-key\n")
    (home / ".ssh" / "id_ed25519.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@laptop\n")
    (home / ".ray" / "auth_token").write_text(TOKEN)
    (home / ".paperspace_api_key").write_text(KEY)
    (home / ".paperspace_api_key").chmod(0o600)
    for name, script in (("ssh", SSH), ("rsync", RSYNC)):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    config = yaml.safe_load(FILE.read_text())
    for node_type in config["available_node_types"].values():
        node_type["node_config"]["templateId"] = "tgpu"
    (folder / "cluster.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))  # Ray keeps a copy of each file there
    policy = RetryPolicy(attempts=2, first_wait_seconds=0.01, reply_seconds=5, total_seconds=30)
    monkeypatch.setattr(PaperspaceNodeProvider, "policy", policy)
    monkeypatch.setattr(PaperspaceNodeProvider, "poll_seconds", 0.02)
    monkeypatch.setattr(commands, "POLL_INTERVAL", 0.1)
    environment = {
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "MACHINES": str(tmp_path / "machines"),
        "PAPERSPACE_API_KEY": KEY,
        "RAY_UP_enable_autoscaler_v2": "1",
        "no_proxy": "127.0.0.1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with MachinesServer() as server:
        monkeypatch.setenv("PAPERSPACE_API_URL", f"{server.url}/v1")
        yield Laptop(server, home, folder / "cluster.yaml", tmp_path / "calls", tmp_path / "machines")
    _clear_provider_cache()


@pytest.fixture
def head_config(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `ray up` left on the head, and this process in the head's place: its home, and no key around."""
    laptop.up()
    home = laptop.machines / "198.51.100.1"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("PAPERSPACE_API_KEY")
    _clear_provider_cache()
    return home / "ray_bootstrap_config.yaml"


def until(condition: Callable[[], bool]) -> None:
    deadline_seconds = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline_seconds
        time.sleep(0.02)


def test_the_file_fits_rays_schema_and_the_providers() -> None:
    config = prepare_config(yaml.safe_load(FILE.read_text()))
    validate_config(config)
    for node_type in config["available_node_types"].values():
        read_node(node_type["node_config"])
    read_provider({**config["provider"], "ssh_public_key": "ssh-ed25519 AAAA"})
    needed = ("docker", "setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
    more = ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_filter")
    assert {*needed, *more, "file_mounts_sync_continuously", "rsync_exclude"} <= set(yaml.safe_load(FILE.read_text()))


def test_ray_up_makes_a_head_once_and_ray_down_ends_everything(laptop: Laptop) -> None:
    laptop.up()
    assert laptop.kinds() == ["head"]
    assert [name.split(".")[4] for name in laptop.server.names] == ["up-to-date"]
    laptop.up()  # the same head: its launch hash is in its name
    assert laptop.server.ever_made == 1
    calls = laptop.calls.read_text()
    assert "make setup" in calls
    assert "--autoscaling-config" in calls
    laptop.server.deletion_seconds = 0.3
    laptop.down()
    assert laptop.server.machines == {}


def test_no_key_is_in_a_command_or_on_a_worker(laptop: Laptop, head_config: Path) -> None:
    home = head_config.parent
    assert (home / ".paperspace_api_key").stat().st_mode & 0o777 == 0o600
    config = json.loads(head_config.read_text())
    assert "~/.paperspace_api_key" not in config["file_mounts"]  # what the head brings to workers
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert KEY not in head_config.read_text()
    assert KEY not in laptop.calls.read_text()
    assert TOKEN not in laptop.calls.read_text()
    assert KEY not in json.dumps(laptop.server.scripts)
    assert "planted-private-key" not in json.dumps(laptop.server.scripts)


def test_the_heads_autoscaler_scales_up_and_down(laptop: Laptop, head_config: Path) -> None:
    reader = FileConfigReader(str(head_config), skip_content_hash=True)
    config = reader.get_cached_autoscaling_config()
    provider = _get_node_provider(config.get_provider_config(), config.get_config("cluster_name"))
    adapter = NodeProviderAdapter(provider, reader)
    (head,) = adapter.get_non_terminated().values()
    assert (head.node_kind, head.node_type, head.is_running) == (NodeKind.HEAD, "head", True)
    adapter.launch({"gpu": 3}, "request-1")
    until(lambda: sum(node.is_running for node in adapter.get_non_terminated().values()) == 4)
    workers = [node for node in adapter.get_non_terminated().values() if node.node_kind == NodeKind.WORKER]
    assert {(worker.node_type, worker.request_id) for worker in workers} == {("gpu", "request-1")}
    adapter.terminate([worker.cloud_instance_id for worker in workers], "request-2")
    until(lambda: laptop.kinds() == ["head"])
    laptop.server.faults.append(Fault("POST /v1/machines", status=400, body=b'{"message": "over quota"}'))
    adapter.launch({"gpu": 1}, "request-3")
    until(lambda: not adapter._errors_queue.empty())
    (error,) = adapter.poll_errors()
    assert isinstance(error, LaunchNodeError)
    assert "quota" in str(error.__cause__)


def test_the_older_autoscaler_keeps_the_workers_that_the_file_asks_for(laptop: Laptop, head_config: Path) -> None:
    config = json.loads(head_config.read_text())
    autoscaler = StandardAutoscaler(
        lambda: copy.deepcopy(config), LoadMetrics(), gcs_client=None, update_interval_s=0, prefix_cluster_info=True
    )
    autoscaler.update()
    until(lambda: laptop.kinds() == ["head", "worker", "worker"])
    until(lambda: autoscaler.pending_launches.value == 0)
    config["available_node_types"]["gpu"].update(min_workers=0, max_workers=0)
    autoscaler.update()
    until(lambda: laptop.kinds() == ["head"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unset PAPERSPACE_API_KEY", "PAPERSPACE_API_KEY is not set"),
        ("wrong key", "Paperspace refuses the key"),
        ("open file", "chmod 600"),
        ("no file", "umask 077"),
        ("bad file", "provider.zone: unknown"),
    ],
)
def test_a_mistake_is_one_message_before_anything_costs(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    key_file = laptop.home / ".paperspace_api_key"
    if change == "unset PAPERSPACE_API_KEY":
        monkeypatch.delenv("PAPERSPACE_API_KEY")
        key_file.unlink()
    elif change == "wrong key":
        monkeypatch.setenv("PAPERSPACE_API_KEY", "planted-wrong-key")
    elif change == "open file":
        key_file.chmod(0o644)
    elif change == "no file":
        key_file.unlink()
    else:
        config = yaml.safe_load(laptop.file.read_text())
        config["provider"] |= {"zone": "a", "auto_shutdown_hours": 0}
        del config["provider"]["network_id"]
        config["available_node_types"]["gpu"]["node_config"] |= {"publicIpType": "static", "diskSize": "big"}
        laptop.file.write_text(yaml.safe_dump(config))
    with pytest.raises(click.ClickException) as caught:
        laptop.up()
    assert isinstance(caught.value, ClusterError)
    told = caught.value.format_message()
    assert message in told
    assert "planted" not in told
    assert laptop.server.machines == {}
    if change == "bad file":
        for place in ("provider.network_id: missing", "provider.auto_shutdown_hours", "publicIpType", "diskSize"):
            assert place in told


def test_the_list_names_every_machine_of_the_project(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    laptop.up()
    laptop.server.machines["mine"] = {**laptop.server.machines["ps000001"], "id": "mine", "name": "my desktop"}
    monkeypatch.setenv("COLUMNS", "200")
    capfd.readouterr()
    assert main([]) == 0
    listed = capfd.readouterr().out
    assert "my desktop" not in listed
    row = next(line for line in listed.splitlines() if line.startswith("ps000001"))
    assert all(word in row for word in ("tune-cifar", "head head, up-to-date", "A4000", "ready", "0 h 0", "0.76"))
    assert main(["--expect-none"]) == 1
    laptop.down()
    capfd.readouterr()
    assert main(["--expect-none"]) == 0
    assert capfd.readouterr().out == "No machine of this project is left.\n"
    monkeypatch.setenv("PAPERSPACE_API_KEY", "planted-wrong-key")
    with pytest.raises(UserError, match="Unauthorized") as caught:
        main([])
    assert "planted" not in str(caught.value)
