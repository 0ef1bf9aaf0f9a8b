"""Campaign and site -> everything that will be run, resolved and in order. Pure.

It does the arithmetic (scaling, seeds, twins, ids, time limits) and packs cases into jobs. It does not
explain what is wrong with a campaign: ``harness.config.check`` does that before; what slips through is a
``PlanError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.model.campaign import POWER_OFF, Campaign, FaultSpec, Group
from harness.model.case import Case, Fault, Gate, Job, Param, Plan, Submission, content_id
from harness.model.site import Site
from harness.rules import JOB_MARGIN_MIN, can_power_off, wants_twin
from harness.workloads import REGISTRY, Entry

TEMPLATES = {"torch": "torch.sh.j2", "mpi": "mpi.sh.j2"}  # by the workload's launcher


class PlanError(ValueError):
    """The campaign cannot run on the site, or not as written."""


@dataclass(frozen=True)
class Summary:
    """How much a plan is. ``node_hours_max`` is if every job used its whole time limit at every start."""

    cases: int
    twins: int
    jobs: int
    submissions: int
    node_hours_max: float


@dataclass(frozen=True)
class _Shape:
    """What cases must have in common to share a job."""

    launcher: str
    nodes: int
    ranks_per_node: int
    requeue: bool
    faulted: bool


def expand(campaign: Campaign, site: Site, registry: Mapping[str, Entry] = REGISTRY) -> Plan:
    """Everything the campaign runs on the site.

    Raises:
        PlanError: ``harness.config.check`` would have refused the campaign.
    """
    cases = [case for group in campaign.groups for case in _cases(group, campaign, site, registry)]
    cases = _with_twins(cases, campaign, registry)
    jobs: list[tuple[_Shape, Job]] = []
    for shape, members in _by_shape(cases, registry):
        for chunk in _chunks(shape, members, site):
            jobs.append((shape, _job(shape, chunk, site)))
    return Plan(cases=tuple(cases), submissions=tuple(_submissions(jobs, site)))


def summary(plan: Plan) -> Summary:
    """Numbers of a plan."""
    minutes = 0
    jobs = [job for s in plan.submissions for job in s.jobs]
    by_id = {case.case_id: case for case in plan.cases}
    for job in jobs:
        restarts = sum(by_id[c].max_restarts for c in job.case_ids) if job.requeue else 0
        minutes += job.nodes * job.time_limit_min * (1 + restarts)
    return Summary(
        cases=len(plan.cases),
        twins=sum(case.is_twin for case in plan.cases),
        jobs=len(jobs),
        submissions=len(plan.submissions),
        node_hours_max=round(minutes / 60, 2),
    )


# ---- cases ----


def _cases(group: Group, campaign: Campaign, site: Site, registry: Mapping[str, Entry]) -> Iterator[Case]:
    entry = registry[group.workload]
    seed = campaign.seed if group.seed is None else group.seed
    for nodes in group.node_counts:
        for repeat in range(group.repeats):
            case = Case(
                case_id="",
                group=group.name,
                workload=group.workload,
                nodes=nodes,
                ranks_per_node=group.ranks_per_node,
                repeat=repeat,
                seed=seed + repeat,
                steps=entry.steps if group.steps is None else group.steps,
                warmup_steps=entry.warmup_steps if group.warmup_steps is None else group.warmup_steps,
                params=_params(group, nodes, entry),
                scaling_mode=group.scaling.mode if group.scaling is not None else "none",
                scaling_base=group.scaling.base_nodes if group.scaling is not None else 0,
                checkpoint_every=group.checkpoint.every_steps if group.checkpoint is not None else 0,
                checkpoint_keep=group.checkpoint.keep if group.checkpoint is not None else 2,
                recovery=group.recovery.policy,
                max_restarts=group.recovery.restarts,
                gates=tuple(Gate(g.metric, g.statistic, g.min, g.max, dict(g.where)) for g in group.gates),
                time_limit_min=group.time_limit_min,
            )
            case_id = _case_id(case, group.faults)
            yield replace(case, case_id=case_id, faults=tuple(_faults(group, case_id, site)))


def _params(group: Group, nodes: int, entry: Entry) -> dict[str, Param]:
    params: dict[str, Param] = {**entry.defaults, **group.params}
    for name, default in entry.defaults.items():
        value = params[name]
        if isinstance(default, float) and isinstance(value, int):
            params[name] = float(value)
    scaling = group.scaling
    if scaling is not None and scaling.grow is not None:
        value = params[scaling.grow]
        if not isinstance(value, int) or value * nodes % scaling.base_nodes:
            raise PlanError(
                f"group {group.name}: {scaling.grow} = {value} x {nodes}/{scaling.base_nodes} is not whole"
            )
        params[scaling.grow] = value * nodes // scaling.base_nodes
    return params


def _case_id(case: Case, faults: Iterable[FaultSpec]) -> str:
    """Hash of what the result depends on: not of limits, gates or words, nor of the site and its means."""
    return content_id(
        {
            "group": case.group,
            "workload": case.workload,
            "params": {k: list(v) if isinstance(v, tuple) else v for k, v in case.params.items()},
            "steps": case.steps,
            "nodes": case.nodes,
            "ranks_per_node": case.ranks_per_node,
            "seed": case.seed,
            "repeat": case.repeat,
            "checkpoint": [case.checkpoint_every, case.checkpoint_keep if case.checkpoint_every else 0],
            "recovery": [case.recovery, case.max_restarts],
            "faults": [f.model_dump(mode="json", exclude_defaults=True) for f in faults],
        }
    )


def _faults(group: Group, case_id: str, site: Site) -> Iterator[Fault]:
    for index, spec in enumerate(group.faults):
        kind: str = spec.kind
        if kind == POWER_OFF and not can_power_off(site):
            if spec.instead is None:
                raise PlanError(
                    f"group {group.name}: {kind} needs a power command, and site {site.name} has none"
                )
            kind = spec.instead
        yield Fault(
            fault_id=f"{case_id}-f{index}",
            kind=kind,
            requested_kind=spec.kind,
            target_node=spec.target.node,
            at_step=spec.at.step,
            expect=spec.expect,
        )


# ---- twins ----


def _with_twins(cases: list[Case], campaign: Campaign, registry: Mapping[str, Entry]) -> list[Case]:
    """The cases, each faulted one naming its twin; a twin that no other case is comes behind its case."""
    groups = {g.name: g for g in campaign.groups}
    undisturbed: dict[str, str] = {}
    for case in cases:
        if not case.faults:
            undisturbed.setdefault(_answer(case), case.case_id)
    planned: list[Case] = []
    for case in cases:
        if not case.faults or not wants_twin(groups[case.group], registry[case.workload]):
            planned.append(case)
            continue
        answer = _answer(case)
        twin = None
        if answer not in undisturbed:
            twin = replace(case, faults=(), recovery="none", max_restarts=0, gates=(), is_twin=True)
            twin = replace(twin, case_id=_case_id(twin, ()))
            undisturbed[answer] = twin.case_id
        planned.append(replace(case, twin=undisturbed[answer]))
        if twin is not None:
            planned.append(twin)
    return planned


def _answer(case: Case) -> str:
    """Key of everything that an undisturbed run's answer depends on."""
    content: dict[str, Any] = {
        "workload": case.workload,
        "params": {k: list(v) if isinstance(v, tuple) else v for k, v in case.params.items()},
        "steps": case.steps,
        "nodes": case.nodes,
        "ranks_per_node": case.ranks_per_node,
        "seed": case.seed,
        "checkpoint_every": case.checkpoint_every,
    }
    return content_id(content)


