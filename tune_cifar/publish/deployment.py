"""Writes the spec of a Paperspace deployment that mounts a published model."""

from __future__ import annotations

from pathlib import Path

import yaml

from tune_cifar.files import replace_text
from tune_cifar.publish.bucket_target import BucketTarget
from tune_cifar.publish.bundle import Bundle

DEPLOYMENT_FILE = "deployment.yaml"
_MOUNT = "/models"
_PORT = 8000

_COMMENT = """# A Paperspace deployment that mounts {name} at {mount}/best
# (https://docs.digitalocean.com/products/paperspace/deployments/reference/deployment-spec/).
# Make two secrets in your team, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which can read the bucket.
# As it is, it serves the model's files over HTTP; put your own server's image and command in place of these.
"""


def write_deployment(folder: Path, bundle: Bundle, bucket: BucketTarget) -> Path:
    """Write deployment.yaml into `folder` and return its path; keys are named in it, never held."""
    mount: dict[str, str] = {
        "type": "s3",
        "name": "best",
        "path": f"{_MOUNT}/",
        "url": f"{bucket.uri(bundle.name)}/",
        "accessKeyId": "secret:AWS_ACCESS_KEY_ID",
        "secretAccessKey": "secret:AWS_SECRET_ACCESS_KEY",
    }
    if bucket.query.get("region"):
        mount["region"] = bucket.query["region"]
    if bucket.endpoint:
        mount["endpoint"] = bucket.endpoint
    spec = {
        "apiVersion": "v1",
        # Names of deployments are for DNS: no dots, no capitals.
        "name": bundle.name.lower().replace(".", "-"),
        "image": "python:3.11-slim",
        "command": ["python", "-m", "http.server", str(_PORT), "--directory", f"{_MOUNT}/best"],
        "resources": {"machineType": "C4", "replicas": 1, "ports": [_PORT]},
        "integrations": [mount],
    }
    path = folder / DEPLOYMENT_FILE
    replace_text(path, _COMMENT.format(name=bundle.name, mount=_MOUNT) + yaml.safe_dump(spec, sort_keys=False))
    return path
