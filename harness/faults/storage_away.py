"""storage.away: the shared folder is away on a node: its paths are not found, and none can be made.

Files that are open already stay open, as with a lazy unmount; other nodes see the folder as before.
"""

from __future__ import annotations

from typing import Any

from harness.faults import Hit, Tools
from harness.faults.leased import Leased


class StorageAway(Leased):
    """Covered, and uncovered to heal."""

    def arguments(self, hit: Hit) -> list[str]:
        """On those nodes."""
        return ["storage-away", "--node", *hit.nodes]

    async def seen(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The nodes' own lists of mounts, which the cluster's evidence is: nobody else can look there."""
        return {}


FAULT = StorageAway
