"""Cases -> jobs -> submissions: which cases share an allocation, and which jobs one ``sbatch``. Pure.

Cases share a job when they have the same shape: the same kind of ranks, as many on each node, the same
partition, the same groups to wait for, and as many nodes (with ``share_nodes``, any number of nodes). A case
with faults has a job of its own. The two cases of a pair stay together, and repeats that may not be needed have
jobs of their own, wave by wave. Jobs of one shape and time limit become one array, as large as the site and
the campaign allow. What does not fit the site is a ``PlanError``: ``harness.config.check`` says it better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from harness import designs
from harness.model import order
from harness.model.campaign import Campaign, Packing
from harness.model.case import Case, Job, Submission
from harness.model.design import AB, A, a_first
from harness.model.site import Site
from harness.rules import JOB_MARGIN_MIN
from harness.workloads import Entry

# By the workload's launcher.
TEMPLATES = {"torch": "torch.sh.j2", "mpi": "mpi.sh.j2", "command": "command.sh.j2"}


class PlanError(ValueError):
    """The campaign cannot run on the site, or not as written."""


@dataclass(frozen=True)
class _Shape:
    """What cases must have in common to share a job."""

    launcher: str
    nodes: int  # 0: any number, since they share the largest's
    ranks_per_node: int
    requeue: bool
    faulted: bool
    partition: str
    wait: order.Wait
    lot: str  # "" for cases that are run in any case
    wave: int
    compared: str  # the group, where its cases are pairs; else ""


def pack(
    cases: Iterable[Case], campaign: Campaign, site: Site, registry: Mapping[str, Entry]
) -> tuple[Submission, ...]:
    """The submissions of a campaign's cases, in the order in which they are sent.

    What others wait for comes first. Then large jobs, since they wait for many nodes; jobs with faults last,
    so that a node that does not come back takes nothing from the undisturbed cases. Repeats that may not be needed
    come behind all that will be run.

    Raises:
        PlanError: a case does not fit the site.
    """
    waits = campaign.waits()
    groups = {group.name: group for group in campaign.groups}
    shapes: dict[_Shape, list[Case]] = {}
    for case in cases:
        place = designs.place(case, groups[case.group], campaign)
        shape = _shape(case, waits[case.group], place, campaign.packing, registry)
        shapes.setdefault(shape, []).append(case)
    jobs = [
        (shape, _job(shape, chunk, site))
        for shape, members in shapes.items()
        for chunk in _chunks(shape, members, campaign.packing, site)
    ]
    level = order.levels(waits)
    depth = {wait: level[name] for name, wait in waits.items()}
    jobs.sort(key=lambda item: (depth[item[0].wait], item[0].wave, item[0].faulted, -item[1].nodes))
    return tuple(_submissions(jobs, _most_tasks(campaign, site)))


def queue_limit(campaign: Campaign, site: Site) -> int | None:
    """Most jobs in the queue, each task of an array counted: what the campaign or the site allows, or no limit."""
    said = [campaign.limits.max_jobs_in_queue, site.limits.max_jobs_in_queue]
    return min((limit for limit in said if limit is not None), default=None)


def _most_tasks(campaign: Campaign, site: Site) -> int:
    queue = queue_limit(campaign, site)
    return site.limits.max_array_size if queue is None else min(site.limits.max_array_size, queue)


def _shape(
    case: Case, wait: order.Wait, place: tuple[str, int], packing: Packing, registry: Mapping[str, Entry]
) -> _Shape:
    lot, wave = place
    return _Shape(
        launcher=registry[case.workload].launcher,
        nodes=0 if packing.share_nodes and not case.spares else case.nodes + case.spares,
        ranks_per_node=case.ranks_per_node,
        requeue=case.recovery == "requeue",
        faulted=bool(case.faults),
        partition=case.partition,
        wait=wait,
        lot=lot,
        wave=wave,
        compared=case.group if AB in case.axes else "",
    )


def _chunks(shape: _Shape, cases: list[Case], packing: Packing, site: Site) -> Iterator[tuple[Case, ...]]:
    """The cases of each job, in the order in which they run."""
    room = site.on(shape.partition).limits.max_time_min - JOB_MARGIN_MIN
    most = packing.max_cases or len(cases)
    if shape.faulted or packing.mode == "jobs":
        most = 1
    if packing.mode == "interleaved" or not shape.nodes:
        # The larger first, so that only the last jobs, whose cases are all small, are small.
        cases = sorted(cases, key=lambda c: (c.repeat if packing.mode == "interleaved" else 0, -c.nodes))
    chunk: list[Case] = []
    minutes = 0
    for together in _pairs(cases) if shape.compared else ((case,) for case in cases):
        more = sum(case.time_limit_min for case in together)
        if chunk and (len(chunk) + len(together) > most or minutes + more > room):
            yield tuple(chunk)
            chunk, minutes = [], 0
        chunk += together
        minutes += more
    yield tuple(chunk)


def _pairs(cases: list[Case]) -> Iterator[tuple[Case, ...]]:
    """Both settings of each cell and repeat, one behind the other, in the order of whichever stands first."""
    pairs: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        pairs.setdefault((case.cell, case.repeat), []).append(case)
    for (_, repeat), pair in pairs.items():
        first_a = a_first(pair[0].seed - repeat, repeat)  # the seed of a case is its group's and its repeat
        yield tuple(sorted(pair, key=lambda case: (case.axes[AB] == A) != first_a))


def _job(shape: _Shape, cases: tuple[Case, ...], whole: Site) -> Job:
    site = whole.on(shape.partition)
    nodes = max(case.nodes + case.spares for case in cases)
    time_limit_min = sum(c.time_limit_min for c in cases) + JOB_MARGIN_MIN
    who = f"group {cases[0].group}"
    if nodes > site.limits.max_nodes:
        raise PlanError(f"{who}: {nodes} nodes, but site {site.name} allows {site.limits.max_nodes}")
    if time_limit_min > site.limits.max_time_min:
        raise PlanError(
            f"{who}: {time_limit_min} minutes, but site {site.name} allows {site.limits.max_time_min}"
        )
    if shape.requeue and not site.requeue:
        raise PlanError(f"{who}: recovery requeue, but site {site.name} does not start jobs again")
    return Job(
        key="",
        nodes=nodes,
        ranks_per_node=shape.ranks_per_node,
        time_limit_min=time_limit_min,
        case_ids=tuple(c.case_id for c in cases),
        requeue=shape.requeue,
    )


def _submissions(jobs: list[tuple[_Shape, Job]], most_tasks: int) -> Iterator[Submission]:
    """One submission for all jobs of one shape and time limit: an array has one set of resources."""
    alike: dict[tuple[_Shape, int, int], list[Job]] = {}
    for shape, job in jobs:
        alike.setdefault((shape, job.nodes, job.time_limit_min), []).append(job)
    number = 0
    for (shape, _, _), members in alike.items():
        for start in range(0, len(members), most_tasks):
            part = members[start : start + most_tasks]
            name = f"{number:04d}"
            keyed = (
                replace(job, key=name if len(part) == 1 else f"{name}_{index}")
                for index, job in enumerate(part)
            )
            yield Submission(
                name=name,
                jobs=tuple(keyed),
                template=TEMPLATES.get(shape.launcher, "base.sh.j2"),
                partition=shape.partition,
                after=shape.wait.after,
                needs=shape.wait.needs,
                lot=shape.lot,
                wave=shape.wave,
            )
            number += 1
