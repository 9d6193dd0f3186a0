"""The real SDK, in the environment that the product makes, against a loopback of Paperspace's legacy API."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
import torchvision

from tests.publish.conftest import NAME
from tests.publish.loopback import Fault
from tests.publish.servers import GradientServer
from tune_cifar.errors import UserError
from tune_cifar.publish.bundle import Bundle
from tune_cifar.publish.fetching import fetched_model
from tune_cifar.publish.gradient_environment import gradient_python
from tune_cifar.publish.gradient_target import GradientTarget
from tune_cifar.publish.record import PublishedModel
from tune_cifar.publish.retry import PublishError, RetryPolicy
from tune_cifar.publish.target import Receipt

CREATE, PUT, DELETE = "POST /mlModels/createModelV2", "PUT /store", "POST /mlModels/deleteModel"


@pytest.fixture(scope="module")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDK's environment, made once from the package registry; skips where that cannot be reached."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_CIFAR_CACHE", str(folder))
        try:
            gradient_python()
        except (PublishError, UserError) as error:
            pytest.skip(f"Paperspace's SDK cannot be installed here: {error}")
    return folder


@pytest.fixture
def api(cache_folder: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[GradientServer]:
    monkeypatch.setenv("TUNE_CIFAR_CACHE", str(cache_folder))
    with GradientServer() as server:
        monkeypatch.setenv("PAPERSPACE_CONFIG_HOST", server.url)
        yield server


@pytest.fixture
def target(policy: RetryPolicy) -> GradientTarget:
    return GradientTarget("gradient", "project1", replace(policy, attempts=2))


def _publish(
    target: GradientTarget,
    bundle: Bundle,
    said: list[str],
    *,
    again: bool = False,
    recorded: PublishedModel | None = None,
) -> Receipt:
    return target.publish(bundle, again=again, recorded=recorded, say=said.append)


def test_the_environment_is_apart_and_made_once(api: GradientServer, cache_folder: Path) -> None:
    python = gradient_python()
    made = (python.parents[1] / "ready").stat()
    assert gradient_python() == python
    assert (python.parents[1] / "ready").stat() == made
    done = subprocess.run(
        [
            python,
            "-W",
            "ignore",
            "-c",
            "import gradient, yaml; print(gradient.ModelsClient.__name__, yaml.__version__)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ModelsClient" in done.stdout
    assert done.stdout.endswith(" 5.3.1\n")


def test_the_stored_object_is_the_checkpoint_itself(
    api: GradientServer, target: GradientTarget, resnet_bundle: Bundle, said: list[str]
) -> None:
    bundle = resnet_bundle
    target.check()
    receipt = _publish(target, bundle, said)
    model = api.models[receipt.id]
    assert (model.name, model.model_type, model.project_id) == (NAME, "Custom", "project1")
    assert receipt.uri == f"gradient://project1/{receipt.id}"
    assert model.files == {f"{NAME}.pth": bundle.weights.path.read_bytes()}
    loaded = torch.load(io.BytesIO(model.files[f"{NAME}.pth"]), weights_only=True)
    torchvision.models.resnet18(num_classes=10).load_state_dict(loaded)
    put = api.asked(PUT)[0]
    assert put.headers["content-length"] == str(bundle.weights.size_bytes)
    assert "x-api-key" not in put.headers
    assert api.asked("GET /store")  # it was read back


def test_what_the_sdk_by_itself_uploads_comes_back(
    api: GradientServer, resnet_bundle: Bundle, said: list[str], tmp_path: Path, policy: RetryPolicy
) -> None:
    upload = "upload(sys.argv[1], 'name', 'Custom', project_id='project1')"
    script = f"import gradient, sys; gradient.ModelsClient('planted-paperspace-key').{upload}"
    weights = resnet_bundle.weights
    subprocess.run([gradient_python(), "-W", "ignore", "-c", script, weights.path], capture_output=True, check=True)
    (model,) = api.models.values()
    path = tmp_path / "downloaded.pth"
    path.write_bytes(model.files[weights.name])
    assert path.stat().st_size > weights.size_bytes
    with fetched_model(str(path), said.append, policy) as fetched:
        assert (fetched.path.name, fetched.path.read_bytes()) == (weights.name, weights.path.read_bytes())
    assert "out of the multipart form" in said[-1]


def test_a_second_time_makes_no_second_model(
    api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str]
) -> None:
    first = _publish(target, bundle, said)
    assert not first.existed
    second = _publish(target, bundle, said)
    assert (second.id, second.existed) == (first.id, True)
    api.models[first.id].notes = ""  # somebody wrote another note; published.json knows the model all the same
    recorded = PublishedModel("gradient", NAME, first.uri, bundle.weights.sha256, "", first.id)
    assert _publish(target, bundle, said, recorded=recorded).id == first.id
    assert len(api.asked(CREATE)) == 1
    third = _publish(target, bundle, said, again=True)
    assert (len(api.models), third.existed) == (2, False)


def test_what_a_cut_off_attempt_left_is_taken_away(
    api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str]
) -> None:
    api.faults = [Fault(CREATE, "drop after")]  # the model was made, and nobody was told its id
    receipt = _publish(target, bundle, said)
    assert list(api.models) == [receipt.id]
    assert len(api.asked(CREATE)) == 2
    assert len(api.asked(DELETE)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(CREATE, status=500),
        Fault(PUT, status=503),
        Fault(PUT, "drop"),
        Fault("GET /mlModels/getPres", status=429),
    ],
    ids=["500 at create", "503 at put", "broken at put", "429 at presign"],
)
def test_what_passes_is_outlived_with_one_model(
    api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str], fault: Fault
) -> None:
    api.faults = [replace(fault)]
    receipt = _publish(target, bundle, said)
    assert list(api.models) == [receipt.id]
    assert len(said) == 1
    assert "trying again in" in said[0]


@pytest.mark.parametrize("times", [1, 9])
def test_a_connection_that_breaks_within_the_file_leaves_one_model_or_none(
    api: GradientServer, target: GradientTarget, resnet_bundle: Bundle, said: list[str], times: int
) -> None:
    api.faults = [Fault(PUT, "break", times=times)]
    if times == 1:
        receipt = _publish(target, resnet_bundle, said)
        assert api.models[receipt.id].files == {f"{NAME}.pth": resnet_bundle.weights.path.read_bytes()}
        assert list(api.models) == [receipt.id]
    else:
        with pytest.raises(PublishError, match="ConnectionError"):
            _publish(target, resnet_bundle, said)
        assert api.models == {}


def test_the_servers_wait_is_kept(api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str]) -> None:
    api.faults = [Fault(CREATE, status=429, headers={"Retry-After": "2"})]
    _publish(target, bundle, said)
    assert "trying again in 2.0 s" in said[0]


def test_bytes_that_were_lost_are_noticed_and_the_model_is_deleted(
    api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str]
) -> None:
    api.lie_bytes = -1
    size = bundle.weights.size_bytes
    with pytest.raises(PublishError, match=rf"has {size - 1} bytes there and {size} here"):
        _publish(target, bundle, said)
    assert api.models == {}


def test_other_bytes_of_the_same_number_are_noticed(
    api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str]
) -> None:
    content = bytes(bundle.weights.size_bytes)
    api.faults = [Fault("GET /store", status=200, body=content)]
    with pytest.raises(PublishError, match=r"\.pth reads back with another sha256"):
        _publish(target, bundle, said)
    assert api.models == {}


def test_what_could_not_be_deleted_is_named(
    api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str]
) -> None:
    api.faults = [Fault(PUT, status=403), Fault(DELETE, status=403)]
    with pytest.raises(PublishError, match=r"left half-made there: model mo1"):
        _publish(target, bundle, said)
    assert list(api.models) == ["mo1"]


def test_a_refused_key_is_told(
    api: GradientServer,
    target: GradientTarget,
    bundle: Bundle,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAPERSPACE_API_KEY", "planted-other-key")
    with pytest.raises(PublishError) as failure:
        _publish(target, bundle, said)
    assert "refused the key in PAPERSPACE_API_KEY" in str(failure.value)
    assert "planted-other-key" not in str(failure.value)
    assert api.models == {}


@pytest.mark.parametrize("kind", ["404", "nobody listens"])
def test_an_api_that_is_gone_is_told_with_what_is_alive(
    api: GradientServer,
    target: GradientTarget,
    bundle: Bundle,
    said: list[str],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind == "404":
        api.faults = [Fault("GET /mlModels", status=404, times=9)]
    else:
        monkeypatch.setenv("PAPERSPACE_CONFIG_HOST", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match="no longer available since 15 July 2024") as failure:
        _publish(target, bundle, said)
    assert "--to paperspace:s3://BUCKET/PREFIX" in str(failure.value)


def test_a_server_that_hangs_is_given_up(
    api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str]
) -> None:
    api.faults = [Fault(PUT, "hang", times=9)]
    impatient = replace(target, policy=RetryPolicy(attempts=1, reply_seconds=0.5))
    with pytest.raises(PublishError, match="timed out"):
        _publish(impatient, bundle, said)
    assert api.models == {}


def test_a_process_that_does_not_end_is_ended(
    api: GradientServer, target: GradientTarget, bundle: Bundle, said: list[str]
) -> None:
    api.faults = [Fault(PUT, "hang", times=9)]
    impatient = replace(target, policy=RetryPolicy(attempts=1, reply_seconds=60, total_seconds=4))
    start = time.monotonic()
    with pytest.raises(PublishError, match=r"no answer from .* in 4 s; a model .* may have been left"):
        _publish(impatient, bundle, said)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_publish_that_is_ended_takes_its_model_away_or_names_it(
    api: GradientServer, cache_folder: Path, search: Path, is_deleted: bool
) -> None:
    # It is ended as a scheduler does, by a signal to one process: the SDK's is to be ended by that one.
    api.faults = [Fault(PUT, "hang"), *([] if is_deleted else [Fault(DELETE, status=403)])]
    command = [sys.executable, "-m", "tune_cifar.publish", search, "--to", "gradient", "--gradient-project", "project1"]
    publish = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not api.asked(PUT) and publish.poll() is None:
        time.sleep(0.05)
    assert list(api.models) == ["mo1"]
    publish.terminate()
    output, errors = publish.communicate(timeout=60)
    assert (publish.returncode, errors) == (143, "\ninterrupted\n")
    assert list(api.models) == ([] if is_deleted else ["mo1"])
    assert ("left half-made there: model mo1" in output) == (not is_deleted)


def test_the_key_is_in_no_command_line_and_no_output(
    api: GradientServer,
    target: GradientTarget,
    bundle: Bundle,
    said: list[str],
    tmp_path: Path,
    no_keys_in: Callable[[str, Path], None],
) -> None:
    commands: list[str] = []

    class Watching(GradientServer):
        """Looks at every process that this test started while a request is open."""

        def take_fault(self, request: object) -> Fault | None:
            for child in psutil.Process().children(recursive=True):
                commands.append(" ".join(child.cmdline()))
            return super().take_fault(request)  # type: ignore[arg-type]

    with Watching() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERSPACE_CONFIG_HOST", server.url)
        server.faults = [Fault(PUT, "drop"), Fault(DELETE, status=500)]
        receipt = _publish(target, bundle, said)
    assert any("gradient_upload.py" in command for command in commands)
    no_keys_in(" ".join([*commands, *said, json.dumps(receipt.uri)]), tmp_path)


def test_the_signature_of_an_address_is_not_told(
    api: GradientServer,
    target: GradientTarget,
    bundle: Bundle,
    said: list[str],
    tmp_path: Path,
    no_keys_in: Callable[[str, Path], None],
) -> None:
    api.faults = [Fault("GET /store", status=403, times=9)]
    with pytest.raises(PublishError, match="403 Client Error") as failure:
        _publish(target, bundle, said)
    assert f"{NAME}.pth?…" in str(failure.value)
    no_keys_in(str(failure.value), tmp_path)
    assert api.models == {}


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, target: GradientTarget) -> None:
    monkeypatch.delenv("PAPERSPACE_API_KEY", raising=False)
    with pytest.raises(UserError, match="set PAPERSPACE_API_KEY"):
        target.check()
    monkeypatch.setenv("PAPERSPACE_API_KEY", "x")
    with pytest.raises(UserError, match="--gradient-project or GRADIENT_PROJECT_ID"):
        replace(target, project_id=None).check()


def test_an_environment_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]
) -> None:
    monkeypatch.setenv("TUNE_CIFAR_CACHE", str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    with pytest.raises(PublishError, match="the SDK's environment could not be made: uv pip"):
        gradient_python()
    assert [path.name for path in tmp_path.glob("gradient-sdk-*") if path.is_dir()] == []
