"""Finds out before the first trial which nodes do not share the search's storage, and not at the first checkpoint."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from pyarrow import fs
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_cifar.bucket_results import BucketResults
from tune_cifar.errors import UserError
from tune_cifar.scrubbing import scrub

NODE_SECONDS = 120.0
"""Within which each node has to answer; the first task of a node starts a process there."""

_PATIENCE_SECONDS = 5.0
_DRIVERS_FILE = "from-the-search"


@dataclass(frozen=True)
class Node:
    """A node of the cluster: Ray's id, and its name and address for people."""

    node_id: str
    name: str


def check_storage(results: Path, bucket: BucketResults | None, look: Callable[..., str] | None = None) -> int:
    """Raise `UserError` that names each node on which trials would not read and write what this process does.

    `results` is the folder that holds those of searches, and is checked if there is no `bucket`. A file of this process
    is read on each node, and one of each node is read here; all are removed. Returns the number of nodes that have
    answered, 0 where there is nothing to share: a folder, and this machine alone. `look` is what a node runs.
    """
    nodes = [node for node in _nodes() if bucket or node.node_id != ray.get_runtime_context().get_node_id()]
    if not nodes:
        return 0
    nonce = secrets.token_hex(8)
    with _shared_folder(results, bucket) as (store, place):
        _write(store, f"{place}/{_DRIVERS_FILE}", nonce)
        task = ray.remote(num_cpus=0, max_retries=0)(look or look_from_node)
        store_there = store if bucket else None
        asked = {
            node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote(
                store_there, place, nonce, node.node_id
            )
            for node in nodes
        }
        deadline = time.monotonic() + NODE_SECONDS
        problems = {node: _problem(answer, store, place, nonce, node, deadline) for node, answer in asked.items()}
    wrong = [f"{node.name}: {problem}" for node, problem in problems.items() if problem]
    if wrong:
        raise UserError(_message(wrong, len(nodes), results, bucket))
    return len(nodes)


def look_from_node(store: fs.FileSystem | None, place: str, nonce: str, node_id: str) -> str:
    """What a node runs: read the search's file and write one; returns what is wrong, or an empty string."""
    store = store or fs.LocalFileSystem()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    problem = _read_problem(store, f"{place}/{_DRIVERS_FILE}", nonce)
    while problem and time.monotonic() < deadline:  # NFS may show a new file some seconds late
        time.sleep(0.5)
        problem = _read_problem(store, f"{place}/{_DRIVERS_FILE}", nonce)
    if problem:
        return f"cannot read what this machine writes there ({problem})"
    try:
        _write(store, f"{place}/{node_id}", nonce)
    except OSError as error:
        return f"cannot write there ({scrub(str(error))})"
    return ""


def _problem(answer: Any, store: fs.FileSystem, place: str, nonce: str, node: Node, deadline: float) -> str:
    try:
        problem: str = ray.get(answer, timeout=max(0.1, deadline - time.monotonic()))
    except GetTimeoutError:
        ray.cancel(answer, force=True)
        return f"has not answered within {NODE_SECONDS:.0f} seconds"
    except RayError as error:
        return f"could not run the check ({scrub(str(error).strip().splitlines()[-1])})"
    if problem:
        return problem
    unread = _read_problem(store, f"{place}/{node.node_id}", nonce)
    return f"this machine cannot read what it writes there ({unread})" if unread else ""


@contextlib.contextmanager
def _shared_folder(results: Path, bucket: BucketResults | None) -> Iterator[tuple[fs.FileSystem, str]]:
    """A filesystem and a folder in it, where trials will write; it is there for the time of the check."""
    parent = bucket.path if bucket else str(results.resolve())
    place = f"{parent}/.storage-check-{secrets.token_hex(4)}"
    store = bucket.store if bucket else fs.LocalFileSystem()
    try:
        store.create_dir(place)
        yield store, place
    except OSError as error:
        where = bucket.uri if bucket else results
        raise UserError(f"{where} cannot be written: {scrub(str(error))}. Choose another place by --results.") from None
    finally:
        with contextlib.suppress(OSError):
            store.delete_dir(place)


def _write(store: fs.FileSystem, path: str, text: str) -> None:
    with store.open_output_stream(path) as stream:
        stream.write(text.encode())


def _read_problem(store: fs.FileSystem, path: str, expected: str) -> str:
    try:
        with store.open_input_stream(path) as stream:
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return "it is not there"
    except OSError as error:
        return scrub(str(error))
    return "" if text == expected else "it holds something else"


def _nodes() -> list[Node]:
    """The nodes that can hold a trial."""
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return [Node(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})") for node in alive]


def _message(wrong: list[str], num_nodes: int, results: Path, bucket: BucketResults | None) -> str:
    where = bucket.uri if bucket else str(results.resolve())
    fix = (
        "Give each node credentials that may read and write there, and a way to the store."
        if bucket
        else "Mount one shared folder, such as NFS, at the same path on every node and give it by --results, or give "
        "--results s3://BUCKET/PREFIX. Or leave these nodes out of the cluster."
    )
    count = f"{len(wrong)} of {num_nodes} {'node' if num_nodes == 1 else 'nodes'}"
    return (
        f"{count} cannot share {where} with this machine, where trials write their checkpoints and read them again "
        f"elsewhere. Nothing was started.\n" + "\n".join(f"  {line}" for line in wrong) + f"\n{fix}"
    )
