"""Our own job in Slurm: whose it is, what it is called, how it is. Faults of a job touch no other.

Standard library only.
"""

from __future__ import annotations

import os
import re
from typing import Any

from harness.faults import FaultError, Hit, Tools


def job_name(hit: Hit) -> str:
    """What Slurm's commands call the job.

    A task of an array by its number in it: the raw id of one of them stands for the whole array.
    """
    if not hit.job_id:
        raise FaultError("this job is not in Slurm: there is no job to strike")
    environment = os.environ
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    if environment.get("SLURM_JOB_ID") == hit.job_id and array and task:
        return f"{array}_{task}"
    return hit.job_id


async def checked(tools: Tools, hit: Hit) -> str:
    """The job's name, once Slurm has said that it is ours.

    Raises:
        FaultError: it is somebody else's, or Slurm does not say whose.
    """
    name = job_name(hit)
    owners = set((await tools.slurm(["squeue", "--noheader", "--format=%U", f"--jobs={name}"])).split())
    if owners != {str(os.getuid())}:
        whose = f"belongs to user {', '.join(sorted(owners))}" if owners else "is in no queue"
        raise FaultError(f"job {name} {whose}; we are user {os.getuid()}, and strike our own jobs only")
    return name


async def described(tools: Tools, hit: Hit) -> dict[str, Any]:
    """The job's state, restarts and time limit as the controller says them; "" for what it does not say.

    A controller that does not answer says nothing: that is no reason to give up looking.
    """
    try:
        text = await tools.slurm(["scontrol", "--oneliner", "show", "job", job_name(hit)])
    except FaultError:
        text = ""
    found = {key: re.search(rf"\b{key}=(\S+)", text) for key in ("JobState", "Restarts", "TimeLimit")}
    return {key: match[1] if match else "" for key, match in found.items()}


async def restarted(tools: Tools, hit: Hit) -> dict[str, Any] | None:
    """Evidence that the job left its nodes to be started again, or None.

    It is so while it is not running; later its restarts count, beyond params.restarts_before.
    """
    now = await described(tools, hit)
    before = int(hit.params.get("restarts_before", 0))
    left = now["JobState"] not in ("", "RUNNING")
    return {"slurm": now} if left or (now["Restarts"].isdigit() and int(now["Restarts"]) > before) else None
