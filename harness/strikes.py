"""Declared faults -> the faults of one case: every chance resolved by the seed, so that a run can be repeated. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from harness.fault_means import why_not
from harness.model.campaign import Group
from harness.model.campaign_faults import FaultSpec
from harness.model.case import Case, Fault, content_id
from harness.model.fault import MOMENTS, RECOVERY
from harness.model.site import Site
from harness.packing import PlanError

APART = 3  # steps between faults at random steps
TRIES = 50


def of_group(group: Group, case: Case, case_id: str, site: Site) -> tuple[Fault, ...]:
    """The faults that hit this case on this site.

    Raises:
        PlanError: the site allows neither a fault nor its substitute.
    """
    taken = {spec.at.step for spec in group.faults if spec.at.step is not None}
    return tuple(
        fault
        for index, spec in enumerate(group.faults)
        for fault in _of_spec(spec, index, replace(case, case_id=case_id), site, taken)
    )


def _of_spec(spec: FaultSpec, index: int, case: Case, site: Site, taken: set[int]) -> Iterator[Fault]:
    kind, fault_id = spec.kind, f"{case.case_id}-f{index}"
    if problem := why_not(kind, site):
        if spec.instead is None or why_not(spec.instead, site):
            raise PlanError(f"group {case.group}: {kind}: {problem}")
        kind = spec.instead
    # Of seed and declaration alone, so that policies compared side by side meet the same faults.
    chance = random.Random(
        content_id([case.seed, index, spec.model_dump(mode="json", exclude_defaults=True)])
    )
    elapsed_s = 0.0
    # Moments of our own loop are counted over the case; a program counts its own in each attempt.
    counted = spec.at.event == RECOVERY or (spec.at.event in MOMENTS and case.command is None)
    again = spec.at.step is not None or (
        spec.at.event is not None and not counted
    )  # the same, of a later attempt

    def named(n: int) -> str:
        return fault_id if spec.count == 1 else f"{fault_id}.{n}"

    for n in range(spec.count):
        fault = Fault(
            fault_id=named(n),
            kind=kind,
            requested_kind=spec.kind,
            expect=spec.expect,
            because=spec.because,
            duration_s=spec.for_s or 0.0,
            series=fault_id if spec.count > 1 else "",
            after=(named(n - 1),) if again and n else (),
            params=dict(spec.params),
            at_event=spec.at.event or "",
            at_count=spec.at.time + (n if counted else 0),
        )
        fault = _aimed(fault, spec, case, chance)
        at = spec.at
        if at.step is not None:
            fault = replace(fault, at_step=at.step)
        elif at.steps is not None:
            fault = replace(fault, at_step=_apart(chance, at.steps, taken))
            taken.add(fault.at_step)
        elif at.after_s is not None:
            fault = replace(fault, at_s=at.after_s)
        elif at.mtbf_s is not None:
            elapsed_s += chance.expovariate(1 / at.mtbf_s)
            fault = replace(fault, at_s=round(elapsed_s, 3), may_miss=True)
        yield fault


def _apart(chance: random.Random, steps: tuple[int, ...], taken: set[int]) -> int:
    """A step of the range that is not close to one that is taken: of two faults at once only one is to be seen."""
    for _ in range(TRIES):
        step = chance.randint(*steps)
        if all(abs(step - other) >= APART for other in taken):
            break
    return step


def _aimed(fault: Fault, spec: FaultSpec, case: Case, chance: random.Random) -> Fault:
    target = spec.target
    if target.random == "rank":
        return replace(fault, rank=chance.randrange(case.ranks))
    if target.random is not None:
        first = 1 if target.random == "other_node" and case.nodes > 1 else 0
        return replace(fault, node=chance.randrange(first, case.nodes))
    return replace(
        fault,
        rank=-1 if target.rank is None else target.rank,
        node=-1 if target.node is None else target.node,
        nodes=target.nodes or (),
        role=target.role or "",
    )
