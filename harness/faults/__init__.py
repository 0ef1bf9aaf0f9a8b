"""Faults: one file each. A fault is declared by a campaign, done here, and proved by three facts.

``inject`` does it, ``verify_effect`` looks whether it landed, ``heal`` undoes it, ``verify_healed``
looks whether it is undone. A fault knows nothing of workloads, and the supervisor decides when.
Standard library only.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

KINDS: dict[str, str] = {
    "node.power_off": "harness.faults.node_power_off",
    "node.kill_processes": "harness.faults.node_kill_processes",
}


class FaultError(Exception):
    """The fault, or its healing, could not be done; the message says why."""


class Tools(Protocol):
    """What the supervisor lends a fault."""

    async def power(self, action: str, node: str) -> dict[str, Any]:
        """Run the site's power command: ``off``, ``on`` or ``status``; returns what it said under "said".

        Raises:
            FaultError: this site has none, or it failed.
        """

    def tell_agent(self, node: str, message: str) -> None:
        """Send the agent of a node a message without content."""

    def lost(self, node: str) -> str:
        """Why the node counts as lost: "" while its agent beats."""

    async def slurm_state(self, node: str) -> str:
        """The node's state as Slurm says it, such as ``IDLE`` or ``DOWN*``; "" on a site without Slurm."""


class FaultKind(Protocol):
    """One kind of fault. Each method returns its evidence, in words, as JSON-ready data."""

    async def inject(self, tools: Tools, node: str) -> dict[str, Any]:
        """Do it. Raises FaultError when it could not be done."""

    async def verify_effect(self, tools: Tools, node: str) -> dict[str, Any] | None:
        """Evidence that the effect is there now, or None: not yet."""

    async def heal(self, tools: Tools, node: str) -> dict[str, Any]:
        """Undo it; may be called again."""

    async def verify_healed(self, tools: Tools, node: str) -> dict[str, Any] | None:
        """Evidence that it is undone now, or None: not yet."""


def create(kind: str) -> FaultKind:
    """The fault of that kind.

    Raises:
        KeyError: there is no such kind.
    """
    fault: FaultKind = import_module(KINDS[kind]).FAULT()
    return fault
