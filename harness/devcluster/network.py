"""The cluster's wires: one bridge, and a virtual cable from it to each host's network namespace.

Addresses and up or down are set by ioctl, which takes microseconds; making and deleting links is left
to ``ip``. Nothing here touches a link that was not named to it, a route, or a firewall rule.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from harness.devcluster import neighbours
from harness.devcluster.errors import ClusterError
from harness.devcluster.names import taken_subnets
from harness.devcluster.packages import SYSTEM_PATH

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_IFF_UP = 0x1
INTERFACE = "eth0"  # what a host calls its own end of the cable


def ip(*arguments: str, batch: Sequence[str] = ()) -> str:
    """Run ``ip`` in the system's folders only; its failure is a ClusterError with its own words."""
    result = subprocess.run(
        ["ip", *arguments],
        input="\n".join(batch) + "\n" if batch else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": SYSTEM_PATH, "LC_ALL": "C"},
    )
    if result.returncode != 0:
        raise ClusterError(f"ip {' '.join(arguments)}: {result.stderr.strip()[:500]}")
    return result.stdout


def taken() -> tuple[IPv4Network, ...]:
    """The subnets that this machine's routes and addresses use."""
    return taken_subnets(ip("-j", "route", "show", "table", "all"), ip("-j", "address"))


def make_bridge(name: str, address: IPv4Address, prefix_length: int) -> None:
    """A bridge with the machine's own address on it."""
    ip(
        "-batch",
        "-",
        batch=(
            # A hardware address of its own: otherwise it changes as cables come and go.
            f"link add {name} address {neighbours.hardware_text(address)} type bridge"
            " stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {name} addrgenmode none",
            f"addr add {address}/{prefix_length} dev {name}",
            f"link set {name} up",
        ),
    )
    acknowledge_at_once(name, address, prefix_length)


def acknowledge_at_once(
    interface: str, address: IPv4Address, prefix_length: int, *, own: bool = False
) -> None:
    """Switch delayed acknowledgements off on this subnet's route (`own`: also to our own address).

    slurmdbd's protocol writes a length and then a body. Nagle's algorithm holds the body back until
    the length is acknowledged, 40 ms later: sacct took 95 ms instead of 4.
    """
    subnet = IPv4Network((address, prefix_length), strict=False)
    routes = [f"route replace {subnet} dev {interface} proto kernel scope link src {address} quickack 1"]
    if own:
        routes.append(
            f"route replace local {address} dev {interface} table local proto kernel scope host"
            f" src {address} quickack 1"
        )
    ip("-batch", "-", batch=routes)


def connect(bridge: str, cables: Sequence[tuple[str, IPv4Address, int]]) -> None:
    """A cable for each (link, address, process): one end on the bridge, one in the process's network."""
    commands: list[str] = []
    for link, address, pid in cables:
        mac = neighbours.hardware_text(address)
        commands.append(f"link add {link} type veth peer name {INTERFACE} address {mac} netns {pid}")
        commands.append(f"link set {link} addrgenmode none")
        commands.append(f"link set {link} master {bridge} up")
    ip("-batch", "-", batch=commands)


def delete_links(names: Sequence[str]) -> None:
    """Delete those of these links that exist."""
    existing = [name for name in names if link_exists(name)]
    if existing:
        # -force: a cable vanishes by itself when its other end's namespace does.
        with contextlib.suppress(ClusterError):
            ip("-force", "-batch", "-", batch=[f"link delete {name}" for name in existing])


def link_exists(name: str) -> bool:
    """Whether this network namespace has such a link."""
    return os.path.exists(f"/sys/class/net/{name}")


def set_up(name: str, up: bool) -> None:
    """Bring a link of this network namespace up or down; a link that is gone counts as down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        try:
            request = fcntl.ioctl(channel, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
            flags = struct.unpack_from("H", request, 16)[0]
            flags = flags | _IFF_UP if up else flags & ~_IFF_UP
            fcntl.ioctl(channel, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags))
        except OSError as error:
            if up or error.errno != errno.ENODEV:
                raise


def keep_to_version_4() -> None:
    """In a fresh network namespace: no version 6 on the cable to come; its discovery is traffic."""
    with (
        contextlib.suppress(FileNotFoundError),
        open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as knob,
    ):
        knob.write("1")


def configure(address: IPv4Address, prefix_length: int) -> None:
    """Inside a host's network namespace: loopback and its end of the cable, both up."""
    mask = IPv4Network((0, prefix_length)).netmask
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, mask)):
            packed = struct.pack("16sHH4s16x", INTERFACE.encode(), socket.AF_INET, 0, value.packed)
            fcntl.ioctl(channel, request, packed)
    set_up("lo", True)
    set_up(INTERFACE, True)
