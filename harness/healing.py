"""Undoing, from outside a job, the faults that a run has left: what its records say was commanded and not healed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.faults import tools
from harness.model import event as ev
from harness.model.case import Case, Plan
from harness.model.event import Event
from harness.rundir import RunDir, append_line, read_lines
from harness.runtime import leftovers
from harness.runtime.fault_runner import heal, hit_of


def heal_left(run: RunDir, plan: Plan, site: Mapping[str, Any]) -> list[str]:
    """Undo every fault on record that was requested and is not healed; may be called again.

    None waits for another: one that still lasts can hide that another is undone, as a partition does.

    Returns:
        What could not be undone, in words.
    """
    problems = asyncio.run(_heal_each(run, site, _left(run, plan)))
    if site["launcher"] == "local":  # the machine of the ranks is this one
        leftovers.sweep(Path(site["paths"]["node_local"]), leftovers.job_name(run.path, ""))
    return problems


def _left(run: RunDir, plan: Plan) -> list[tuple[Case, Mapping[str, Any]]]:
    """The data of each fault that was requested and is not healed, and its case."""
    return [
        (case, facts[ev.FAULT_REQUESTED])
        for case in plan.cases
        for facts in _facts(run, plan, case).values()
        if ev.FAULT_REQUESTED in facts and ev.FAULT_HEALED not in facts
    ]


async def _heal_each(
    run: RunDir, site: Mapping[str, Any], left: Sequence[tuple[Case, Mapping[str, Any]]]
) -> list[str]:
    """Undo all of them; each has its time from now on. Returns what could not be undone, in words."""
    said = await asyncio.gather(*(_heal_one(run, site, case, data) for case, data in left))
    return [words for words in said if words]


async def _heal_one(run: RunDir, site: Mapping[str, Any], case: Case, data: Mapping[str, Any]) -> str:
    """Undo one fault and put on record whether it is; returns why not, in words, or ""."""
    hit = hit_of(data)
    healed, evidence = await heal(_Outside(site), hit)
    known = {
        "fault_id": data["fault_id"], "fault": hit.kind, "node": hit.node, "rank": hit.rank, "hit": hit.to_json(),
        "evidence": evidence,
    }  # fmt: skip
    event = Event(
        ev.FAULT_HEALED if healed else ev.FAULT_UNHEALED,
        time.time_ns(),
        time.monotonic_ns(),
        os.uname().nodename,
        "driver",
        case.case_id,
        data=known,
    )
    append_line(run.driver_events, event.to_json())
    return "" if healed else f"{hit.kind} on {hit.node or 'the job'} is not healed: {evidence}"


def _facts(run: RunDir, plan: Plan, case: Case) -> dict[str, dict[str, Any]]:
    """Fault -> fact -> data, of what jobs and drivers wrote of a case's faults."""
    if not case.faults:
        return {}
    jobs = [job for s in plan.submissions for job in s.jobs if case.case_id in job.case_ids]
    found: dict[str, dict[str, Any]] = {}
    for source in [*(run.events(job.key) for job in jobs), run.driver_events]:
        for line in read_lines(source):
            if line["case_id"] == case.case_id and line["kind"].startswith("fault."):
                found.setdefault(line["data"]["fault_id"], {})[line["kind"]] = line["data"]
    return found


class _Outside:
    """Tools of whoever heals from outside the job: see ``harness.faults.Tools``."""

    def __init__(self, site: Mapping[str, Any]) -> None:
        self._site = site

    async def power(self, action: str, node: str) -> dict[str, Any]:
        return await tools.power(self._site["power"], action, node)

    async def emulated(self, arguments: Sequence[str]) -> dict[str, Any]:
        return await tools.emulated(self._site, arguments)

    async def slurm(self, command: Sequence[str]) -> str:
        return await tools.slurm(self._site, command)

    def tell_agent(self, node: str, message: str) -> None:
        """No agent is left."""

    def lost(self, node: str) -> str:
        return "its job has ended"

    async def slurm_state(self, node: str) -> str:
        return "" if self._site["launcher"] == "local" else await tools.slurm_state(node)
