"""Rows of /faults and /detections: each declared fault with its stamps t0 to t8, and what the detectors said.

A stamp is the time of a record, or 0 where there is none; nothing is inferred. The stamps are METRICS.md's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.model import attempt as at
from harness.model import event as ev
from harness.model import fault as model
from harness.model.attempt import Attempt
from harness.model.case import Case, Fault
from harness.model.event import Event

# Other signs that something is wrong, beside what a detector says.
SIGNS = frozenset({ev.NODE_SILENT, ev.RANK_EXITED, ev.RANK_RAISED})
LINGER_NS = 5_000_000_000  # so long after its end a decoy may still be what a detector saw

Row = dict[str, Any]
# (case id, attempt) -> rank -> (step, wall ns at which it was finished), in the order in which they were recorded
Progress = Mapping[tuple[str, int], Mapping[int, Sequence[tuple[int, int]]]]


@dataclass(frozen=True)
class _Struck:
    """A declared fault with what is on record of it."""

    fault: Fault
    attempt: int  # in which it was requested; -1 if it never was
    rank: int  # that was hit; -1 for none
    nodes: tuple[str, ...]  # that were hit, or that of the rank
    stamps: Mapping[str, int]  # kind of event -> wall ns of the first
    evidence: Mapping[str, Any]

    def at(self, kind: str) -> int:
        """Wall ns of its first event of a kind, 0 without one."""
        return self.stamps.get(kind, 0)

    @property
    def begun_ns(self) -> int:
        """When it struck, or was to strike; 0 if it never was requested."""
        return self.at(ev.FAULT_INJECTED) or self.at(ev.FAULT_REQUESTED)

    @property
    def target(self) -> str:
        """What was hit, in words; empty while it is not known."""
        if self.attempt < 0:
            return ""
        if self.rank >= 0 and _is(self.fault, "rank"):
            return f"rank {self.rank}"
        if self.nodes:
            return f"node{'s' if len(self.nodes) > 1 else ''} {', '.join(self.nodes)}"
        return self.fault.target

    def blamed_by(self, row: Row) -> bool:
        """Whether a detection blames what was hit: a rank fault its rank, others one of their nodes."""
        if self.rank >= 0 and _is(self.fault, "rank"):
            return bool(row["rank"] == self.rank)
        return row["node"] in self.nodes


def _is(fault: Fault, hits: str) -> bool:
    kind = model.KINDS.get(fault.kind)
    return kind is not None and kind.hits == hits


def rows(
    case: Case,
    attempts: Sequence[Attempt],
    events: Sequence[Event],
    silent: Sequence[Event],
    progress: Progress,
) -> tuple[list[Row], list[Row]]:
    """Rows of /faults and of /detections of one case.

    Args:
        attempts: of the case, by index.
        events: of the case, by wall time.
        silent: of the whole run: nodes that fell silent, which belong to no case.
        progress: of the whole run.
    """
    struck = [_struck(fault, attempts, events) for fault in (*case.faults, *_of_program(events))]
    recovered = {s.fault.fault_id: _recovered(case, attempts, s, progress) for s in struck}
    detections = [_detection(e, attempts) for e in events if e.kind == ev.DETECTED]
    for row in detections:
        row["fault_id"] = _whose(row, struck, recovered)
    signs = [*(e for e in events if e.kind in SIGNS), *_of_case(silent, attempts)]
    return [_row(case, s, struck, attempts, events, signs, detections, recovered) for s in struck], detections


def _of_program(events: Sequence[Event]) -> list[Fault]:
    """Faults that a user's program did to itself, as it said them (``harness.program.faults``)."""
    return [
        Fault(
            fault_id=e.data["fault_id"],
            kind=e.data["kind"],
            requested_kind=e.data["kind"],
            expect=e.data["expect"],
            because=e.data.get("because", ""),
            rank=e.data["rank"],
            at_step=e.data["step"],
            duration_s=e.data["duration_s"],
        )
        for e in events
        if e.kind == ev.FAULT_REQUESTED and e.data.get("by") == "program"
    ]


