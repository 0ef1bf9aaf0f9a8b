"""One case of a run once more, with the faults that struck it, at the steps at which they struck.

Reads a run folder and nothing else, plans, and runs nothing. What chance chose (ranks, nodes, steps) was chosen when
the run was planned and stands in its plan; what remains are triggers by the clock, which become the step that is on
record, and the order: what struck in a later attempt waits for what struck in earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness import packing
from harness.config import parse_campaign, parse_site, to_yaml
from harness.fault_means import why_not
from harness.model import event as ev
from harness.model.campaign import Campaign
from harness.model.case import Case, Fault, Plan, Policy, content_id
from harness.model.site import Site
from harness.rundir import RunDir, read_lines
from harness.workloads import REGISTRY


class ReplayError(Exception):
    """The case cannot be run again like this; the message says why and what to do."""


@dataclass(frozen=True)
class Strike:
    """What is on record of one fault that struck."""

    fault: Fault  # as it will be done again
    attempt: int
    step: int  # -1: none had begun
    rank: int
    nodes: tuple[str, ...]  # of the run that is replayed

    @property
    def words(self) -> str:
        """For people."""
        nodes = ", ".join(self.nodes) or "the job"
        where = f"rank {self.rank} on {nodes}" if self.rank >= 0 else nodes
        fault = self.fault
        return (
            f"{fault.kind} of {fault.target} at {fault.trigger}  (struck {where} at step {self.step}, attempt "
            f"{self.attempt})"
        )


@dataclass(frozen=True)
class Replay:
    """A case as it will be run again."""

    original: Case
    case: Case
    twin: Case | None
    strikes: tuple[Strike, ...]
    left_out: tuple[tuple[Fault, str], ...]  # with why


def find_case(plan: Plan, given: str) -> Case:
    """The case of that id or label, or the only one whose id begins so.

    Raises:
        ReplayError: there is none, or several.
    """
    exact = [c for c in plan.cases if given in (c.case_id, c.label)]
    found = exact or [c for c in plan.cases if given and c.case_id.startswith(given)]
    if len(found) == 1:
        return found[0]
    several = ", ".join(f"{c.case_id} ({c.label})" for c in found)
    raise ReplayError(
        f"several cases are called {given!r}: {several}; give more of the id"
        if found
        else f"no case {given!r}; `harness status RUN` lists them"
    )


def of_case(run: RunDir, plan: Plan, case: Case) -> Replay:
    """What has to be done to meet the same faults at the same steps.

    Raises:
        ReplayError: the case declares no fault, or none of its faults struck.
    """
    if not case.faults:
        raise ReplayError(
            f"case {case.case_id} ({case.label}) declares no fault, so there is nothing to replay; "
            "choose one whose label ends in /fault"
        )
    requested, refused = _on_record(run, plan, case)
    known = {f.fault_id: f for f in case.faults}
    strikes = [
        _strike(known[fault_id], line)
        for fault_id, line in requested.items()
        if fault_id in known and fault_id not in refused
    ]
    if not strikes:
        why = "; ".join(dict.fromkeys(refused.values())) or "the run is not that far, or ended before"
        raise ReplayError(f"no fault of case {case.case_id} ({case.label}) struck: {why}; nothing to replay")
    if any(f.at_s >= 0 for f in case.faults):  # elsewhere the plan has an order already
        strikes = _in_order(strikes)
    struck = {s.fault.fault_id: s.fault for s in strikes}
    again = replace(case, faults=tuple(struck[f.fault_id] for f in case.faults if f.fault_id in struck))
    if again.faults != case.faults:
        again = replace(again, case_id=content_id([case.case_id, [asdict(f) for f in again.faults]]))
    return Replay(
        original=case,
        case=again,
        twin=plan.case(case.twin) if case.twin else None,
        strikes=tuple(strikes),
        left_out=tuple(
            (f, f"refused: {refused[f.fault_id]}" if f.fault_id in refused else "it never struck")
            for f in case.faults
            if f.fault_id not in struck
        ),
    )


def site_of(run: RunDir) -> tuple[Site, str]:
    """The site of a run as it was planned for, and its text."""
    text = run.site_text.read_text(encoding="utf-8")
    site = parse_site(text, str(run.site_text))
    templates = run.read_site().get("templates")  # the text names it from a file that may be elsewhere
    return site.model_copy(update={"templates": templates and type(run.path)(templates)}), text


def campaign_of(run: RunDir, again: Replay) -> tuple[Campaign, str]:
    """The run's campaign, with no other groups than those of the case and its twin; and its text."""
    whole = parse_campaign(run.campaign_text.read_text(encoding="utf-8"), str(run.campaign_text))
    names = {c.group for c in (again.case, again.twin) if c is not None}
    groups = tuple(
        g.model_copy(update={"after": (), "needs": (), "role": "measurement"})
        for g in whole.groups
        if g.name in names
    )
    campaign = whole.model_copy(
        update={
            "name": f"{re.sub('-replay$', '', whole.name)[:57]}-replay",
            "description": f"replay of case {again.original.case_id} ({again.original.label}) as {again.case.case_id}",
            "groups": groups,
        }
    )
    lines = [
        "Written by `harness replay`: of these groups only one case and its twin are run, with these faults:",
        *(f"  {s.words}" for s in again.strikes),
    ]
    return campaign, "".join(f"# {line}\n" for line in lines) + "\n" + to_yaml(campaign)


