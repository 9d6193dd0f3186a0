"""deploy/rayjob.yaml must be what KubeRay's API takes: its own schema, with unknown fields refused as kubectl does."""

from __future__ import annotations

import copy
import gzip
import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray
import yaml

from tests.commands import REPOSITORY

# Of https://github.com/ray-project/kuberay/blob/v1.7.0/helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml
# (Apache-2.0): version v1 without descriptions and status.
SCHEMA = Path(__file__).parent / "kuberay-rayjob-v1.7.0.json.gz"


def strict(schema: Any) -> Any:
    """A structural schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/) as JSON Schema."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    may_have_more = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("type") == "object" and "properties" in schema and not may_have_more:
        result["additionalProperties"] = False
    return result


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))["schema"]
    schema["properties"]["metadata"] = {"type": "object", "additionalProperties": True}
    return jsonschema.Draft7Validator(strict(schema))


@pytest.fixture
def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    claim, job = yaml.safe_load_all((REPOSITORY / "deploy" / "rayjob.yaml").read_text())
    return claim, job


def test_the_job_fits_kuberays_schema(validator: jsonschema.Draft7Validator, documents: Any) -> None:
    errors = [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(documents[1])]
    assert errors == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["spec", "entryPoint"], "python"),
        (["spec", "rayClusterSpec", "authOptions", "mode"], "password"),
        (["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "volumeMount"], []),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "replicas"], "two"),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "resources", "x"], {}),
    ],
)
def test_the_schema_refuses_mistakes(
    validator: jsonschema.Draft7Validator, documents: Any, place: list[Any], value: Any
) -> None:
    job = copy.deepcopy(documents[1])
    target = job
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    assert not validator.is_valid(job)


def test_the_job_holds_together(documents: Any) -> None:
    claim, job = documents
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    words = shlex.split(job["spec"]["entrypoint"])
    assert (REPOSITORY / words[3]).is_file()
    results = words[words.index("--results") + 1]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        (mount,) = container["volumeMounts"]
        (volume,) = pod["volumes"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], results)
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
