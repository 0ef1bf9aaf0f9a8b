"""node.power_off: the site's power command takes the node's power away, as a failed supply would."""

from __future__ import annotations

from typing import Any

from harness.faults import Hit, Tools
from harness.slurm.states import node_is_usable


class NodePowerOff:
    """Power off, and on again to heal."""

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Power off."""
        return await tools.power("off", hit.node)

    async def verify_effect(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """Two views must agree: the power command says off, and the node's agent is silent."""
        silent = tools.lost(hit.node)
        if not silent:
            return None
        status = await tools.power("status", hit.node)
        return {"power": status["said"], "agent": silent} if status["said"] == "off" else None

    async def heal(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Power on."""
        return await tools.power("on", hit.node)

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The power command says on, and Slurm uses the node again."""
        status = await tools.power("status", hit.node)
        state = await tools.slurm_state(hit.node)
        usable = not state or node_is_usable(state)
        return {"power": status["said"], "slurm": state} if status["said"] == "on" and usable else None


FAULT = NodePowerOff
