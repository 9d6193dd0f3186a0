"""`python -m tests.chaos.cluster`: a cluster of local processes that loses a node at each line it reads."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 200_000_000}


def main() -> None:
    """Start the nodes and say the address; at each line kill the oldest node and add one."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    print(f"cluster: {cluster.address}", flush=True)
    for _ in sys.stdin:
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
        nodes.append(cluster.add_node(**NODE))
        print("cluster: lost a node", flush=True)


if __name__ == "__main__":
    main()