def _struck(fault: Fault, attempts: Sequence[Attempt], events: Sequence[Event]) -> _Struck:
    mine = [e for e in events if e.data.get("fault_id") == fault.fault_id]
    first = {e.kind: e for e in reversed(mine)}
    requested = first.get(ev.FAULT_REQUESTED)
    evidence = {e.kind: dict(e.data) for e in mine}
    stamps = {kind: event.wall_ns for kind, event in first.items()}
    if requested is None:
        return _Struck(fault, -1, -1, (), stamps, evidence)
    said = {**requested.data, **requested.data.get("hit", {})}
    rank = int(said.get("rank", -1))
    if rank < 0 and _is(fault, "rank"):
        rank = requested.rank if requested.rank >= 0 else fault.rank
    nodes = tuple(said.get("nodes") or ([said["node"]] if said.get("node") else ()))
    attempt = next((a for a in attempts if a.index == requested.attempt), None)
    if not nodes and attempt is not None and 0 <= rank < len(attempt.rank_nodes):
        nodes = (attempt.rank_nodes[rank],)
    if said.get("by") == "program" and attempt is not None and attempt.end_wall_ns:
        stamps.setdefault(ev.FAULT_HEALED, attempt.end_wall_ns)  # no process outlives its attempt
    return _Struck(fault, requested.attempt, rank, nodes, stamps, evidence)


def _of_case(silent: Sequence[Event], attempts: Sequence[Attempt]) -> list[Event]:
    """Silences of nodes while an attempt of the case had them."""
    return [
        e
        for e in silent
        if any(
            e.data.get("node") in a.nodes and a.start_wall_ns <= e.wall_ns <= (a.end_wall_ns or e.wall_ns)
            for a in attempts
        )
    ]


# --- detections -------------------------------------------------------------------------------------------


def _detection(event: Event, attempts: Sequence[Attempt]) -> Row:
    data = event.data
    rank, node = int(data.get("rank", event.rank)), str(data.get("node") or "")
    attempt = next((a for a in attempts if a.index == event.attempt), None)
    if not node and attempt is not None and 0 <= rank < len(attempt.rank_nodes):
        node = attempt.rank_nodes[rank]
    return {
        "case_id": event.case_id,
        "attempt": event.attempt,
        "wall_ns": event.wall_ns,
        "mono_ns": event.mono_ns,
        "what": str(data.get("what", "")),
        "rank": rank,
        "node": node,
        "step": int(data.get("step", -1)),
        "evidence": json.dumps(data.get("evidence", {}), sort_keys=True),
        "fault_id": "",
    }


def _open_until(struck: _Struck, recovered: tuple[int, int]) -> float:
    """Until when a fault is going on, in wall ns: a decoy until a moment after its end, others until t8."""
    if struck.fault.expect == model.UNHARMED:
        end = struck.begun_ns + int(struck.fault.duration_s * 1e9)
        return max(end, struck.at(ev.FAULT_HEALED)) + LINGER_NS
    passed = recovered[1]
    return passed if passed > struck.begun_ns else float("inf")


def _whose(row: Row, struck: Sequence[_Struck], recovered: Mapping[str, tuple[int, int]]) -> str:
    """The fault that was going on when something was detected: the one that is blamed, else the newest; or ""."""
    going_on = [
        s
        for s in struck
        if 0
        < (s.at(ev.FAULT_REQUESTED) or s.begun_ns)
        <= row["wall_ns"]
        <= _open_until(s, recovered[s.fault.fault_id])
    ]
    going_on.sort(key=lambda s: (s.blamed_by(row), s.begun_ns))
    return going_on[-1].fault.fault_id if going_on else ""


