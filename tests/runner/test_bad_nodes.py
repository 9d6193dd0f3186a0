"""A search on a cluster of two machines, all of it on this one, of which one fails whatever runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.runner.stub_trials import run_stub_search
from tune_cifar.runner.node_health import NodeHealth
from tune_cifar.runner.resources import TrialSlots


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name in ("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_trials_are_retried_elsewhere_and_a_bad_node_is_left_alone(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = next(node["NodeID"] for node in ray.nodes() if node["NodeID"] != cluster.head_node.node_id)
    failures = tmp_path / "failures"
    failures.mkdir()

    def befall(seed: int, attempt: int, epoch: int) -> None:
        import time

        import ray

        if epoch != 1:
            return
        before = len(list(failures.iterdir()))
        if ray.get_runtime_context().get_node_id() == bad:
            (failures / f"{seed}-{attempt}").touch()
            raise RuntimeError("CUDA error: unspecified launch failure")
        # The good node must not do all the work while a process starts on the bad one, which a busy machine makes long.
        patience = time.monotonic() + 5
        while before < 3 and len(list(failures.iterdir())) == before and time.monotonic() < patience:
            time.sleep(0.05)

    slots = TrialSlots(1.0, 0.0, 2, "")
    search = run_stub_search(tmp_path, befall, monkeypatch, slots=slots, num_trials=6, epoch_seconds=0.2)
    assert [trial.status for trial in search.outcome.trials] == ["finished"] * 6
    assert not search.outcome.stopped_because
    on_bad = [attempt for attempts in search.attempts.values() for attempt in attempts if attempt["node"] == bad]
    assert len(on_bad) == sum(trial.failures for trial in search.outcome.trials) == 3
    assert max(trial.failures for trial in search.outcome.trials) == 1
    (node_line,) = [line for line in search.lines if line.startswith("node ")]
    assert node_line.endswith("failed 3 trials in a row: no more are put there")
    retries = [line for line in search.lines if line.startswith("retry ")]
    assert len(retries) == 3
    assert all(", on another machine, from the beginning" in line for line in retries)


def test_a_node_is_bad_after_three_trials_in_a_row() -> None:
    health = NodeHealth()
    assert [health.failed("n", trial, "broken") for trial in ("a", "b", "b", "c")] == [False, False, False, True]


def test_a_success_on_a_node_resets_it() -> None:
    health = NodeHealth()
    for trial in ("a", "b"):
        health.failed("n", trial, "broken")
    health.succeeded("other")
    health.succeeded("n")
    assert not health.failed("n", "c", "broken")


def test_a_trial_that_fails_alike_on_two_nodes_is_to_blame_itself() -> None:
    health = NodeHealth()
    health.failed("n", "a", "too large")
    assert not health.failed("m", "a", "too large")
    assert [health.failed("n", trial, "broken") for trial in ("b", "c", "d")] == [False, False, True]
    assert [health.failed("m", trial, "broken") for trial in ("b", "c", "e")] == [False, False, False]
