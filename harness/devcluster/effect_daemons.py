"""Faults of Slurm's own daemons: slurmd gone while its tasks live, slurmctld frozen or gone.

A daemon is found as the child of its host's process 1 that runs that program, and signalled by an identity
that cannot be somebody else's. It is started again inside its host, where process 1 adopts it.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from harness.devcluster import config, enter
from harness.devcluster.effects import REBOOTED, powered, present
from harness.devcluster.errors import ClusterError
from harness.devcluster.leases import Lease
from harness.devcluster.processes import ProcessId, children, send, state_letter, wait_gone
from harness.devcluster.state import Cluster, Host
from harness.devcluster.waiting import wait_until

_SIGNAL_S = 3.0
_SAVED_S = 15.0  # how long slurmctld may take to end with its state saved


class SlurmdStop:
    """slurmd is killed as by a crash; the tasks that it started live on. It is started again without -b."""

    hits = "nodes"
    asks_slurm = False

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Kill it and see it gone."""
        return {name: _kill(powered(cluster, name)[1].pid, "slurmd", name) for name in lease.nodes}

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Start it where it does not run."""
        return {
            name: _start(cluster, present(cluster, lease, name), ["slurmd", "-D"]) for name in lease.nodes
        }

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        """It listens on every node that still is the same."""
        hosts = [host for name in lease.nodes if (host := present(cluster, lease, name)) is not None]
        return _listening(hosts, "slurmd", config.NODE_PORT)


class _Controller:
    hits = "controller"
    asks_slurm = False

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Let it run on; start it if it does not run."""
        _, init = powered(cluster, cluster.head.name)
        for process in children(init.pid, "slurmctld"):
            if send(process, signal.SIGCONT):
                return {"pid": process.pid, "signal": "SIGCONT"}
        return {"slurmctld": _start(cluster, cluster.head, ["slurmctld", "-D"])}

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        """It listens, and is not stopped."""
        found = _listening([cluster.head], "slurmctld", config.CONTROLLER_PORT)
        if found is None or found[cluster.head.name]["state"] == "T":
            return None
        return found


class ControllerFreeze(_Controller):
    """slurmctld is stopped: it takes connections and answers nothing."""

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Stop it, and see it stopped."""
        process = _one(powered(cluster, cluster.head.name)[1].pid, "slurmctld", "the head")
        send(process, signal.SIGSTOP)
        wait_until(lambda: state_letter(process) == "T", deadline_s=_SIGNAL_S, what="slurmctld has stopped")
        return {"pid": process.pid, "signal": "SIGSTOP", "state": state_letter(process)}


class ControllerKill(_Controller):
    """slurmctld is ended: connections are refused until it is started again, with the jobs that it knew."""

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """End it with SIGTERM and see it gone.

        SIGKILL would lose what it has not written yet (Slurm writes seconds after a change): jobs that had ended
        would run or wait again after its start, and nodes be drained for jobs that they do not know.
        """
        process = _one(powered(cluster, cluster.head.name)[1].pid, "slurmctld", "the head")
        send(process, signal.SIGTERM)
        if wait_gone(process, _SAVED_S):
            return {"pid": process.pid, "signal": "SIGTERM", "gone": True}
        raise ClusterError(f"slurmctld was told to end and has not ended within {_SAVED_S:g} s")


def _one(init: int, program: str, where: str) -> ProcessId:
    found = children(init, program)
    if not found:
        raise ClusterError(f"{program} does not run on {where}: there is nothing to stop")
    return found[0]


def _kill(init: int, program: str, where: str) -> dict[str, Any]:
    process = _one(init, program, where)
    send(process, signal.SIGKILL)
    if not wait_gone(process, _SIGNAL_S):
        raise ClusterError(f"{program} on {where} was killed and has not ended within {_SIGNAL_S:g} s")
    alive = [step.pid for step in children(init, "slurmstepd")]
    return {"pid": process.pid, "signal": "SIGKILL", "gone": True, "steps alive": alive}


def _start(cluster: Cluster, host: Host | None, command: list[str]) -> str:
    if host is None or host.init is None:
        return REBOOTED
    if children(host.init.pid, command[0]):
        return "it runs already"
    enter.start(cluster, host, command)
    return "started"


def _listening(hosts: list[Host], program: str, port: int) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for host in hosts:
        running = children(host.init.pid, program) if host.init is not None else []
        if not running or not _listens(running[0].pid, port):
            return None
        found[host.name] = {"pid": running[0].pid, "state": state_letter(running[0]), "listens": port}
    return found


def _listens(pid: int, port: int) -> bool:
    """Whether anything listens there in the process's network; looked up, for a probe would be an error in a log."""
    if not os.path.exists(f"/proc/{pid}"):
        return False
    with open(f"/proc/{pid}/net/tcp") as table:
        return any(
            fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in map(str.split, table)
        )
