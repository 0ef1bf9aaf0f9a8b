"""job.time_limit: the time limit of our own job is lowered, so that it strikes: Slurm warns the job, then ends it.

params: ``minutes``, the new limit, 1 unless given. Slurm looks every half a minute."""

from __future__ import annotations

from typing import Any

from harness.faults import FaultError, Hit, Tools
from harness.faults.own_job import checked, described


class JobTimeLimit:
    """A user may lower the limit of his own job, and not raise it again."""

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Only if the job is ours.

        Raises:
            FaultError: it is not, or Slurm refuses.
        """
        before = await described(tools, hit)
        minutes = hit.params.get("minutes", 1)
        if not isinstance(minutes, int) or minutes < 1:
            raise FaultError(
                f"job.time_limit: params.minutes = {minutes!r}; whole minutes from 1 are possible"
            )
        name = await checked(tools, hit)
        await tools.slurm(["scontrol", "update", f"JobId={name}", f"TimeLimit={minutes}"])
        return {"asked": f"TimeLimit={minutes}", "before": before}

    async def verify_effect(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The controller has the new limit."""
        now = await described(tools, hit)
        hours, minutes = divmod(int(hit.params.get("minutes", 1)), 60)
        days, hours = divmod(hours, 24)
        limit = f"{days}-{hours:02}:{minutes:02}:00" if days else f"{hours:02}:{minutes:02}:00"
        return {"slurm": now} if now["TimeLimit"] == limit else None

    async def heal(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Nothing can be undone: only an administrator raises a limit."""
        return {"nothing_to_undo": True}

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """By nature."""
        return {"nothing_to_undo": True}


FAULT = JobTimeLimit