def _whom(row: Row) -> str:
    """Whom a detection blames, in words."""
    if row["rank"] < 0:
        return f"node {row['node']}" if row["node"] else "nobody"
    return f"rank {row['rank']}" + (f" on {row['node']}" if row["node"] else "")


def _first_sign(s: _Struck, struck: Sequence[_Struck], signs: Sequence[Event], mine: Sequence[Row]) -> int:
    """t2: the first detection of it, or another sign before the next fault, after its effect; 0 for none."""
    t1 = s.at(ev.FAULT_INJECTED)
    if not t1:
        return 0
    found = [row["wall_ns"] for row in mine]
    if s.fault.expect != model.UNHARMED:
        others = [o.at(ev.FAULT_INJECTED) for o in struck if o.fault.expect != model.UNHARMED]
        until = min((ns for ns in others if ns > t1), default=0) or float("inf")
        found += [e.wall_ns for e in signs if t1 <= e.wall_ns < until and e.attempt in (s.attempt, -1)]
    return min(found, default=0)


# --- recovery ---------------------------------------------------------------------------------------------


def _ranks(case: Case, attempt: Attempt) -> int:
    return len(attempt.rank_nodes) or case.ranks


def _recovered(
    case: Case, attempts: Sequence[Attempt], struck: _Struck, progress: Progress
) -> tuple[int, int]:
    """t7 and t8: the first new step of every rank, and progress past the highest step before the fault."""
    hit = struck.attempt
    if hit < 0 or struck.fault.expect in (model.UNHARMED, model.CAUGHT):
        return 0, 0
    before = [
        s
        for index in range(hit + 1)
        for steps in progress.get((case.case_id, index), {}).values()
        for s, _ in steps
    ]
    if not before:
        return 0, 0
    if any(a.index == hit and a.outcome == at.COMPLETED for a in attempts):
        return _rode_out(progress.get((case.case_id, hit), {}), struck.at(ev.FAULT_INJECTED))
    goal = _goal(case, hit, struck.at(ev.FAULT_INJECTED), progress, max(before))
    # Of a user's program those ranks count that say how far they are: under MPI often the first alone.
    told = max(len(progress.get((case.case_id, index), {})) for index in range(hit + 1))
    first = passed = 0
    for later in attempts:
        if later.index <= hit:
            continue
        ranks = progress.get((case.case_id, later.index), {})
        wanted = _ranks(case, later) if case.command is None else told
        if len(ranks) < wanted or any(not steps for steps in ranks.values()):
            continue
        first = first or max(steps[0][1] for steps in ranks.values())
        beyond = [min((t for s, t in steps if s > goal(rank)), default=0) for rank, steps in ranks.items()]
        if all(beyond):
            passed = max(beyond)
            break
    return first, passed


def _goal(case: Case, hit: int, t1: int, progress: Progress, highest: int) -> Callable[[int], int]:
    """The step that each rank must pass: the highest of any, as all go together.

    Ranks of a user's program need not wait for each other: there each must pass its own, reached before the fault;
    one that had come to the end, come there again.
    """
    if case.command is None:
        return lambda rank: highest
    own: dict[int, int] = {}
    for index in range(hit + 1):
        for rank, steps in progress.get((case.case_id, index), {}).items():
            own[rank] = max([own.get(rank, -1), *(s for s, t in steps if t <= t1 or not t1)])
    return lambda rank: min(own.get(rank, -1), highest - 1)


def _rode_out(ranks: Mapping[int, Sequence[tuple[int, int]]], t1: int) -> tuple[int, int]:
    """t7 and t8 of a fault that its attempt survived: every rank has finished a step that it had not before."""
    if not t1:
        return 0, 0
    highest = max((s for steps in ranks.values() for s, t in steps if t <= t1), default=-1)
    first = [min((t for _, t in steps if t > t1), default=0) for steps in ranks.values()]
    beyond = [min((t for s, t in steps if t > t1 and s > highest), default=0) for steps in ranks.values()]
    return max(first) if all(first) else 0, max(beyond) if all(beyond) else 0


