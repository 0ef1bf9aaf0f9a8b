"""What a plan costs, before anything is submitted. Pure.

Time limits are all that is known beforehand, so both figures are made of them. *Expected*: every job uses its
time limit once, and once more for each fault that is expected to be recovered from. *At most*: every job uses
its time limit at each start that ``recovery`` allows, and again for each retry after a failure that repeats
(program, memory, time_limit). What ``retry`` adds after failures of the cluster is not counted: such a job
seldom took its time. Nodes that are idle in a shared allocation cost as much as others.

Repeats that may not be needed are not *expected*; *at most*, all of them are run, or those that a group's own
`max_node_hours` lets begin: one wave of each lot may end beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.model.campaign import Campaign
from harness.model.case import Job, Plan
from harness.model.design import Lot
from harness.model.fields import Finding

REPEATING = (
    "program",
    "memory",
    "time_limit",
)  # classes of failure that a second try is likely to meet again


@dataclass(frozen=True)
class Summary:
    """How much a plan is."""

    cases: int
    twins: int
    jobs: int
    submissions: int
    largest_array: int  # tasks; 1 where there is no array
    largest_job_nodes: int
    longest_job_min: int
    node_hours_expected: float
    node_hours_max: float
    perhaps_not_needed: int = 0  # cases that are repeats of which that is so


def summary(plan: Plan) -> Summary:
    """Numbers of a plan."""
    jobs = [job for s in plan.submissions for job in s.jobs]
    certain = [job for s in plan.submissions if not s.wave for job in s.jobs]
    perhaps = sum(len(job.case_ids) for s in plan.submissions if s.wave for job in s.jobs)
    return Summary(
        cases=len(plan.cases),
        twins=sum(case.is_twin for case in plan.cases),
        jobs=len(jobs),
        submissions=len(plan.submissions),
        largest_array=max((len(s.jobs) for s in plan.submissions), default=0),
        largest_job_nodes=max((job.nodes for job in jobs), default=0),
        longest_job_min=max((job.time_limit_min for job in jobs), default=0),
        node_hours_expected=_hours(plan, certain, _expected_starts),
        node_hours_max=round(_hours(plan, certain, _most_starts) + _added(plan), 2),
        perhaps_not_needed=perhaps,
    )


def of_lot(plan: Plan, lot: Lot) -> tuple[float, float]:
    """Node-hours of a lot's cases by their time limits: of those that are run in any case, and of all."""
    by_repeat = [
        (repeat, plan.case(case_id)) for cases in lot.series.values() for repeat, case_id in enumerate(cases)
    ]
    hours = [(repeat, case.nodes * case.time_limit_min / 60) for repeat, case in by_repeat]
    return round(sum(h for repeat, h in hours if repeat < lot.least), 2), round(sum(h for _, h in hours), 2)


def _added(plan: Plan) -> float:
    """Node-hours at most of repeats that may not be needed."""
    waves: dict[str, dict[str, dict[int, float]]] = {}  # group -> lot -> wave -> node-hours
    budgets = {}
    for submission in plan.submissions:
        lot = plan.lot(submission.lot) if submission.wave else None
        if lot is None:
            continue
        budgets[lot.group] = lot.max_node_hours
        own = waves.setdefault(lot.group, {}).setdefault(lot.name, {})
        hours = _hours(plan, list(submission.jobs), _most_starts)
        own[submission.wave] = own.get(submission.wave, 0.0) + hours
    total = 0.0
    for group, lots in waves.items():
        everything = sum(sum(own.values()) for own in lots.values())
        budget = budgets[group]
        total += (
            everything
            if budget is None
            else min(everything, budget + sum(max(own.values()) for own in lots.values()))
        )
    return total


def findings(cost: Summary, campaign: Campaign) -> Iterator[Finding]:
    """What of a plan is more than its campaign allows."""
    most = campaign.limits.max_node_hours
    if most is not None and cost.node_hours_max > most:
        yield Finding(
            ("limits", "max_node_hours"),
            f"but the plan could take {cost.node_hours_max:g} node-hours (expected {cost.node_hours_expected:g}); "
            "lower repeats, nodes or time limits, or raise it",
            most,
        )


def _hours(plan: Plan, jobs: list[Job], starts: Callable[[Plan, Job], int]) -> float:
    return round(sum(job.nodes * job.time_limit_min * starts(plan, job) for job in jobs) / 60, 2)


def _expected_starts(plan: Plan, job: Job) -> int:
    cases = [plan.case(case_id) for case_id in job.case_ids]
    again = [case for case in cases if not case.in_place]  # the others go on in the same allocation
    return 1 + sum(fault.expect == "recovered" for case in again for fault in case.faults)


def _most_starts(plan: Plan, job: Job) -> int:
    cases = [plan.case(case_id) for case_id in job.case_ids]
    starts = 1 + (sum(case.max_restarts for case in cases) if job.requeue else 0)
    if any(case.faults for case in cases):
        return starts  # never submitted again
    return starts * (1 + sum(plan.policy.retry.get(failure, 0) for failure in REPEATING))
