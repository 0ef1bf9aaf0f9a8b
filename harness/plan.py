"""Campaign and site -> everything that will be run, resolved and in order. Pure.

It does the arithmetic (axes, scaling, seeds, twins, ids); ``harness.packing`` makes jobs of the cases. It does
not explain what is wrong with a campaign: ``harness.config.check`` does that before; what slips through is a
``PlanError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness import designs, strikes
from harness.model import axes as sweep
from harness.model.campaign import Campaign, GateSpec, Group
from harness.model.campaign_design import Setting
from harness.model.campaign_faults import FaultSpec
from harness.model.case import Case, Gate, Param, Plan, Policy, content_id
from harness.model.design import AB
from harness.model.site import Site
from harness.packing import PlanError as PlanError
from harness.packing import pack, queue_limit
from harness.rules import wants_twin
from harness.workloads import REGISTRY, Entry


def expand(campaign: Campaign, site: Site, registry: Mapping[str, Entry] = REGISTRY) -> Plan:
    """Everything the campaign runs on the site.

    Raises:
        PlanError: ``harness.config.check`` would have refused the campaign.
    """
    cases = [case for group in campaign.groups for case in _cases(group, campaign, site, registry)]
    cases = _with_twins(cases, campaign, registry)
    return Plan(
        cases=tuple(cases),
        submissions=pack(cases, campaign, site, registry),
        policy=Policy(campaign.retry.model_dump(), queue_limit(campaign, site)),
        lots=designs.lots(cases, campaign),
        comparisons=designs.comparisons(cases, campaign),
    )


# ---- cases ----


def _cases(group: Group, campaign: Campaign, site: Site, registry: Mapping[str, Entry]) -> Iterator[Case]:
    entry = registry[group.workload]
    seed = campaign.seed if group.seed is None else group.seed
    for nodes, cell, setting in _settings(group):
        params = _params(group, nodes, cell, setting, entry)
        command, environment = _surroundings(group, setting)
        for repeat in range(group.most_repeats):
            case = Case(
                case_id="",
                group=group.name,
                workload=group.workload,
                nodes=nodes,
                ranks_per_node=cell.get("ranks_per_node", group.ranks_per_node),
                repeat=repeat,
                seed=seed + repeat,
                steps=cell.get("steps", entry.steps if group.steps is None else group.steps),
                warmup_steps=entry.warmup_steps if group.warmup_steps is None else group.warmup_steps,
                params=params,
                scaling_mode=group.scaling.mode if group.scaling is not None else "none",
                scaling_base=group.scaling.base_nodes if group.scaling is not None else 0,
                checkpoint_every=group.checkpoint.every_steps if group.checkpoint is not None else 0,
                checkpoint_keep=group.checkpoint.keep if group.checkpoint is not None else 2,
                checkpoint_engine=group.checkpoint.engine if group.checkpoint is not None else "own",
                memory_every=(group.checkpoint.memory_every_steps or 0)
                if group.checkpoint is not None
                else 0,
                digest_every=group.digest_every_steps or 0,
                recovery=group.recovery.policy,
                max_restarts=group.recovery.restarts,
                spares=group.recovery.spares,
                shrink=group.recovery.shrink,
                detection=group.detection.model_dump(),
                gates=tuple(_gate(g) for g in group.gates),
                time_limit_min=group.time_limit_min,
                axes=cell,
                partition=group.partition or "",
                command=command,
                environment=environment,
            )
            case_id = _case_id(case, group.faults)
            yield replace(case, case_id=case_id, faults=strikes.of_group(group, case, case_id, site))


def _gate(spec: GateSpec) -> Gate:
    against = spec.baseline is not None or spec.history is not None
    number = spec.smallest_change
    return Gate(
        spec.metric,
        spec.statistic,
        spec.min,
        spec.max,
        dict(spec.where),
        spec.baseline or "",
        spec.history or "",
        (spec.smallest or "5%" if number is None else repr(number)) if against else "",
        spec.despite,
    )


def _cells(group: Group) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every combination of the group's axes on every number of nodes."""
    if sweep.values(group.axes, "nodes"):
        return ((cell["nodes"], cell) for cell in sweep.cells(group.axes))
    return ((nodes, cell) for nodes in group.node_counts for cell in sweep.cells(group.axes))


def _settings(group: Group) -> Iterator[tuple[int, dict[str, Any], Setting]]:
    """Every cell; where two settings are compared, each of them in every cell."""
    for nodes, cell in _cells(group):
        if group.compare is None:
            yield nodes, cell, Setting()
            continue
        for side, setting in group.compare.settings:
            yield nodes, {**cell, AB: side}, setting


