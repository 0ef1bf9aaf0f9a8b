"""node.kill_processes: every process of ours on one node is killed at once. Never reported as a power-off.

What a plain user may do to his own job anywhere: the node itself stays up, and keeps its local files.
"""

from __future__ import annotations

from typing import Any

from harness.faults import Hit, Tools


class NodeKillProcesses:
    """SIGKILL to the agent, its fork server and its ranks."""

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """The agent kills its ranks, its fork server, and then itself."""
        tools.tell_agent(hit.node, "die")
        return {"sent": "die"}

    async def verify_effect(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The agent's connection is closed, or it is silent."""
        why = tools.lost(hit.node)
        return {"agent": why} if why else None

    async def heal(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Nothing is left to undo: the node was never touched."""
        return {"nothing_to_undo": True}

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """By nature."""
        return {"nothing_to_undo": True}


FAULT = NodeKillProcesses
