"""A cluster of two machines, one with eight GPUs that are only counted: who gets which, and what is shared."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from tests.runner import stub_trials
from tests.runner.stub_trials import run_stub_search
from tune_cifar.errors import UserError
from tune_cifar.runner import storage_check
from tune_cifar.runner.ray_session import ray_session
from tune_cifar.runner.resources import TrialSlots, plan_slots
from tune_cifar.runner.storage_check import check_storage, look_from_node
from tune_cifar.trial.data import ImageDataset, ImageSplit


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        for name in ("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_USAGE_STATS_ENABLED"):
            patch.setenv(name, "0")
        head = {"num_cpus": 8, "num_gpus": 8, "object_store_memory": 100 << 20}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=8, num_gpus=0, object_store_memory=100 << 20)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def slots_of(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TrialSlots]]:
    """Join that cluster as a search does, which plans by what it finds."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    with ray_session() as session:
        assert session.joined
        yield lambda **flags: plan_slots(session.nodes, **flags)


def _befall_at_once(folder: Path, num_trials: int) -> stub_trials.Befall:
    """Each trial notes its GPUs and waits until all have; one that is tried again on a busy machine has done so."""

    def befall(seed: int, attempt: int, epoch: int) -> None:
        import json
        import os
        import time

        from tune_cifar.runner.places import describe_place

        if (attempt, epoch) == (1, 0):
            (folder / f"{seed}.partial").write_text(json.dumps([os.environ["CUDA_VISIBLE_DEVICES"], describe_place()]))
            (folder / f"{seed}.partial").rename(folder / f"{seed}.gpus")
            deadline = time.monotonic() + 300
            while len(list(folder.glob("*.gpus"))) < num_trials:
                if time.monotonic() > deadline:
                    raise TimeoutError("the other trials do not run")
                time.sleep(0.05)

    return befall


def _noted(folder: Path) -> list[list[str]]:
    return [json.loads(path.read_text()) for path in folder.glob("*.gpus")]


