"""Injects the declared faults of a case when they are due, proves each, and heals it. Standard library only."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from harness import faults
from harness.faults import FaultError, tools
from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case, Fault
from harness.rundir import read_lines

if TYPE_CHECKING:
    from harness.runtime.supervisor import Supervisor

OBSERVE_S = 30.0
HEAL_S = 60.0
LOOK_S = 0.1


class FaultRunner:
    """Lends faults their tools, and keeps their three facts."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._s = supervisor
        self._node = ""

    # --- tools ------------------------------------------------------------------------------------------

    async def power(self, action: str, node: str) -> dict[str, Any]:
        """See ``harness.faults.Tools``."""
        command = (self._s.site.get("power") or {}).get("command", [])
        return await tools.power(command, action, node)

    def tell_agent(self, node: str, message: str) -> None:
        """See ``harness.faults.Tools``."""
        self._s.links.send(node, message)

    def lost(self, node: str) -> str:
        """See ``harness.faults.Tools``."""
        return self._s.links.lost(node) if node in self._s.links.links else "not in this job any more"

    async def slurm_state(self, node: str) -> str:
        """See ``harness.faults.Tools``."""
        return "" if self._s.site["launcher"] == "local" else await tools.slurm_state(node)

    # --- the course of a fault --------------------------------------------------------------------------

    def facts(self, case: Case) -> dict[str, dict[str, Any]]:
        """What is on record of each fault of a case: fact -> the event's data; over all attempts."""
        found: dict[str, dict[str, Any]] = {f.fault_id: {} for f in case.faults}
        for line in read_lines(self._s.run.events(self._s.job.key)):
            if line["case_id"] == case.case_id and line["kind"].startswith("fault."):
                found[line["data"]["fault_id"]][line["kind"]] = line["data"]
        return found

    async def poll(self, case: Case, attempt: Attempt, begun: int) -> None:
        """Inject what is due: every rank has begun step ``begun``, and the fault was never requested before."""
        if not any(f.at_step <= begun for f in case.faults):
            return
        known = self.facts(case)
        for fault in case.faults:
            if fault.at_step <= begun and ev.FAULT_REQUESTED not in known[fault.fault_id]:
                await self._inject(case, attempt, fault)

    async def _inject(self, case: Case, attempt: Attempt, fault: Fault) -> None:
        node = attempt.nodes[fault.target_node]
        kind = faults.create(fault.kind)
        common: dict[str, Any] = {"fault_id": fault.fault_id, "fault": fault.kind, "node": node}
        self._s.event(ev.FAULT_REQUESTED, case.case_id, attempt.index, **common)
        try:
            evidence = await kind.inject(self, node)
            self._s.event(ev.FAULT_INJECTED, case.case_id, attempt.index, **common, evidence=evidence)
            end = time.monotonic() + OBSERVE_S
            seen = None
            while seen is None and time.monotonic() < end:
                seen = await kind.verify_effect(self, node)
                if seen is None:
                    await asyncio.sleep(LOOK_S)
        except FaultError as error:
            self._s.event(ev.FAULT_REFUSED, case.case_id, attempt.index, **common, why=str(error))
            return
        if seen is not None:
            self._s.event(ev.FAULT_OBSERVED, case.case_id, attempt.index, **common, evidence=seen)

    async def look_again(self, case: Case) -> None:
        """After a restart: look for the effect of faults whose supervisor did not live to see it.

        Only what can still be seen counts, such as a node that is off; when it happened is not known.
        """
        known = self.facts(case)
        for fault in case.faults:
            facts = known[fault.fault_id]
            if ev.FAULT_REQUESTED not in facts or {ev.FAULT_OBSERVED, ev.FAULT_HEALED} & set(facts):
                continue
            node = facts[ev.FAULT_REQUESTED]["node"]
            try:
                seen = await faults.create(fault.kind).verify_effect(self, node)
            except FaultError:
                continue
            if seen is not None:
                self._s.event(
                    ev.FAULT_OBSERVED,
                    case.case_id,
                    -1,
                    fault_id=fault.fault_id,
                    fault=fault.kind,
                    node=node,
                    evidence={**seen, "seen": "after the restart"},
                )

    async def heal_all(self, case: Case) -> None:
        """Undo every fault of the case that was requested and is not healed yet; tried for a minute each."""
        known = self.facts(case)
        for fault in case.faults:
            facts = known[fault.fault_id]
            if ev.FAULT_REQUESTED not in facts or ev.FAULT_HEALED in facts:
                continue
            node = facts[ev.FAULT_REQUESTED]["node"]
            healed, evidence = await heal(self, fault.kind, node)
            kind = ev.FAULT_HEALED if healed else ev.FAULT_UNHEALED
            self._s.event(
                kind,
                case.case_id,
                -1,
                fault_id=fault.fault_id,
                fault=fault.kind,
                node=node,
                evidence=evidence,
            )


async def heal(lent: faults.Tools, kind_name: str, node: str) -> tuple[bool, dict[str, Any]]:
    """Undo one fault and look until it is undone, for at most a minute; whether it is, and the evidence."""
    kind = faults.create(kind_name)
    end = time.monotonic() + HEAL_S
    try:
        await kind.heal(lent, node)
        while time.monotonic() < end:
            evidence = await kind.verify_healed(lent, node)
            if evidence is not None:
                return True, evidence
            await asyncio.sleep(1.0)
    except FaultError as error:
        return False, {"why": str(error)}
    return False, {"why": f"not seen to be healed within {HEAL_S:g} s"}
