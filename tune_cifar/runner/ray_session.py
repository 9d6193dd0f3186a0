"""Starts Ray, or joins the cluster that is there, quietly and without reporting usage to anyone."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.utils import read_ray_address

from tune_cifar.errors import UserError
from tune_cifar.runner.resources import NodeResources
from tune_cifar.scrubbing import SECRET_VARIABLES

OBJECT_STORE_BYTES = 1 << 30
"""Room for the images of a local search (CIFAR-10 is 184 MB); Ray's own choice is a third of the memory."""


@dataclass(frozen=True)
class RaySession:
    """The machines of the Ray that is running, and where it is, in words."""

    nodes: tuple[NodeResources, ...]
    description: str


def cluster_address() -> str | None:
    """The Ray of `RAY_ADDRESS` or of `ray start` on this machine, which a session joins; None if it starts its own."""
    # Not "auto", which joins any Ray on the machine, such as that of another search (ray 2.60).
    address: str | None = os.environ.get("RAY_ADDRESS") or read_ray_address()
    return None if address == "local" else address


@contextlib.contextmanager
def ray_session() -> Iterator[RaySession]:
    """Join the Ray of `cluster_address`, else start one here, and leave it at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Started by `uv run`, Ray would build an environment for each worker (ray 2.60).
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    address = cluster_address()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        description = _join(address, quiet)
    else:
        with _without_keys():
            ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        description = "a Ray of its own on this machine"
    # Ray put a handler of its own in place, which ends the process on the spot with nothing saved (ray 2.60).
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield RaySession(_nodes(), description)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _without_keys() -> Iterator[None]:
    """Ray's processes, and the trials in them, inherit this process's environment, and no key is any use to them."""
    kept = {name: os.environ.pop(name) for name in SECRET_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _join(address: str, quiet: dict[str, Any]) -> str:
    try:
        ray.init(address=address, **quiet)
    except ConnectionError:
        raise UserError(
            f"No Ray cluster answers at {address} (from RAY_ADDRESS, or left by `ray start` on this machine). "
            "Start it again, or run here alone with RAY_ADDRESS=local."
        ) from None
    return f"the Ray cluster at {ray.get_runtime_context().gcs_address}"


def _nodes() -> tuple[NodeResources, ...]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(NodeResources(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive)
