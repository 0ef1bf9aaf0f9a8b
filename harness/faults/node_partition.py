"""node.partition: packets between nodes are dropped; all nodes run on and no connection is reset.

params: ``from_rest`` (true: only the job's other nodes are cut off from these, so that Slurm hears both sides),
``one_way`` (true: only what these nodes send is lost).
"""

from __future__ import annotations

from typing import Any

from harness.faults import FaultError, Hit, Tools
from harness.faults.leased import Leased, cut_off


class NodePartition(Leased):
    """Packet filters on the nodes themselves, deleted to heal."""

    def arguments(self, hit: Hit) -> list[str]:
        """These nodes from everyone, or from the rest of the job.

        Raises:
            FaultError: there is no rest.
        """
        one_way = ["--one-way"] if hit.params.get("one_way") else []
        if not hit.params.get("from_rest"):
            return ["partition", "--node", *hit.nodes, *one_way]
        rest = [node for node in hit.job_nodes if node not in hit.nodes]
        if not rest:
            raise FaultError(f"node.partition: the job has no other nodes than {', '.join(hit.nodes)}")
        return ["partition", "--from", ",".join(hit.nodes), "--to", ",".join(rest), *one_way]

    async def seen(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """Agents are silent: those of one side, as the supervisor sees it from the other."""
        return cut_off(tools, hit)


FAULT = NodePartition