def _surroundings(group: Group, setting: Setting) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """A program with its environment, and the environment of the harness's own ranks."""
    if group.command is None:
        return None, {**group.environment, **setting.environment}
    command = group.command.model_dump(mode="json")
    return {**command, "environment": {**command["environment"], **setting.environment}}, {}


def _params(
    group: Group, nodes: int, cell: Mapping[str, Param], setting: Setting, entry: Entry
) -> dict[str, Param]:
    swept = {name: value for name, value in cell.items() if name not in (*sweep.AXIS_FIELDS, AB)}
    params: dict[str, Param] = {**entry.defaults, **group.params, **swept, **setting.params}
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


def _said(case: Case) -> dict[str, Any]:
    """Its parameters, but for those that its workload got later, where they say what was so before."""
    entry = REGISTRY.get(case.workload)
    unsaid = {n: entry.defaults[n] for n in entry.later} if entry is not None else {}
    params = {k: v for k, v in case.params.items() if k not in unsaid or v != unsaid[k]}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in params.items()}


def _case_id(case: Case, faults: Iterable[FaultSpec]) -> str:
    """Hash of what the result depends on: not of limits, gates or words, nor of the site and its means."""
    content = {
        "group": case.group,
        "workload": case.workload,
        "params": _said(case),
        "steps": case.steps,
        "nodes": case.nodes,
        "ranks_per_node": case.ranks_per_node,
        "seed": case.seed,
        "repeat": case.repeat,
        "checkpoint": [case.checkpoint_every, case.checkpoint_keep if case.checkpoint_every else 0],
        "recovery": [case.recovery, case.max_restarts],
        "faults": [f.model_dump(mode="json", exclude_defaults=True) for f in faults],
    }
    if case.command is not None:
        content["command"] = case.command
    # Later additions, left out where they say nothing, so that older ids stay what they were.
    more = {
        "engine": case.checkpoint_engine if case.checkpoint_engine != "own" else "",
        "memory": case.memory_every,
        "spares": case.spares,
        "shrink": case.shrink,
        "environment": dict(case.environment),
        "setting": case.axes.get(AB, ""),  # that two settings are the same makes no case of two
    }
    content |= {name: value for name, value in more.items() if value}
    return content_id(content)


# ---- twins ----


def _with_twins(cases: list[Case], campaign: Campaign, registry: Mapping[str, Entry]) -> list[Case]:
    """The cases, each faulted one naming its twin; a twin that no other case is comes behind its case."""
    groups = {g.name: g for g in campaign.groups}
    undisturbed: dict[tuple[str, str], str] = {}
    for case in cases:
        if not case.faults and not _disturbs_itself(case, groups):
            undisturbed.setdefault((_answer(case), _perhaps(case, groups[case.group])), case.case_id)
    planned: list[Case] = []
    for case in cases:
        disturbed = case.faults or _disturbs_itself(case, groups)
        if not disturbed or not wants_twin(groups[case.group], registry[case.workload]):
            planned.append(case)
            continue
        answer, perhaps = _answer(case), _perhaps(case, groups[case.group])
        known = undisturbed.get((answer, "")) or undisturbed.get((answer, perhaps))
        twin = None
        if known is None:
            twin = replace(
                case,
                faults=(),
                recovery="none",
                max_restarts=0,
                spares=0,
                shrink=False,
                memory_every=0,
                gates=(),
                is_twin=True,
            )
            twin = replace(twin, case_id=_case_id(twin, ()))
            known = undisturbed[answer, perhaps] = twin.case_id
        planned.append(replace(case, twin=known))
        if twin is not None:
            planned.append(twin)
    return planned


def _perhaps(case: Case, group: Group) -> str:
    """What decides whether a case is run at all: its group, where that adds repeats until they are enough; else "".

    A case that may not be run is nobody's twin but that of cases which are run with it.
    """
    rule = group.rule
    return group.name if rule is not None and case.repeat >= rule.min else ""


def _disturbs_itself(case: Case, groups: Mapping[str, Group]) -> bool:
    """Whether it is a program that may do faults to itself, which its twin does not (harness.program.faults)."""
    return case.command is not None and not case.faults and bool(groups[case.group].twin)


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
        "digest_every": case.digest_every,
        "partition": case.partition,  # other processors may round otherwise
        "command": case.command,
        "environment": dict(case.environment),
    }
    return content_id(content)
