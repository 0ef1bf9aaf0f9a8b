"""node.stop_slurmd: slurmd on a node is gone while the tasks that it started live on.

Slurm calls the node down after SlurmdTimeout, and kills its tasks when slurmd is back.
"""

from __future__ import annotations

import asyncio
from typing import Any

from harness.faults import Hit, Tools
from harness.faults.leased import Leased
from harness.slurm.states import node_is_usable

_PORT = 6818
_CONNECT_S = 2.0


class NodeStopSlurmd(Leased):
    """slurmd is killed, and started again to heal."""

    def arguments(self, hit: Hit) -> list[str]:
        """Those nodes."""
        return ["slurmd-stop", "--node", *hit.nodes]

    async def seen(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """Its port refuses connections, or the controller has found that it does not answer."""
        found: dict[str, Any] = {}
        for node in hit.nodes:
            refused = await _refuses(node)
            state = await tools.slurm_state(node)
            if not refused and (state in ("", "UNKNOWN") or node_is_usable(state)):
                return None
            found[node] = {"port": f"{_PORT} refused" if refused else "", "slurm": state}
        return {"nodes": found}


async def _refuses(node: str) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(node, _PORT), _CONNECT_S)
    except ConnectionRefusedError:
        return True
    except (OSError, asyncio.TimeoutError):
        return False  # that is no answer: the name is unknown here, or the node is cut off
    writer.close()
    return False


FAULT = NodeStopSlurmd
