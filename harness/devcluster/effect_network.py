"""Faults of the network: a cable that is pulled, and packets that do not arrive.

A partition is an nftables table in the network namespaces of the hosts themselves: the machine's own rules
are never touched. What it drops is named by elements that the kernel forgets after the lease's time, so that
it ends by itself whatever becomes of the daemon. Local senders see nothing but silence on TCP; a datagram
that they send is refused with EPERM. Connections that are open stay open, and go on if it ends in time.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from harness.devcluster import linux, network
from harness.devcluster.effects import REBOOTED, powered, present
from harness.devcluster.errors import ClusterError
from harness.devcluster.leases import Lease
from harness.devcluster.packages import SYSTEM_PATH
from harness.devcluster.state import Cluster

_NFT_S = 10.0


class LinkDown:
    """The machine's end of each node's cable is down: no carrier at the node, and nobody is told."""

    hits = "nodes"
    asks_slurm = False

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Down, and looked at."""
        for name in lease.nodes:
            network.set_up(powered(cluster, name)[0].link, False)
        found = {name: _link(cluster.host(name).link) for name in lease.nodes}
        up = [name for name, link in found.items() if "UP" in link["flags"]]
        if up:
            raise ClusterError(f"the link of {', '.join(up)} is still up: {found}")
        return {"ip -j link": found}

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Up."""
        done: dict[str, Any] = {}
        for name in lease.nodes:
            host = present(cluster, lease, name)
            if host is None:
                done[name] = REBOOTED
            else:
                network.set_up(host.link, True)
                done[name] = "up"
        return done

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        """Each link that there is carries again."""
        hosts = [cluster.host(name) for name in lease.nodes if present(cluster, lease, name)]
        found = {host.name: _link(host.link) for host in hosts}
        return {"ip -j link": found} if all(link["operstate"] == "UP" for link in found.values()) else None


def _link(name: str) -> dict[str, Any]:
    (link,) = json.loads(network.ip("-j", "link", "show", name))
    return {key: link[key] for key in ("ifname", "flags", "operstate")}


class Partition:
    """Packets between hosts are dropped: of some nodes with everyone, or between two sets, or one way only."""

    hits = "links"
    asks_slurm = False

    def inject(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """A table in each host concerned, and what the kernel says that it holds."""
        found: dict[str, Any] = {}
        for name, (sent, received) in cuts(cluster, lease).items():
            pid = powered(cluster, name)[1].pid
            _nft(pid, "-f", "-", rules=rules(lease.table, lease.for_s, sent, received))
            listed = json.loads(_nft(pid, "-j", "list", "table", "inet", lease.table))
            found[name] = [entry for entry in listed["nftables"] if "set" in entry]
            if not any(entry["set"].get("elem") for entry in found[name]):
                raise ClusterError(f"{name}: the table drops nothing: {listed}")
        return {"nft -j list table": found}

    def heal(self, cluster: Cluster, lease: Lease) -> dict[str, Any]:
        """Delete the tables; what has gone already is gone."""
        done: dict[str, Any] = {}
        for name in cuts(cluster, lease):
            host = present(cluster, lease, name)
            if host is None or host.init is None:
                done[name] = REBOOTED
            elif lease.table in _tables(host.init.pid):
                _nft(host.init.pid, "delete", "table", "inet", lease.table)
                done[name] = "table deleted"
            else:
                done[name] = "no table"
        return done

    def healed(self, cluster: Cluster, lease: Lease) -> dict[str, Any] | None:
        """No host has such a table."""
        left: dict[str, list[str]] = {}
        for name in cuts(cluster, lease):
            host = present(cluster, lease, name)
            if host is not None and host.init is not None:
                left[name] = _tables(host.init.pid)
        return None if any(lease.table in tables for tables in left.values()) else {"tables left": left}


def cuts(cluster: Cluster, lease: Lease) -> Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """For each host concerned: the addresses to which it sends in vain, and from which nothing comes.

    ("*",) stands for everyone. Pure.
    """
    one_way = bool(lease.options.get("one_way"))
    if lease.nodes:  # from everyone
        return dict.fromkeys(lease.nodes, (("*",), () if one_way else ("*",)))
    sources, sinks = lease.options["from"], lease.options["to"]
    addresses = {host.name: host.address for host in (*cluster.nodes, cluster.head)}
    here = tuple(addresses[name] for name in sources)
    there = tuple(addresses[name] for name in sinks)
    back = ((), ()) if one_way else (here, there)
    return {
        **dict.fromkeys(sources, (there, back[1])),
        **dict.fromkeys(sinks, (back[0], here)),
    }


def rules(table: str, for_s: float, sent: Sequence[str], received: Sequence[str]) -> str:
    """What nft reads: both directions, loopback excepted; every element ends after `for_s`. Pure."""
    time_out = f"timeout {math.ceil(for_s * 1000)}ms"
    lines = [f"table inet {table} {{"]
    for chain, addresses, device, address in (
        ("output", sent, "oifname", "ip daddr"),
        ("input", received, "iifname", "ip saddr"),
    ):
        if not addresses:
            continue
        everyone = tuple(addresses) == ("*",)
        kind, match = ("ifname", device) if everyone else ("ipv4_addr", address)
        named = [f'"{network.INTERFACE}"'] if everyone else addresses
        elements = ", ".join(f"{element} {time_out}" for element in named)
        lines += [
            f"set {chain}_cut {{ type {kind}; flags timeout; elements = {{ {elements} }} }}",
            f"chain {chain} {{ type filter hook {chain} priority -10; policy accept;",
            f'{device} "lo" accept',
            f"{match} @{chain}_cut drop",
            "}",
        ]
    return "\n".join([*lines, "}"]) + "\n"


@contextmanager
def _network_of(pid: int) -> Iterator[None]:
    """Work in a process's network namespace for a moment."""
    with open("/proc/self/ns/net", "rb") as own:
        linux.setns(f"/proc/{pid}/ns/net", linux.CLONE_NEWNET)
        try:
            yield
        finally:
            linux.setns_fd(own.fileno(), linux.CLONE_NEWNET, "own network namespace")


def _tables(pid: int) -> list[str]:
    listed = json.loads(_nft(pid, "-j", "list", "tables"))["nftables"]
    return [entry["table"]["name"] for entry in listed if "table" in entry]


def _nft(pid: int, *arguments: str, rules: str = "") -> str:
    with _network_of(pid):
        result = subprocess.run(
            ["nft", *arguments],
            input=rules,
            capture_output=True,
            text=True,
            check=False,
            timeout=_NFT_S,
            env={"PATH": SYSTEM_PATH, "LC_ALL": "C"},
        )
    if result.returncode != 0:
        raise ClusterError(f"nft {' '.join(arguments)}: {result.stderr.strip()[:500]}")
    return result.stdout
