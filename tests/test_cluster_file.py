"""cluster.yaml must be a file that `ray up` takes."""

from __future__ import annotations

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.commands import REPOSITORY


def test_cluster_yaml_fits_rays_schema() -> None:
    config = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])
