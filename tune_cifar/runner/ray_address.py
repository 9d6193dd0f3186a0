"""Finds the Ray that a search is to join and looks whether it lives: Ray itself waits four minutes for a dead one."""

from __future__ import annotations

import os
import socket

from ray._private.utils import read_ray_address

ANSWER_SECONDS = 5.0
"""How long a machine may take to accept a connection, which over a VPN takes well under one."""


def cluster_address() -> str | None:
    """The Ray of `RAY_ADDRESS` or of `ray start` on this machine, which a session joins; None if it starts its own."""
    # Not "auto", which joins any Ray on the machine, such as that of another search (ray 2.60).
    given = os.environ.get("RAY_ADDRESS")
    if given:
        return None if given == "local" else given
    left = left_address()
    return left if left and answers(left) else None


def left_address() -> str | None:
    """What `ray start` on this machine noted; `ray stop` removes the note, and a crash or a new start does not."""
    address: str | None = read_ray_address()
    return address or None


def answers(address: str) -> bool:
    """Whether someone accepts connections at a HOST:PORT; True as well for what is none, such as "auto" or a URL."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            return True
    except (OSError, OverflowError):
        return False
