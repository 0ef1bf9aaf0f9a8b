"""Names and addresses: pure choices, so that two clusters on one machine never meet.

Link names derive from the cluster's id and stay within the kernel's 15 characters; the subnet is one
that no route and no address of this machine overlaps.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from harness.devcluster.errors import ClusterError

MOST_NODES = 250
HEAD = "head"
LOGIN = "login"
_LONGEST_LINK_NAME = 15


def node_names(count: int) -> tuple[str, ...]:
    """p1 to pN."""
    if not 1 <= count <= MOST_NODES:
        raise ClusterError(f"--nodes {count}: 1 to {MOST_NODES} are possible", exit_status=2)
    return tuple(f"p{number}" for number in range(1, count + 1))


def expand_nodes(texts: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Names out of words such as ``p1``, ``p2,p4`` and ``p[1-3]``, each once; only known ones are taken."""
    found: list[str] = []
    for word in (word for text in texts for word in text.split(",") if word):
        match = re.fullmatch(r"p\[([0-9]{1,3})-([0-9]{1,3})\]", word)
        some = [f"p{number}" for number in range(int(match[1]), int(match[2]) + 1)] if match else [word]
        unknown = [name for name in some if name not in known]
        if unknown or not some:
            raise ClusterError(
                f"no node {unknown[0] if unknown else word}; there are {known[0]} to {known[-1]}",
                exit_status=2,
            )
        found += some
    return tuple(dict.fromkeys(found))


def bridge_name(identity: str) -> str:
    """The bridge that all the cluster's cables end in."""
    return _link(f"hh{identity}")


def link_name(identity: str, host: str) -> str:
    """The machine's end of a host's cable."""
    return _link(f"hh{identity}{'h' if host == HEAD else host}")


def _link(name: str) -> str:
    if len(name) > _LONGEST_LINK_NAME:
        raise ValueError(f"{name}: a link's name has at most {_LONGEST_LINK_NAME} characters")
    return name


def gateway_address(subnet: IPv4Network) -> IPv4Address:
    """The machine's own address on the bridge; the login environment's too."""
    return subnet.network_address + 1


def head_address(subnet: IPv4Network) -> IPv4Address:
    """Where slurmctld and slurmdbd are."""
    return subnet.network_address + 2


def node_address(subnet: IPv4Network, index: int) -> IPv4Address:
    """Address of node `index`, counted from 0; they are consecutive in their last byte."""
    if not 0 <= index < MOST_NODES:
        raise ValueError(f"node index {index}: 0 to {MOST_NODES - 1}")
    return subnet.network_address + 256 + 1 + index


def choose_subnet(taken: Iterable[IPv4Network], seed: int) -> IPv4Network:
    """A private /16 that overlaps nothing in `taken`; `seed` decides where the search begins."""
    # 0.0.0.0/0 is the default route: it says where the rest goes, not that the rest is in use.
    occupied = [network for network in taken if network.prefixlen > 0]
    candidates = [IPv4Network((10 << 24 | second << 16, 16)) for second in range(256)]
    begin = seed % len(candidates)
    candidates = candidates[begin:] + candidates[:begin]
    candidates += [IPv4Network((172 << 24 | second << 16, 16)) for second in range(16, 32)]
    candidates += [IPv4Network("198.18.0.0/16"), IPv4Network("198.19.0.0/16")]
    for candidate in candidates:
        if not any(candidate.overlaps(network) for network in occupied):
            return candidate
    raise ClusterError(
        "this machine's routes leave no /16 free in 10.0.0.0/8, 172.16.0.0/12 or 198.18.0.0/15;"
        " remove a route (see: ip route)"
    )


def taken_subnets(routes_json: str, addresses_json: str) -> tuple[IPv4Network, ...]:
    """What `ip -j route show table all` and `ip -j address` say is in use."""
    found: list[IPv4Network] = []
    for route in json.loads(routes_json or "[]"):
        found += _network(route.get("dst", ""))
    for link in json.loads(addresses_json or "[]"):
        for address in link.get("addr_info", ()):
            if address.get("family") == "inet":
                found += _network(f"{address['local']}/{address['prefixlen']}")
    return tuple(found)


def _network(text: str) -> Sequence[IPv4Network]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ()  # "default", and other words of `ip`
    return (network,) if isinstance(network, IPv4Network) else ()
