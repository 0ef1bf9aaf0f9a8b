"""Faults that Slurm itself does when its administrator asks: nodes drained or failing, a job that preempts.

Only a node whose reason is exactly ours is ever given back. The preempting job runs in a partition of its own
that exists as long as the fault, above all others, hidden, and closed to everyone but root.
"""

from __future__ import annotations

import contextlib
import math
import re
import subprocess
from typing import Any

from harness.devcluster import node
from harness.devcluster.errors import ClusterError
from harness.devcluster.leases import Lease
from harness.devcluster.state import Cluster

_SLURM_S = 5.0
_NO_REASON = ""


class Unavailable:
    """Nodes are drained, or marked as failing: what runs there runs on, and nothing more is started."""

    hits = "nodes"
    asks_slurm = True

    def __init__(self, state: str) -> None:
        self.state = state

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Refused for a node that has a reason already: it is somebody else's."""
        for name in lease.nodes:
            reason = _node(cluster, name)["reason"]
            if reason != _NO_REASON:
                raise ClusterError(f"{name} has a reason already, {reason!r}: it is left alone")
        _slurm(
            cluster, "scontrol", "update", f"NodeName={','.join(lease.nodes)}", f"State={self.state}",
            f"Reason={lease.reason}",
        )  # fmt: skip
        found = {name: _node(cluster, name) for name in lease.nodes}
        wrong = [name for name in lease.nodes if not self._holds(found[name], lease)]
        if wrong:
            raise ClusterError(f"{', '.join(wrong)}: asked for {self.state}, and Slurm says {found}")
        return {"scontrol show node": found}

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Give back what is ours."""
        done: dict[str, Any] = {}
        for name in lease.nodes:
            reason = _node(cluster, name)["reason"]
            if reason == lease.reason:
                _slurm(cluster, "scontrol", "update", f"NodeName={name}", "State=RESUME")
                done[name] = "resumed"
            elif reason == _NO_REASON:
                done[name] = "it has no reason any more"
            else:
                done[name] = f"not resumed: its reason is {reason!r}, which is not ours"
        return done

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        """No node has our reason."""
        found = {name: _node(cluster, name) for name in lease.nodes}
        ours = any(entry["reason"] == lease.reason for entry in found.values())
        return None if ours else {"scontrol show node": found}

    def _holds(self, entry: dict[str, str], lease: Lease) -> bool:
        return self.state in entry["state"] and entry["reason"] == lease.reason


class Preempt:
    """A job of root takes whole nodes, in a partition above all others; jobs there are requeued."""

    hits = "nodes"
    asks_slurm = True

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Make the partition and submit the job; that it runs is seen in the queue."""
        preemption = re.search(
            r"^PreemptType\s*=\s*(\S+)", _slurm(cluster, "scontrol", "show", "config"), re.MULTILINE
        )
        if preemption is None or preemption[1] != "preempt/partition_prio":
            raise ClusterError(
                f"PreemptType is {preemption[1] if preemption else 'not set'}; a preempting job needs"
                " preempt/partition_prio, as without --conf PreemptType"
            )
        names = ",".join(lease.nodes)
        _slurm(
            cluster, "scontrol", "create", f"PartitionName={lease.table}", f"Nodes={names}",
            "PriorityTier=1000", "Hidden=YES", "RootOnly=YES", "OverSubscribe=EXCLUSIVE", "State=UP",
            "MaxTime=15",
        )  # fmt: skip
        job = _slurm(
            cluster, "sbatch", "--parsable", f"--partition={lease.table}", f"--nodelist={names}",
            f"--nodes={len(lease.nodes)}", "--exclusive", "--no-requeue", "--output=/dev/null", "--chdir=/",
            f"--job-name={lease.table}", f"--time={math.ceil(lease.for_s / 60) + 1}",
            f"--wrap=exec sleep {lease.for_s:g}",
        ).split(";")[0].strip()  # fmt: skip
        return {"job": job, "partition": lease.table}

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Cancel the job, whatever its number is: nobody else can submit to this partition."""
        if not _partition_exists(cluster, lease):
            return {"partition": "gone"}
        _slurm(cluster, "scancel", f"--partition={lease.table}")
        return {"cancelled": lease.evidence.get("job", "")}

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        """The job has left its nodes, and the partition is deleted."""
        queue = ("squeue", "--all", "--noheader", f"--partition={lease.table}", "--states=all", "--format=%T")
        if _partition_exists(cluster, lease):
            left = set(_slurm(cluster, *queue).split())
            if left & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"}:
                return None
            with contextlib.suppress(ClusterError):  # it is in use still: try again
                _slurm(cluster, "scontrol", "delete", f"PartitionName={lease.table}")
            if _partition_exists(cluster, lease):
                return None
        return {"partition": "deleted"}


def _partition_exists(cluster: Cluster, lease: Lease) -> bool:
    listed = _slurm(cluster, "scontrol", "--all", "--oneliner", "show", "partition")
    return f"PartitionName={lease.table} " in listed


def _node(cluster: Cluster, name: str) -> dict[str, str]:
    """A node's state, and its reason without who gave it when ("" for none)."""
    text = _slurm(cluster, "scontrol", "--oneliner", "show", "node", name)
    state = re.search(r" State=(\S+)", text)
    reason = re.search(r" Reason=(.*?)(?: \[[^\]]*\])?\s*(?: Comment=.*)?$", text.strip())
    return {"state": state[1] if state else "", "reason": reason[1] if reason else _NO_REASON}


def _slurm(cluster: Cluster, *command: str) -> str:
    """Ask as root; a ClusterError when there is no answer in time."""
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SLURM_S,
            env=node.daemon_environment(cluster),
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{' '.join(command)}: no answer within {_SLURM_S:g} s") from None
    if result.returncode != 0:
        raise ClusterError(f"{' '.join(command)}: {(result.stderr or result.stdout).strip()[:500]}")
    return result.stdout
