"""job.preempt: a job of higher priority takes our job's nodes for a while; Slurm requeues ours."""

from __future__ import annotations

from typing import Any

from harness.faults import Hit, Tools
from harness.faults.leased import Leased
from harness.faults.own_job import checked, restarted


class JobPreempt(Leased):
    """The other job is cancelled to heal."""

    unsaid_s = 10.0  # ours may need these very nodes to run again

    def arguments(self, hit: Hit) -> list[str]:
        """The nodes that are named, or all of the job's."""
        return ["preempt", "--node", *(hit.nodes or hit.job_nodes)]

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Only if the job that will be preempted is ours."""
        await checked(tools, hit)
        return await super().inject(tools, hit)

    async def seen(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """Our job has left its nodes, as the controller says."""
        return await restarted(tools, hit)


FAULT = JobPreempt
