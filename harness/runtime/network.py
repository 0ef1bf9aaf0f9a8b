"""This node's network interfaces and their IPv4 addresses. Standard library only."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct

_SIOCGIFADDR = 0x8915  # netdevice(7)


def addresses() -> dict[str, str]:
    """Interface -> IPv4 address, of those that have one."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):
                found[name] = socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24])
    return found


def interface_of(address: str) -> str:
    """Name of the interface that has this IPv4 address; "" when none has."""
    return next((name for name, own in addresses().items() if own == address), "")
