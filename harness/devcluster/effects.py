"""Every fault that the cluster's daemon can do, and what each one is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from harness.devcluster import linux
from harness.devcluster.errors import ClusterError
from harness.devcluster.leases import Lease
from harness.devcluster.processes import ProcessId
from harness.devcluster.state import Cluster, Host


class Effect(Protocol):
    """One kind of fault, as the daemon does it. Each step is bounded in time, for the daemon has one thread."""

    hits: str  # "nodes", "links" (nodes, or sets of hosts), "controller"
    asks_slurm: bool  # its healing needs slurmctld

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Do it and look that it is done; a ClusterError says why not. It may have been done in part then."""

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Undo what there is of it; may be called again, and after an injection that failed half-way."""

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        """Evidence that it is undone, or None: not yet."""


def present(cluster: Cluster, lease: Lease, name: str) -> Host | None:
    """The host, if it still is what the fault was done to: a loss of power has undone the fault with it."""
    host = cluster.host(name)
    if host.init is None or lease.hosts.get(name) != (host.init.pid, host.init.start_ticks):
        return None
    return host


def powered(cluster: Cluster, name: str) -> tuple[Host, ProcessId]:
    """A host and its process 1; a ClusterError when it has no power."""
    host = cluster.host(name)
    if host.init is None:
        raise ClusterError(f"{name} has no power; first: {cluster.paths.command('power', f'on {name}')}")
    return host, host.init


REBOOTED = "it lost its power, and the fault with it"


def in_mounts(pid: int) -> int:
    """Enter a process's mount namespace, for good: for a forked child only."""
    linux.setns(f"/proc/{pid}/ns/mnt", linux.CLONE_NEWNS)
    return pid


def registry() -> Mapping[str, Effect]:
    """Kind -> effect."""
    from harness.devcluster import effect_daemons, effect_network, effect_slurm, effect_storage

    return {
        "slurmd-stop": effect_daemons.SlurmdStop(),
        "controller-freeze": effect_daemons.ControllerFreeze(),
        "controller-kill": effect_daemons.ControllerKill(),
        "link-down": effect_network.LinkDown(),
        "partition": effect_network.Partition(),
        "drain": effect_slurm.Unavailable("DRAIN"),
        "fail": effect_slurm.Unavailable("FAIL"),
        "preempt": effect_slurm.Preempt(),
        "storage-away": effect_storage.StorageAway(),
    }