def plan_of(again: Replay, campaign: Campaign, site: Site) -> Plan:
    """The plan of a replay.

    Raises:
        ReplayError: the site does not allow a fault, or has no such partition.
        PlanError: the case does not fit the site.
    """
    for fault in again.case.faults:
        if problem := why_not(fault.kind, site):
            raise ReplayError(f"{fault.kind}: {problem}; choose another --site")
    cases = [again.case, *([again.twin] if again.twin is not None else [])]
    for name in {c.partition for c in cases} - {"", *site.partitions}:
        raise ReplayError(f'site "{site.name}" has no partition {name!r}; choose another --site')
    submissions = packing.pack(cases, campaign, site, REGISTRY)
    policy = Policy(campaign.retry.model_dump(), packing.queue_limit(campaign, site))
    return Plan(tuple(cases), submissions, policy)


def _on_record(run: RunDir, plan: Plan, case: Case) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The first request of each fault, in order; and why faults could not be done."""
    requested: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for job in (job for s in plan.submissions for job in s.jobs if case.case_id in job.case_ids):
        for line in read_lines(run.events(job.key)):
            if line["case_id"] != case.case_id:
                continue
            if line["kind"] == ev.FAULT_REQUESTED:
                requested.setdefault(line["data"]["fault_id"], line)
            elif line["kind"] == ev.FAULT_REFUSED:
                refused[line["data"]["fault_id"]] = str(line["data"].get("why", ""))
    ordered = sorted(requested.items(), key=lambda item: (item[1]["attempt"], item[1]["wall_ns"]))
    return dict(ordered), refused


def _strike(fault: Fault, line: Mapping[str, Any]) -> Strike:
    data = line["data"]
    step = int(data.get("step", -1))
    if fault.at_s >= 0:
        if "step" not in data:
            raise ReplayError(
                f"{fault.fault_id}: {fault.kind} struck {fault.at_s:g} s after the first step, and at which step is "
                "not on record: the run is of an older version; run its campaign again"
            )
        fault = replace(fault, at_s=-1.0, at_step=max(step, 0), may_miss=False)
    hit = data.get("hit", {})
    return Strike(fault, int(line["attempt"]), step, int(line["rank"]), tuple(hit.get("nodes", ())))


def _in_order(strikes: list[Strike]) -> list[Strike]:
    """Each waits for those that struck in the attempt before it in which any did."""
    found = []
    for strike in strikes:
        last = max((s.attempt for s in strikes if s.attempt < strike.attempt), default=-1)
        after = tuple(s.fault.fault_id for s in strikes if s.attempt == last)
        found.append(replace(strike, fault=replace(strike.fault, after=after)))
    return found