def _started_again(
    case: Case, attempts: Sequence[Attempt], struck: _Struck, events: Sequence[Event]
) -> tuple[int, int, int]:
    """t4, t5 and t6: the broken step left, new processes on every rank, state loaded on every rank."""
    hit = struck.attempt
    if hit < 0 or struck.fault.expect in (model.UNHARMED, model.CAUGHT):
        return 0, 0, 0
    left = [e.wall_ns for e in events if e.kind == ev.ATTEMPT_LEFT and e.attempt == hit]
    running = loaded = 0
    for later in (a for a in attempts if a.index > hit):
        ran, restored = (
            _by_rank(events, kind, later.index) for kind in (ev.RANK_RUNNING, ev.CHECKPOINT_RESTORED)
        )
        if len(ran) < _ranks(case, later):
            continue
        running = max(ran.values())
        # Without a checkpoint to begin from there is nothing to load.
        loaded = running if not restored else max(restored.values()) if len(restored) == len(ran) else 0
        break
    return max(left, default=0), running, loaded


def _by_rank(events: Sequence[Event], kind: str, attempt: int) -> dict[int, int]:
    return {e.rank: e.wall_ns for e in events if e.kind == kind and e.attempt == attempt and e.rank >= 0}


# --- the row ----------------------------------------------------------------------------------------------


def _row(
    case: Case,
    s: _Struck,
    struck: Sequence[_Struck],
    attempts: Sequence[Attempt],
    events: Sequence[Event],
    signs: Sequence[Event],
    detections: Sequence[Row],
    recovered: Mapping[str, tuple[int, int]],
) -> Row:
    fault, t1 = s.fault, s.at(ev.FAULT_INJECTED)
    mine = [d for d in detections if d["fault_id"] == fault.fault_id and d["wall_ns"] >= t1]
    if _is(fault, "checkpoint"):  # what notices it is the next restore
        refused = [e.wall_ns for e in events if e.kind == ev.CHECKPOINT_REFUSED and e.wall_ns >= t1 > 0]
        detected = min(refused, default=0)
    else:
        detected = _first_sign(s, struck, signs, mine)
    left, running, loaded = _started_again(case, attempts, s, events)
    first_step, passed = recovered[fault.fault_id]
    return {
        "fault_id": fault.fault_id,
        "case_id": case.case_id,
        "attempt": s.attempt,
        "kind": fault.kind,
        "requested_kind": fault.requested_kind,
        "target": s.target,
        "nodes": json.dumps(s.nodes),
        "trigger": fault.trigger,
        "at_step": fault.at_step,
        "duration_s": fault.duration_s,
        "series": fault.series,
        "expect": fault.expect,
        "because": fault.because,
        "policy": case.recovery,
        "requested": s.at(ev.FAULT_REQUESTED) > 0,
        "observed": s.at(ev.FAULT_OBSERVED) > 0,
        "healed": s.at(ev.FAULT_HEALED) > 0,
        "requested_wall_ns": s.at(ev.FAULT_REQUESTED),
        "injected_wall_ns": t1,
        "observed_wall_ns": s.at(ev.FAULT_OBSERVED),
        "detected_wall_ns": detected,
        "blamed_wall_ns": min((d["wall_ns"] for d in mine if s.blamed_by(d)), default=0) if t1 else 0,
        "blamed": _whom(mine[0]) if mine else "",
        "detector": mine[0]["what"] if mine else "",
        "left_wall_ns": left,
        "running_wall_ns": running,
        "loaded_wall_ns": loaded,
        "first_step_wall_ns": first_step,
        "recovered_wall_ns": passed,
        "healed_wall_ns": s.at(ev.FAULT_HEALED),
        "evidence": json.dumps(s.evidence, sort_keys=True),
    }
