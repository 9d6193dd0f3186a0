"""The script that a new machine runs once, so that `ray up` and the head can log in to it."""

from __future__ import annotations

import hashlib

from tune_cifar.cluster.paperspace.machines import MachinesApi
from tune_cifar.cluster.paperspace.node_names import PREFIX
from tune_cifar.cluster.paperspace.settings import ProviderSettings

_SCRIPT = """#!/bin/sh
set -e
home=$(getent passwd {user} | cut -d: -f6)
keys="$home/.ssh/authorized_keys"
mkdir -p "$home/.ssh"
touch "$keys"
grep -qxF '{key}' "$keys" || echo '{key}' >> "$keys"
chmod 700 "$home/.ssh"
chmod 600 "$keys"
chown -R {user} "$home/.ssh"
"""


def ensure_startup_script(api: MachinesApi, settings: ProviderSettings) -> str:
    """The id of the script for this login and key: one serves every cluster that uses them."""
    script = _SCRIPT.format(user=settings.ssh_user, key=settings.ssh_public_key)
    return api.startup_script(f"{PREFIX}ssh.{hashlib.sha256(script.encode()).hexdigest()[:16]}", script)
