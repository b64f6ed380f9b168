"""A Ray cluster of several nodes on this machine, which notices losses soon."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}
SOON = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
    "worker_niceness": 0,  # on a busy machine, workers would take minutes to start
}


@contextmanager
def head_node() -> Iterator[Any]:
    """The head of a cluster, without cores."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL, "_system_config": SOON})
    yield made
    made.shutdown()


def with_two_nodes(head: Any) -> Any:
    """The cluster with two nodes of one core each beside its head."""
    while len(head.worker_nodes) < 2:
        head.add_node(num_cpus=1, **SMALL)
    head.wait_for_nodes()
    return head


def process_on(node: Any, name: str) -> int | None:
    """The process on a node that Ray lists by a name."""
    raylet = node.all_processes["raylet"][0].process.pid
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet and (process / "cmdline").read_text().startswith(f"ray::{name}"):
                return int(process.name)
    return None


def until(holds: Callable[[], Any], seconds: float = 200.0) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found
