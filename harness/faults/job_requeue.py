"""job.requeue: `scontrol requeue` of our own job: it is ended by SIGTERM, and started again."""

from __future__ import annotations

from typing import Any

from harness.faults import Hit, Tools
from harness.faults.own_job import checked, described, restarted


class JobRequeue:
    """What any user may do to his own job."""

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Only if the job is ours.

        Raises:
            FaultError: it is not, or Slurm refuses.
        """
        before = await described(tools, hit)
        await tools.slurm(["scontrol", "requeue", await checked(tools, hit)])
        return {"asked": "scontrol requeue", "before": before}

    async def verify_effect(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The controller says that it left its nodes, or counts one more restart."""
        return await restarted(tools, hit)

    async def heal(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Nothing is left to undo: Slurm starts the job again by itself."""
        return {"nothing_to_undo": True}

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """By nature."""
        return {"nothing_to_undo": True}


FAULT = JobRequeue
