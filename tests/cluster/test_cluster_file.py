"""cluster.yaml must be a file that `ray up` takes, and one that this package reads the same way."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.commands import REPOSITORY
from tune_cifar.cluster.cluster_file import load_cluster
from tune_cifar.errors import UserError


def test_cluster_yaml_fits_rays_schema() -> None:
    config = prepare_config(yaml.safe_load((REPOSITORY / "cluster.yaml").read_text()))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"]) == 2
    for source in config["file_mounts"].values():
        assert source == "~/.ray/auth_token" or (REPOSITORY / source).exists()


def test_cluster_yaml_is_read() -> None:
    cluster = load_cluster(REPOSITORY / "cluster.yaml")
    assert cluster.machines == ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert cluster.login(cluster.head) == "ubuntu@10.0.0.1"
    assert cluster.gcs_address == "10.0.0.1:6379"
    assert (cluster.key, cluster.python) == (Path.home() / ".ssh" / "id_ed25519", "python3")


def test_the_head_may_have_another_address_from_here(tmp_path: Path) -> None:
    cluster = load_cluster(_written(tmp_path, external_head_ip="203.0.113.5"))
    assert [cluster.login(address) for address in cluster.machines] == ["ray@203.0.113.5", "ray@10.0.0.2"]


def test_the_set_up_names_the_python(tmp_path: Path) -> None:
    path = _written(tmp_path)
    path.write_text(path.read_text() + "setup_commands: [cd ~/tune_cifar && make PYTHON=python3.12 setup]\n")
    assert load_cluster(path).python == "python3.12"


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "cluster_name: 7\nprovider: {type: aws, head_ip: 10.0.0.1, worker_ips: [10.0.0.1]}\nauth: {}\nmax_workers: 3\n"
    )
    with pytest.raises(UserError) as error:
        load_cluster(path)
    assert str(error.value).splitlines() == [
        f"{path} has 5 problem(s):",
        "provider.type must be local (machines that you have), got 'aws'.",
        "auth.ssh_user must be text, got None.",
        "cluster_name must be text, got 7.",
        "provider: 10.0.0.1 stands there twice. Name each machine once, the head not in worker_ips.",
        "max_workers must be the number of worker_ips, 1, got 3. Remove it.",
    ]


@pytest.mark.parametrize(("content", "message"), [("[1]", "must be a mapping"), ("a: [", "is not YAML")])
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_cluster(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_cluster(tmp_path / "none.yaml")


@pytest.mark.parametrize("action", ["check", "up", "down"])
def test_make_runs_the_command_on_the_file_given(action: str) -> None:
    command = ["make", "--no-print-directory", "--dry-run", "CLUSTER=mine.yaml", f"cluster-{action}"]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == f".venv/bin/python -m tune_cifar.cluster {action} mine.yaml"


def _written(folder: Path, **provider: str) -> Path:
    path = folder / "cluster.yaml"
    local = {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2"], **provider}
    path.write_text(yaml.safe_dump({"cluster_name": "test", "provider": local, "auth": {"ssh_user": "ray"}}))
    return path
