"""job.cancel: `scancel` of our own job: it is ended, and not started again."""

from __future__ import annotations

from typing import Any

from harness.faults import Hit, Tools
from harness.faults.own_job import checked, described


class JobCancel:
    """What any user may do to his own job."""

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Only if the job is ours.

        Raises:
            FaultError: it is not, or Slurm refuses.
        """
        before = await described(tools, hit)
        await tools.slurm(["scancel", await checked(tools, hit)])
        return {"asked": "scancel", "before": before}

    async def verify_effect(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The controller says that it is cancelled."""
        now = await described(tools, hit)
        return {"slurm": now} if now["JobState"].startswith("CANCELLED") else None

    async def heal(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Nothing can be undone: a cancelled job has ended."""
        return {"nothing_to_undo": True}

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """By nature."""
        return {"nothing_to_undo": True}


FAULT = JobCancel