# ---- jobs ----


def _by_shape(cases: Iterable[Case], registry: Mapping[str, Entry]) -> list[tuple[_Shape, list[Case]]]:
    """Cases that may share a job, in the order of submission.

    Large jobs first, since they wait for many nodes; jobs with faults last, so that a node that does not
    come back takes nothing from the undisturbed cases.
    """
    shapes: dict[_Shape, list[Case]] = {}
    for case in cases:
        shape = _Shape(
            registry[case.workload].launcher,
            case.nodes,
            case.ranks_per_node,
            case.recovery == "requeue",
            bool(case.faults),
        )
        shapes.setdefault(shape, []).append(case)
    return sorted(shapes.items(), key=lambda item: (item[0].faulted, -item[0].nodes))


def _chunks(shape: _Shape, cases: list[Case], site: Site) -> Iterator[tuple[Case, ...]]:
    """The cases of each job: a faulted case has its own, others follow each other up to the time limit."""
    room = site.limits.max_time_min - JOB_MARGIN_MIN
    chunk: list[Case] = []
    for case in cases:
        if chunk and (shape.faulted or sum(c.time_limit_min for c in chunk) + case.time_limit_min > room):
            yield tuple(chunk)
            chunk = []
        chunk.append(case)
    yield tuple(chunk)


def _job(shape: _Shape, cases: tuple[Case, ...], site: Site) -> Job:
    time_limit_min = sum(c.time_limit_min for c in cases) + JOB_MARGIN_MIN
    who = f"group {cases[0].group}"
    if shape.nodes > site.limits.max_nodes:
        raise PlanError(f"{who}: {shape.nodes} nodes, but site {site.name} allows {site.limits.max_nodes}")
    if time_limit_min > site.limits.max_time_min:
        raise PlanError(
            f"{who}: {time_limit_min} minutes, but site {site.name} allows {site.limits.max_time_min}"
        )
    if shape.requeue and not site.requeue:
        raise PlanError(f"{who}: recovery requeue, but site {site.name} does not start jobs again")
    return Job(
        key="",
        nodes=shape.nodes,
        ranks_per_node=shape.ranks_per_node,
        time_limit_min=time_limit_min,
        case_ids=tuple(c.case_id for c in cases),
        requeue=shape.requeue,
    )


def _submissions(jobs: list[tuple[_Shape, Job]], site: Site) -> Iterator[Submission]:
    """One submission for all jobs of one shape and time limit: an array has one set of resources."""
    alike: dict[tuple[_Shape, int], list[Job]] = {}
    for shape, job in jobs:
        alike.setdefault((shape, job.time_limit_min), []).append(job)
    number = 0
    for (shape, _), members in alike.items():
        for start in range(0, len(members), site.limits.max_array_size):
            part = members[start : start + site.limits.max_array_size]
            name = f"{number:04d}"
            keyed = (
                replace(job, key=name if len(part) == 1 else f"{name}_{index}")
                for index, job in enumerate(part)
            )
            yield Submission(
                name=name, jobs=tuple(keyed), template=TEMPLATES.get(shape.launcher, "base.sh.j2")
            )
            number += 1
