"""node.link_down: the network link of a node is down; the node and all on it run on."""

from __future__ import annotations

from typing import Any

from harness.faults import Hit, Tools
from harness.faults.leased import Leased, cut_off


class NodeLinkDown(Leased):
    """The link goes down, and up to heal."""

    def arguments(self, hit: Hit) -> list[str]:
        """Those nodes."""
        return ["link-down", "--node", *hit.nodes]

    async def seen(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """Agents are silent: that of the node, or all others where the supervisor itself is cut off."""
        return cut_off(tools, hit)


FAULT = NodeLinkDown
