"""Undoing, from outside a job, the faults that a run has left: what its records say was commanded and not healed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harness.faults import tools
from harness.model import event as ev
from harness.model.case import Case, Plan
from harness.model.event import Event
from harness.rundir import RunDir, append_line, read_lines
from harness.runtime.fault_runner import heal, hit_of


def heal_left(run: RunDir, plan: Plan, site: Mapping[str, Any]) -> list[str]:
    """Undo every fault on record that was requested and is not healed; may be called again.

    Returns:
        What could not be undone, in words.
    """
    problems = []
    for case in plan.cases:
        for fault_id, facts in _facts(run, plan, case).items():
            if ev.FAULT_REQUESTED not in facts or ev.FAULT_HEALED in facts:
                continue
            data = facts[ev.FAULT_REQUESTED]
            hit = hit_of(data)
            healed, evidence = asyncio.run(heal(_Outside(site), hit))
            known = {
                "fault_id": fault_id, "fault": hit.kind, "node": hit.node, "rank": hit.rank, "hit": hit.to_json(),
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
            if not healed:
                problems.append(f"{hit.kind} on {hit.node or 'the job'} is not healed: {evidence}")
    return problems


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