def test_each_of_eight_trials_has_a_gpu_of_its_own_with_no_flags(
    slots_of: Callable[..., TrialSlots], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = slots_of()
    assert (slots.gpus_per_trial, slots.trials_at_once) == (1.0, 8)
    assert slots.reason == "8 GPU(s) and 16 CPU core(s) on 2 machine(s)"
    search = run_stub_search(tmp_path, _befall_at_once(tmp_path, 8), monkeypatch, slots=slots, num_trials=8)
    assert [trial.status for trial in search.outcome.trials] == ["finished"] * 8
    host = socket.gethostname()
    assert sorted(_noted(tmp_path)) == [[str(gpu), f"{host} GPU {gpu}"] for gpu in range(8)]


def test_a_quarter_of_a_gpu_puts_four_trials_on_one_and_the_fifth_on_another(
    slots_of: Callable[..., TrialSlots], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slots_of(gpus_per_trial=0.25).trials_at_once == 8  # as many as there are cores
    slots = slots_of(gpus_per_trial=0.25, trials_at_once=5)
    search = run_stub_search(tmp_path, _befall_at_once(tmp_path, 5), monkeypatch, slots=slots, num_trials=5)
    assert [trial.status for trial in search.outcome.trials] == ["finished"] * 5
    assert sorted(Counter(gpus for gpus, _ in _noted(tmp_path)).values()) == [1, 4]


def _note_images(folder: Path) -> Callable[..., None]:
    """A trial that notes where in which memory its images are."""

    def trial(parameters: dict[str, Any], *, data: Any, **_: Any) -> None:
        import json
        import os
        import tempfile
        import time
        from pathlib import Path

        import ray
        from ray import tune

        address = data.train.images.__array_interface__["data"][0]
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, _permissions, offset, _device, inode, *_path = line.split()
            start, end = (int(number, 16) for number in span.split("-"))
            if start <= address < end:
                place = [inode, int(offset, 16) + address - start]
        note = [ray.get_runtime_context().get_node_id(), place, bool(data.train.images.flags.writeable)]
        path = folder / f"{os.getpid()}.partial"
        path.write_text(json.dumps(note))
        path.rename(path.with_suffix(".images"))
        deadline = time.monotonic() + 300
        while len(list(folder.glob("*.images"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        result = {"epoch": 1, "step": 1, "train_log": (), "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5}
        result |= {"epoch_runtime (seconds)": 0.1, "status": "finished", "done": True}
        with tempfile.TemporaryDirectory() as temporary:
            tune.report(result, checkpoint=tune.Checkpoint.from_directory(temporary))

    return trial


def test_trials_of_a_machine_share_one_copy_of_the_images(
    slots_of: Callable[..., TrialSlots], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((1000, 32, 32, 3), np.uint8)
    split = ImageSplit(images, np.zeros(1000, np.int64))
    data = ImageDataset("zeros", ("one",), split, split, split, "sha256:zeros")
    monkeypatch.setattr(stub_trials, "_no_data", lambda: data)
    monkeypatch.setattr(stub_trials, "make_trial", lambda *_: _note_images(tmp_path))
    slots = slots_of(cpus_per_trial=4, gpus_per_trial=0)
    assert slots.trials_at_once == 4
    run_stub_search(tmp_path, lambda *_: None, monkeypatch, slots=slots, num_trials=4)
    notes = [json.loads(path.read_text()) for path in tmp_path.glob("*.images")]
    # More where a busy machine has lost a process, whose trial was tried again.
    assert all(number >= 2 for number in Counter(node for node, _, _ in notes).values())
    copies = {(node, *place) for node, place, _ in notes}
    assert len(copies) == 2
    assert len({inode for _, inode, _ in copies}) == 2  # each machine's own store
    assert not any(writeable for _, _, writeable in notes)


def test_a_folder_that_all_nodes_see_passes_and_nothing_is_left(
    slots_of: Callable[..., TrialSlots], tmp_path: Path
) -> None:
    assert check_storage(tmp_path / "results", None) == 1
    assert list((tmp_path / "results").iterdir()) == []


def _other_node() -> Any:
    here = ray.get_runtime_context().get_node_id()
    (other,) = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    return other


def test_a_node_that_does_not_see_the_folder_is_named(slots_of: Callable[..., TrialSlots], tmp_path: Path) -> None:
    def look_elsewhere(store: Any, place: str, nonce: str, node_id: str) -> str:
        return look_from_node(store, f"{place}-elsewhere", nonce, node_id)

    with pytest.raises(UserError) as raised:
        check_storage(tmp_path, None, look_elsewhere)
    other = _other_node()
    name = f"{other['NodeManagerHostname']} ({other['NodeManagerAddress']})"
    assert f"1 of 1 node cannot share {tmp_path} with this machine" in str(raised.value)
    assert f"\n  {name}: cannot read what this machine writes there (it is not there)\n" in str(raised.value)
    assert "Mount one shared folder" in str(raised.value)
    assert "s3://BUCKET/PREFIX" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_node_whose_files_do_not_come_here_is_named(slots_of: Callable[..., TrialSlots], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"this machine cannot read what it writes there \(it is not there\)"):
        check_storage(tmp_path, None, lambda *_: "")


def test_a_node_that_does_not_answer_is_named(
    slots_of: Callable[..., TrialSlots], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never_ends(*_: Any) -> str:
        import time

        time.sleep(600)
        return ""

    monkeypatch.setattr(storage_check, "NODE_SECONDS", 2.0)
    with pytest.raises(UserError, match=r"has not answered within 2 seconds"):
        check_storage(tmp_path, None, never_ends)


def test_a_place_that_cannot_be_written_is_told(slots_of: Callable[..., TrialSlots], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/results cannot be written: .*Choose another place by --results"):
        check_storage(tmp_path / "file" / "results", None)
