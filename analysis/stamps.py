"""The instants of a fault, t0 to t9 of METRICS.md, and why one of them is not known.

The stamps come from several hosts' wall clocks; one that lies before the fault is shown as invalid and never as a
number. Nothing is inferred: a stamp that nobody recorded is unknown, with the reason where somebody said it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from analysis import text
from analysis.results import CampaignResults, Row, names
from harness.model import fault as model
from harness.model.event import FAULT_REFUSED, FAULT_UNHEALED

# Stamp, column of /faults, words.
STAMPS = (
    ("t0", "requested_wall_ns", "requested"),
    ("t1", "injected_wall_ns", "injected"),
    ("t1v", "observed_wall_ns", "effect observed"),
    ("t2", "detected_wall_ns", "detected"),
    ("t3", "blamed_wall_ns", "the right target blamed"),
    ("t4", "left_wall_ns", "the broken step left"),
    ("t5", "running_wall_ns", "new processes running"),
    ("t6", "loaded_wall_ns", "state loaded"),
    ("t7", "first_step_wall_ns", "first new step"),
    ("t8", "recovered_wall_ns", "recovered: past the highest step before"),
    ("healed", "healed_wall_ns", "healed"),
)
DEGRADED = ("t9", "step times as before")
NOTHING_TO_RECOVER = "nothing to recover from was expected"
WITHOUT_RECOVERY = (model.UNHARMED, model.CAUGHT)  # outcomes after which nothing is to be recovered


@dataclass(frozen=True)
class Stamp:
    """One instant; ``after_s`` is relative to the recovery's origin, None with the reason in ``why``."""

    name: str
    words: str
    wall_ns: int
    after_s: float | None
    why: str


def short_id(fault_id: str, case_id: str) -> str:
    """A fault's id without its case's, which a reader knows from where it stands: ``f0``."""
    return fault_id.removeprefix(f"{case_id}-")


def hit_nodes(fault: Row) -> tuple[str, ...]:
    """Host names of the nodes that a fault hit; an older file has one, as its target."""
    return names(fault["nodes"]) if fault["nodes"] else (fault["target"],) if fault["target"] else ()


def healable(kind: str) -> bool:
    """Whether a fault leaves something outside the job that must be undone; an unknown kind might."""
    known = model.KINDS.get(kind)
    return known is None or known.needs in (model.POWER, model.EMULATED)


def why_unhealed(said: Any) -> str:
    """Why healing could not be verified, from the data of ``fault.unhealed``."""
    evidence = said.get("evidence") if isinstance(said, dict) else None
    if isinstance(evidence, dict) and evidence.get("why"):
        return str(evidence["why"])
    return json.dumps(evidence) if evidence else "no reason recorded"


def why_refused(said: Any) -> str:
    """Why a fault could not be done, from the data of ``fault.refused``."""
    return str((said.get("why") if isinstance(said, dict) else "") or "no reason recorded")


def facts(fault: Row) -> dict[str, Any] | None:
    """The fault's evidence: data by kind of event; None where it is no JSON object."""
    try:
        data = json.loads(fault["evidence"]) if fault["evidence"] else {}
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def evidence(fault: Row) -> tuple[tuple[str, str], ...]:
    """How each fact was established: kind of event, data as text."""
    data = facts(fault)
    if data is None:
        return (("evidence", fault["evidence"]),)
    return tuple((str(k), v if isinstance(v, str) else json.dumps(v)) for k, v in data.items())


def _not_recorded(name: str, fault: Row, said: dict[str, Any]) -> str:
    """Why there is no such stamp, as far as somebody said."""
    if name in ("t1", "t1v") and FAULT_REFUSED in said:
        return f"refused, it could not be done: {why_refused(said[FAULT_REFUSED])}"
    if name == "healed" and FAULT_UNHEALED in said:
        return f"unhealed, it was tried: {why_unhealed(said[FAULT_UNHEALED])}"
    if name == "healed" and not healable(fault["kind"]):
        return "nothing to heal: it ended with the processes that it hit"
    if fault["expect"] in WITHOUT_RECOVERY and name[1:].isdigit() and int(name[1:]) >= 2:
        return NOTHING_TO_RECOVER
    if name == "t3" and fault["blamed"]:
        return f"never: {fault['blamed']} was blamed"
    return "not recorded"


def of_fault(fault: Row) -> tuple[Stamp, ...]:
    """All stamps of a row of /faults, relative to t1, or to t0 where t1 is not recorded."""
    said = facts(fault) or {}
    origin = fault["injected_wall_ns"] or fault["requested_wall_ns"]
    found = []
    for name, column, words in STAMPS:
        wall = int(fault[column])
        after: float | None = (wall - origin) / 1e9
        why = ""
        if wall <= 0:
            after, why = None, _not_recorded(name, fault, said)
        elif origin <= 0:
            after, why = None, "neither request nor injection is recorded"
        elif wall < origin and name != "t0":
            early = text.seconds((origin - wall) / 1e9)
            after, why = None, f"invalid: {early} before the fault, so the clocks disagree"
        found.append(Stamp(name, words, wall, after, why))
    return tuple(found)


def clock_offsets(results: CampaignResults) -> dict[str, int]:
    """For each host, wall minus monotonic clock in ns: the median over its events."""
    return results.clock_offsets
