"""Faults that an emulated cluster's daemon does: each is a lease there, and ends by itself.

The daemon arranges the end before it begins, so nothing of it outlives the job, the supervisor or whoever
asked. The lease is named after the job and the fault: what is on record before the fault is done suffices to
find it again. Standard library only.
"""

from __future__ import annotations

import abc
import asyncio
import re
from collections.abc import Sequence
from typing import Any

from harness.faults import Hit, Tools
from harness.slurm.states import node_is_usable

LONGEST_S = 600.0  # the longest lease that a cluster gives
_ENDED = ("healed", "failed")


def lease_name(hit: Hit) -> str:
    """The lease's name: of letters that the cluster takes, the same whoever asks."""
    return re.sub(r"[^A-Za-z0-9._:/+-]", "-", f"{hit.job_id or 'job'}.{hit.lease}")[:128]


class Leased(abc.ABC):
    """What these kinds have in common. A kind says what to ask, and what else must be seen."""

    unsaid_s = LONGEST_S  # how long it lasts where the campaign does not say; healed when the case has ended

    @abc.abstractmethod
    def arguments(self, hit: Hit) -> Sequence[str]:
        """KIND and its options, as ``harness cluster fault`` takes them."""

    @abc.abstractmethod
    async def seen(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The effect as somebody else than the daemon sees it, or None: not yet."""

    async def inject(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """Ask for the lease; asking again for one that is there changes nothing."""
        lasting = min(hit.duration_s or self.unsaid_s, LONGEST_S)
        lease = await tools.emulated(
            ["fault", *self.arguments(hit), "--for", f"{lasting:g}", "--id", lease_name(hit)]
        )
        return {key: lease[key] for key in ("id", "kind", "nodes", "until", "evidence")}

    async def verify_effect(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The daemon looked when it had done it, and somebody else sees it too."""
        # At the same time: a fault may be short.
        lease, seen = await asyncio.gather(self.lease(tools, hit), self.seen(tools, hit))
        if lease is None or not lease["effect_wall_ns"] or seen is None:
            return None
        return {"cluster": lease["evidence"], **seen}

    async def heal(self, tools: Tools, hit: Hit) -> dict[str, Any]:
        """End it; none of that name is no error."""
        ended = await tools.emulated(["heal", lease_name(hit)])
        if not ended["faults"]:
            return {"nothing_to_undo": True}
        lease = ended["faults"][-1]
        return {key: lease[key] for key in ("id", "state", "healed_by", "healed")}

    async def verify_healed(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The cluster says that it is undone, and Slurm uses the nodes again."""
        lease = await self.lease(tools, hit)
        if lease is None:
            return {"nothing_to_undo": True}
        if lease["state"] not in _ENDED:
            return None
        states = {node: await tools.slurm_state(node) for node in hit.nodes}
        left = {node: str(done) for node, done in lease["healed"]["done"].items() if "not ours" in str(done)}
        usable = all(not state or node in left or node_is_usable(state) for node, state in states.items())
        evidence = {"state": lease["state"], "by": lease["healed_by"], "slurm": states, "left_alone": left}
        return evidence if usable else None

    async def lease(self, tools: Tools, hit: Hit) -> dict[str, Any] | None:
        """The cluster's record of it; None where there is none."""
        sought = (lease_name(hit), self.arguments(hit)[0])
        listed = await tools.emulated(["faults"])
        found: list[dict[str, Any]] = [
            lease for lease in listed["faults"] if (lease["id"], lease["kind"]) == sought
        ]
        return found[-1] if found else None


def cut_off(tools: Tools, hit: Hit) -> dict[str, Any] | None:
    """Evidence that the agents of one side are all silent: that is how the supervisor, on the other, sees a cut."""
    rest = tuple(node for node in hit.job_nodes if node not in hit.nodes)
    for side in (hit.nodes, rest):
        lost = {node: why for node in side if (why := tools.lost(node))}
        if side and len(lost) == len(side):
            return {"agents": lost}
    return None
