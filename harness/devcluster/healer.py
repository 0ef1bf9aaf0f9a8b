"""The daemon's keeper of leases: it arranges each fault's end before it lets it begin, and sees to that end.

It has no thread: the daemon's loop calls `turn` when something is due. A healing that fails is tried again
until it succeeds or the cluster is taken down. What needs slurmctld waits while slurmctld itself is away.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.devcluster import effects, leases, names
from harness.devcluster.errors import ClusterError
from harness.devcluster.leases import Lease
from harness.devcluster.state import Cluster

_LOOK_AGAIN_S = 0.1
_TRY_AGAIN_S = 1.0
_HEAL_AGAIN_S = 10.0
_TROUBLE = (ClusterError, OSError, ValueError, subprocess.SubprocessError)


class Healer:
    """All leases of one cluster's life. `cluster` is to be kept up to date by whoever owns this."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._effects = effects.registry()
        self._leases: dict[int, Lease] = {}
        self._due: dict[int, float] = {}  # when each lease that has not ended is to be looked at
        self._healed_at: dict[int, float] = {}  # when its effect was last undone

    # -- asked -------------------------------------------------------------------------------------

    def inject(self, request: Mapping[str, Any], asked_by: str) -> dict[str, Any]:
        """Do a fault; a ClusterError is a refusal, or says why it could not be done."""
        lease = self._planned(request, asked_by)
        for other in self._open():
            if other.identity == lease.identity:
                if (other.kind, other.nodes, other.options) == (lease.kind, lease.nodes, lease.options):
                    return {**other.to_json(), "changed": False}
                raise ClusterError(
                    f"--id {lease.identity}: a fault of that id is {other.state}; choose another"
                )
            self._refuse_clash(lease, other)
        effect = self._effects[lease.kind]
        # From here on it ends by itself.
        self._due[lease.serial] = lease.until_monotonic_ns / 1e9
        self._record(lease)
        try:
            evidence = effect.inject(self.cluster, lease)
        except _TROUBLE as error:
            self._begin_healing(replace(lease, error=str(error)), "timer")
            self.turn()
            raise ClusterError(f"{lease.kind}: {error}") from error
        # It lasts from its effect: a daemon may have taken seconds to end.
        lasting = int(lease.for_s * 1e9)
        lease = replace(
            lease,
            state=leases.ACTIVE,
            evidence=evidence,
            effect_wall_ns=time.time_ns(),
            until_wall_ns=time.time_ns() + lasting,
            until_monotonic_ns=time.monotonic_ns() + lasting,
        )
        self._due[lease.serial] = lease.until_monotonic_ns / 1e9
        self._record(lease)
        return {**lease.to_json(), "changed": True}

    def heal(self, identity: str | None, asked_by: str) -> list[dict[str, Any]]:
        """End those of that id, or all, now; what became of them so far. Unknown or ended ones are no error."""
        chosen = [lease for lease in self._open() if identity in (None, lease.identity)]
        for lease in chosen:
            if lease.state != leases.HEALING:
                self._begin_healing(lease, asked_by)
        self.turn()
        if identity is not None and not chosen:
            chosen = [lease for lease in self._leases.values() if lease.identity == identity][-1:]
        return [self._leases[lease.serial].to_json() for lease in chosen]

    def close(self) -> None:
        """The cluster has been taken down, and every fault with it."""
        for lease in self._open():
            gone = {"seen": {"cluster": "taken down"}}
            self._record(
                replace(
                    lease, state=leases.HEALED, healed_by="down", healed=gone, healed_wall_ns=time.time_ns()
                )
            )
        self._due.clear()

    def all(self) -> list[dict[str, Any]]:
        """Every lease of the cluster's life, the oldest first."""
        return [lease.to_json() for lease in self._leases.values()]

    def open(self) -> list[dict[str, Any]]:
        """Those that have not ended."""
        return [lease.to_json() for lease in self._open()]

    # -- due ---------------------------------------------------------------------------------------

    def turn(self) -> float | None:
        """Do what is due; the seconds until something will be, None for nothing at all."""
        # The controller first: others need it.
        for lease in sorted(self._open(), key=lambda lease: self._effects[lease.kind].hits != "controller"):
            if self._due[lease.serial] > time.monotonic():
                continue
            if lease.state != leases.HEALING:
                lease = self._begin_healing(lease, "timer")
            self._try(lease)
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _begin_healing(self, lease: Lease, by: str) -> Lease:
        lease = replace(lease, state=leases.HEALING, healed_by=by)
        self._due[lease.serial] = time.monotonic()
        self._record(lease)
        return lease

    def _try(self, lease: Lease) -> None:
        effect = self._effects[lease.kind]
        away = [other.identity for other in self._open() if self._effects[other.kind].hits == "controller"]
        if effect.asks_slurm and away:
            self._due[lease.serial] = time.monotonic() + _LOOK_AGAIN_S  # slurmctld is away by our own doing
            return
        try:
            if time.monotonic() - self._healed_at.get(lease.serial, -math.inf) > _HEAL_AGAIN_S:
                lease = replace(lease, healed={"done": effect.heal(self.cluster, lease)})
                self._leases[lease.serial] = lease
                self._healed_at[lease.serial] = time.monotonic()
            seen = effect.healed(self.cluster, lease)
        except _TROUBLE as error:
            if f"healing: {error}" not in lease.error:
                self._record(replace(lease, error=f"{lease.error}\nhealing: {error}".strip()))
            self._due[lease.serial] = time.monotonic() + _TRY_AGAIN_S
            return
        if seen is None:
            self._due[lease.serial] = time.monotonic() + _LOOK_AGAIN_S
            return
        del self._due[lease.serial]
        self._record(
            replace(
                lease,
                state=leases.HEALED if lease.effect_wall_ns else leases.FAILED,
                healed={**lease.healed, "seen": seen},
                healed_wall_ns=time.time_ns(),
            )
        )

    # -- records -----------------------------------------------------------------------------------

    def _open(self) -> list[Lease]:
        return [self._leases[serial] for serial in sorted(self._due)]

    def _record(self, lease: Lease) -> None:
        self._leases[lease.serial] = lease
        leases.record(self.cluster.paths.faults, lease)

    def _planned(self, request: Mapping[str, Any], asked_by: str) -> Lease:
        kind = request.get("kind")
        if not isinstance(kind, str) or kind not in self._effects:
            raise ClusterError(f"fault {kind!r}: there are {', '.join(self._effects)}", exit_status=2)
        serial = len(self._leases) + 1
        for_s = leases.check_duration(request.get("for_s"))
        nodes, options = self._targets(kind, request)
        now_wall, now_monotonic = time.time_ns(), time.monotonic_ns()
        lasting = int(for_s * 1e9)
        return Lease(
            serial=serial,
            identity=leases.check_identity(request.get("id"), serial),
            kind=kind,
            nodes=nodes,
            options=options,
            for_s=for_s,
            asked_by=asked_by,
            requested_wall_ns=now_wall,
            until_wall_ns=now_wall + lasting,
            until_monotonic_ns=now_monotonic + lasting,
            hosts={
                host.name: (host.init.pid, host.init.start_ticks)
                for host in (*self.cluster.nodes, self.cluster.head)
                if host.init is not None
            },
        )

    def _targets(self, kind: str, request: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
        known = [host.name for host in self.cluster.nodes]
        hits = self._effects[kind].hits
        given = {key: _texts(request, key) for key in ("nodes", "from", "to")}
        one_way = request.get("one_way") is True
        halves = request.get("halves") is True
        if hits != "links" and (given["from"] or given["to"] or one_way or halves):
            raise ClusterError(
                f"{kind}: --from, --to, --one-way and --halves are for partition", exit_status=2
            )
        nodes = names.expand_nodes(given["nodes"], known)
        if hits == "controller":
            if nodes:
                raise ClusterError(f"{kind}: there is one controller; leave --node out", exit_status=2)
            return (), {}
        if hits == "links":
            return _sides(nodes, given, known, one_way=one_way, halves=halves)
        if not nodes:
            raise ClusterError(f"{kind}: which nodes? Give --node, such as {known[0]}", exit_status=2)
        for name in nodes:
            effects.powered(self.cluster, name)
        return nodes, {}

    def _refuse_clash(self, lease: Lease, other: Lease) -> None:
        """Two of a kind on one node could not be undone one without the other; partitions can."""
        mine, theirs = self._effects[lease.kind].hits, self._effects[other.kind].hits
        both = set(lease.nodes) & set(other.nodes) if mine == theirs == "nodes" else set()
        if mine == theirs == "controller" or (both and lease.kind == other.kind):
            where = f" on {', '.join(sorted(both))}" if both else ""
            raise ClusterError(
                f"{lease.kind}: fault {other.identity}, {other.kind}{where}, is {other.state};"
                f" first: {self.cluster.paths.command('heal', other.identity)}"
            )


def _sides(
    nodes: tuple[str, ...],
    given: Mapping[str, Sequence[str]],
    known: Sequence[str],
    *,
    one_way: bool,
    halves: bool,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Nodes that are cut off from everyone, or the two sides that do not hear each other."""
    head = [names.HEAD]
    sources = names.expand_nodes(given["from"], [*known, *head])
    sinks = names.expand_nodes(given["to"], [*known, *head])
    if halves and not (sources or sinks):
        whole = nodes or tuple(known)
        nodes, sources, sinks = (), whole[: len(whole) // 2], whole[len(whole) // 2 :]
    if nodes and not (sources or sinks or halves):
        return nodes, {"one_way": one_way}
    if nodes or not (sources and sinks) or set(sources) & set(sinks):
        raise ClusterError(
            "partition: give --node (cut off from everyone), or --halves, or --from and --to, which share no host",
            exit_status=2,
        )
    return (), {"from": list(sources), "to": list(sinks), "one_way": one_way}


def _texts(request: Mapping[str, Any], key: str) -> list[str]:
    given = request.get(key, [])
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise ClusterError(f"fault: `{key}` is a list of node names")
    return given
