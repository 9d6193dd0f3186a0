"""Machine names that say which cluster a machine belongs to and as what, since names are all a rented machine keeps.

Paperspace's machines have no tags (https://docs.digitalocean.com/reference/paperspace/api-reference/machine), and the
laptop's `ray up` and the head's autoscaler must see the same cluster without a file that both can reach.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "tune_cifar."
PART_RULE = "letters, digits, - and _"
_PART = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class NodeName:
    """What a machine's name tells: `tune_cifar.CLUSTER.KIND.TYPE.STATUS.LAUNCH_HASH.UNIQUE`.

    `kind` is head or worker; `node_type` the key in `available_node_types`; `launch_hash` Ray's hash of its node
    config, by which Ray knows that a machine is still the one that the file asks for; `unique` is drawn for each
    machine before it is asked for, so that one whose answer was lost is found again.
    """

    cluster: str
    kind: str
    node_type: str
    status: str
    launch_hash: str
    unique: str

    def __str__(self) -> str:
        parts = (self.cluster, self.kind, self.node_type, self.status, self.launch_hash, self.unique)
        return PREFIX + ".".join(parts)


def is_part(text: str) -> bool:
    """Whether `text` can be a part of a name."""
    return bool(_PART.fullmatch(text))


def parse_name(name: str) -> NodeName | None:
    """What `name` tells, or None for a machine of somebody else."""
    parts = name.removeprefix(PREFIX).split(".")
    if not name.startswith(PREFIX) or len(parts) != 6 or not all(is_part(part) for part in parts):
        return None
    return NodeName(*parts)
