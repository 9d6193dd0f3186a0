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
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.tune.execution import class_cache

from tune_cifar.errors import UserError
from tune_cifar.runner.ray_address import answers, cluster_address, left_address
from tune_cifar.runner.ray_token import provide_token
from tune_cifar.runner.resources import NodeResources
from tune_cifar.scrubbing import AWS_VARIABLES, SECRET_VARIABLES, hidden_variables

OBJECT_STORE_BYTES = 1 << 30
"""Room for the images of a local search (CIFAR-10 is 184 MB); Ray's own choice is a third of the memory."""


@dataclass(frozen=True)
class RaySession:
    """The machines of the Ray that is running, where it is, in words, and whether it was there before."""

    nodes: tuple[NodeResources, ...]
    description: str
    joined: bool = False


@contextlib.contextmanager
def ray_session(*, uses_bucket: bool = False) -> Iterator[RaySession]:
    """Join the Ray of `cluster_address`, else start one here, and leave it at the end.

    Of the keys in the environment, the processes of a Ray of its own get those of a bucket if the search uses one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Started by `uv run`, Ray would build an environment for each worker (ray 2.60).
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    _set_trial_environment()
    address = cluster_address()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        description = _join(address, quiet)
    else:
        provide_token()
        # Ray's processes, and the trials in them, inherit this process's environment, and no other key is of use there.
        keys = set(SECRET_VARIABLES) - set(AWS_VARIABLES if uses_bucket else ())
        with hidden_variables(keys), _on_loopback():
            ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        description = "a Ray of its own on this machine" + _note_on_a_left_one()
    # Ray put a handler of its own in place, which ends the process on the spot with nothing saved (ray 2.60).
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield RaySession(_nodes(), description, joined=address is not None)
    finally:
        ray.shutdown()


def _set_trial_environment() -> None:
    """What Tune (ray 2.60) puts into the environment of the process of a trial, on whatever machine that is."""
    # It would pass on AWS keys, in a form that Ray writes into a log as it is.
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    # A process has threads before a trial can ask the C library for one arena (trial/memory.py), and each trial has a
    # new thread: with an arena each, all of which keep what was freed, a process grew to 4.5 GiB over 40 trials.
    class_cache.DEFAULT_ENV_VARS["MALLOC_ARENA_MAX"] = "1"


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started meanwhile listens on 127.0.0.1 alone, where it would on every network of the machine.

    It is Ray's way on Windows and macOS, where a firewall would ask (https://github.com/ray-project/ray/issues/18730).
    Its `_node_ip_address` does not do: it takes 127.0.0.1 for the address that other machines see (ray 2.60).
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR  # for Ray's processes; this one has read it already
    kept, allowed = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = allowed
        os.environ.pop(name)
        if kept is not None:
            os.environ[name] = kept


def _join(address: str, quiet: dict[str, Any]) -> str:
    # For an address that is given, Ray does not look whether this user has a token (ray 2.60).
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        if not answers(address):
            raise ConnectionError
        ray.init(address=address, **quiet)
    except ConnectionError:
        raise UserError(
            f"No Ray cluster answers at {address} (from RAY_ADDRESS, or left by `ray start` on this machine). "
            "Start it again, or run here alone with RAY_ADDRESS=local."
        ) from None
    return f"the Ray cluster at {ray.get_runtime_context().gcs_address}"


def _note_on_a_left_one() -> str:
    left = None if os.environ.get("RAY_ADDRESS") else left_address()
    return f" (nobody answers at {left} any more, where `ray start` had started one)" if left else ""


def _nodes() -> tuple[NodeResources, ...]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(NodeResources(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive)
