"""node.drain: a node is drained by the administrator: its jobs run on, and no new ones are started."""

from __future__ import annotations

from typing import Any

from harness.faults import Hit, Tools
from harness.faults.leased import Leased


class NodeDrain(Leased):
    """The reason given is ours; only nodes that still have it are resumed to heal."""

    def arguments(self, hit: Hit) -> list[str]:
        """Those nodes."""
        return ["drain", "--node", *hit.nodes]

    async def seen(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The controller's state of every node says so."""
        states = {node: await tools.slurm_state(node) for node in hit.nodes}
        return {"slurm": states} if all("DRAIN" in state for state in states.values()) else None


FAULT = NodeDrain
