"""Who has which hardware address: told to every host, instead of asked by broadcast.

The kernel keeps one neighbour table for all network namespaces of a machine, with room for 1024.
128 nodes that talk to each other overflow it, and then messages fail: a second `srun -N128` once
waited 73 seconds. Permanent entries are not counted. An entry goes when its host loses power, so that
others ask for it in vain and see "no route to host" after three seconds, as on a real Ethernet.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from harness.devcluster import linux
from harness.devcluster.state import Host

_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_NLM_F_REQUEST, _NLM_F_REPLACE, _NLM_F_CREATE = 0x1, 0x100, 0x400
_NUD_PERMANENT = 0x80
_NDA_DST, _NDA_LLADDR = 1, 2


def hardware_address(address: IPv4Address) -> bytes:
    """Made from the address; 02 says that it is administered locally."""
    return b"\x02\x68" + address.packed


def hardware_text(address: IPv4Address) -> str:
    """As `ip` writes it."""
    return ":".join(f"{byte:02x}" for byte in hardware_address(address))


def message(known: bool, interface: int, addresses: Iterable[IPv4Address]) -> bytes:
    """Netlink requests that make these addresses known, or unknown, on one interface."""
    kind, flags = (
        (_RTM_NEWNEIGH, _NLM_F_REQUEST | _NLM_F_CREATE | _NLM_F_REPLACE) if known
        else (_RTM_DELNEIGH, _NLM_F_REQUEST)
    )  # fmt: skip
    whole = b""
    for address in addresses:
        body = struct.pack("=BxxxiHBB", socket.AF_INET, interface, _NUD_PERMANENT, 0, 0)
        body += struct.pack("=HH4s", 8, _NDA_DST, address.packed)
        if known:
            body += struct.pack("=HH6sxx", 10, _NDA_LLADDR, hardware_address(address))
        whole += struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body
    return whole


@dataclass(frozen=True)
class _Table:
    """A way into one host's neighbour table: a socket made in its network namespace stays there."""

    channel: socket.socket
    interface: int

    def tell(self, known: bool, addresses: Iterable[IPv4Address]) -> None:
        packed = message(known, self.interface, addresses)
        if packed:
            self.channel.send(packed)


class Neighbours:
    """The neighbour tables of the machine itself and of all hosts that have power."""

    def __init__(self, bridge: str, gateway: IPv4Address) -> None:
        self._gateway = gateway
        self._machine = _open(bridge)
        self._tables: dict[str, _Table] = {}
        self._addresses: dict[str, IPv4Address] = {}

    def add(self, processes: Mapping[Host, int], interface: str) -> None:
        """New hosts, each with a process in its network: they and all the others know each other."""
        known_before = list(self._addresses.values())
        fresh = {host.name: IPv4Address(host.address) for host in processes}
        for table in (self._machine, *self._tables.values()):
            table.tell(True, fresh.values())
        with open("/proc/self/ns/net", "rb") as own:
            for host, pid in processes.items():
                linux.setns(f"/proc/{pid}/ns/net", linux.CLONE_NEWNET)
                try:
                    self._tables[host.name] = table = _open(interface)
                finally:
                    linux.setns_fd(own.fileno(), linux.CLONE_NEWNET, "own network namespace")
                others = [address for name, address in fresh.items() if name != host.name]
                table.tell(True, [self._gateway, *known_before, *others])
        self._addresses |= fresh

    def remove(self, hosts: Iterable[Host]) -> None:
        """Hosts that lost their power: nobody knows them any more."""
        gone: list[IPv4Address] = []
        for host in hosts:
            table = self._tables.pop(host.name, None)
            if table is not None:
                table.channel.close()
                gone.append(self._addresses.pop(host.name))
        for table in (self._machine, *self._tables.values()):
            table.tell(False, gone)

    def close(self) -> None:
        """Let go of the network namespaces: they, and their cables, last as long as our sockets."""
        for table in (self._machine, *self._tables.values()):
            table.channel.close()
        self._tables.clear()


def _open(interface: str) -> _Table:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    # Nobody reads the answers: only errors are answered, such as an entry that has gone already.
    return _Table(channel, socket.if_nametoindex(interface))
