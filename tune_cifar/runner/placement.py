"""Says where trials may run once some have failed: on another machine, alone on a GPU, not on a bad machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from tune_cifar.runner.node_health import NodeHealth
from tune_cifar.runner.resources import TrialSlots

NODE_LABEL = "ray.io/node-id"
"""Every node has it from Ray itself: https://docs.ray.io/en/latest/ray-core/scheduling/labels.html"""

ROUNDING = 1e-9


@dataclass(frozen=True)
class Node:
    """A live machine of the cluster: what it has, and its name for people."""

    node_id: str
    name: str
    resources: dict[str, float]


class TrialPlacement(tune.Callback):  # type: ignore[misc]
    """Knows on which node each trial runs, and makes the requests for places, which leave out bad nodes.

    `left_alone` has the names of these by id; `avoided` has the node that a trial which is to be tried again failed on,
    until it runs. The state belongs to one process: a resume trusts all nodes anew.
    """

    def __init__(self, slots: TrialSlots) -> None:
        self.slots = slots
        self.health = NodeHealth()
        self.left_alone: dict[str, str] = {}
        self.avoided: dict[str, str] = {}
        self._node_of: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a resumed search has a placement of its own."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note where the trial begins, while its actor is there to be asked after."""
        self.avoided.pop(trial.trial_id, None)
        actor_id = trial.temporary_state.ray_actor._actor_id.hex()
        self._node_of[trial.trial_id] = ray._private.state.actors(actor_id)["Address"]["NodeID"]

    def leave(self, trial: Trial) -> str:
        """The id of the node on which the trial has just ended, or "" if it had not started."""
        return self._node_of.pop(trial.trial_id, "")

    def failed(self, node_id: str, trial: Trial, cause: str) -> str:
        """Note that a trial failed on a node; returns the name of the node if it is to be left alone from now on."""
        if not node_id or node_id in self.left_alone or not self.health.failed(node_id, trial.trial_id, cause):
            return ""
        if all(node.node_id == node_id for node in self.able_nodes()):
            return ""
        nodes = {node.node_id: node.name for node in live_nodes()}
        self.left_alone[node_id] = nodes.get(node_id, node_id[:8])
        return self.left_alone[node_id]

    def able_nodes(self) -> list[Node]:
        """The live nodes that have room for a trial when they are empty, but for those left alone."""
        return [node for node in live_nodes() if node.node_id not in self.left_alone and self._fits(node)]

    def has_room_for(self, trial_id: str) -> bool:
        """Whether there is a node that the trial may run on, be it busy."""
        return any(node.node_id != self.avoided.get(trial_id) for node in self.able_nodes())

    def avoid(self, trial_id: str, node_id: str) -> None:
        """Have the trial tried again on another node than this one, where there is another."""
        if any(node.node_id != node_id for node in self.able_nodes()):
            self.avoided[trial_id] = node_id

    def request(self, trial_id: str, *, alone: bool) -> tune.PlacementGroupFactory:
        """A request for the trial's place, with a GPU to itself if it is to be `alone`."""
        bundle = {"CPU": self.slots.cpus_per_trial, "GPU": 1.0 if alone else self.slots.gpus_per_trial}
        not_on = sorted({*self.left_alone, *filter(None, [self.avoided.get(trial_id)])})
        if not not_on:
            return tune.PlacementGroupFactory([bundle])
        # Hard, and not a preference: Tune has no free slot but the one on the node that the trial failed on.
        return tune.PlacementGroupFactory([bundle], bundle_label_selector=[{NODE_LABEL: f"!in({','.join(not_on)})"}])

    def _fits(self, node: Node) -> bool:
        needed = {"CPU": self.slots.cpus_per_trial, "GPU": self.slots.gpus_per_trial}
        return all(node.resources.get(name, 0.0) + ROUNDING >= amount for name, amount in needed.items())


def live_nodes() -> list[Node]:
    """The machines that are there now."""
    return [
        Node(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})", node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]
