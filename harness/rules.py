"""What must hold between a campaign, the registry of workloads and a site. Pure: values in, findings out.

What one file says of itself is checked by the models. A finding's place is within the group, or within
the campaign for ``site_findings``; ``harness.config`` turns findings into messages with file and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from harness.model import axes as sweep
from harness.model.campaign import COMMAND, KILL_PROCESSES, POWER_OFF, Campaign, Group
from harness.model.fields import Finding, Loc, did_you_mean
from harness.model.metrics import METRICS
from harness.model.site import Site

JOB_MARGIN_MIN = (
    2  # starting the agents, and the warning signal, which Slurm sends up to two minutes before the end
)
MAX_CASES = 10_000
MAX_PARAM = 1 << 40  # of a workload: rows, bytes, ...; more than any machine holds
_LISTED = "harness/model/metrics.py lists them"


class Workload(Protocol):
    """What the rules need to know of a workload; ``harness.workloads.Entry`` has it."""

    @property
    def steps(self) -> int:
        """Default number of steps."""

    @property
    def warmup_steps(self) -> int:
        """Default number of warm-up steps."""

    @property
    def defaults(self) -> dict[str, Any]:
        """Parameters and their defaults."""

    @property
    def restartable(self) -> bool:
        """Whether its state can be saved and restored."""

    @property
    def launcher(self) -> str:
        """How its ranks are started: "torch", "mpi", ..."""


Registry = Mapping[str, Workload]


def can_power_off(site: Site) -> bool:
    """Whether a node's power may be switched on this site."""
    return site.power is not None and site.kind in ("emulated", "staging")


def wants_twin(group: Group, workload: Workload) -> bool:
    """Whether the group's faulted cases are compared with undisturbed runs."""
    if group.twin is not None:
        return group.twin
    return workload.restartable and any(f.expect == "recovered" for f in group.faults)


def resumes(group: Group, workload: Workload) -> bool:
    """Whether its cases go on where they were lost: from the harness's checkpoints, or a program from its own files."""
    return group.command.restartable if group.command is not None else workload.restartable


def workload_findings(
    workload: object, params: object, registry: Registry, axes: object = ()
) -> Iterator[Finding]:
    """Findings about a group's workload, parameters and axes, which may still be anything that YAML can say."""
    if not isinstance(workload, str):
        return
    if workload not in registry:
        names = sorted(registry)
        yield Finding(
            ("workload",),
            f"is no workload, allowed: {', '.join(names)}; {did_you_mean(workload, names, 'choose one')}",
            workload,
        )
        return
    if workload == COMMAND:
        return  # its parameters are its author's
    defaults = registry[workload].defaults
    for name, value in params.items() if isinstance(params, Mapping) else ():
        if name not in defaults:
            yield Finding(("params", str(name)), _no_parameter(name, workload, defaults), value)
        elif problem := _wrong_type(value, defaults[name]):
            yield Finding(("params", str(name)), problem, value)
    for number, axis in enumerate(axes if isinstance(axes, tuple) else ()):
        for name, values in axis.items() if isinstance(axis, Mapping) else ():
            if name in sweep.AXIS_FIELDS:
                continue  # the model's own rules
            loc: Loc = ("axes", number, str(name))
            if name not in defaults:
                yield Finding(loc, _no_parameter(name, workload, (*defaults, *sweep.AXIS_FIELDS)))
                continue
            for index, value in enumerate(values if isinstance(values, tuple) else ()):
                if problem := _wrong_type(value, defaults[name]):
                    yield Finding((*loc, index), problem, value)


def metric_findings(gates: object, command: object) -> Iterator[Finding]:
    """Findings about the metrics of a group's gates; both may still be anything that YAML can say."""
    said = command.get("metrics") if isinstance(command, Mapping) else ()
    known = set(METRICS)
    for metric in said if isinstance(said, tuple) else ():
        if isinstance(metric, Mapping):
            coordinates = metric.get("coordinates")
            known |= {metric.get("name"), *(coordinates if isinstance(coordinates, Mapping) else ())} - {None}
    for index, gate in enumerate(gates if isinstance(gates, tuple) else ()):
        name = gate.get("metric") if isinstance(gate, Mapping) else None
        if isinstance(name, str) and name not in known:
            text = f"is no metric of the harness; {did_you_mean(name, known, _LISTED)}"
            yield Finding(("gates", index, "metric"), text, name)
        where = gate.get("where") if isinstance(gate, Mapping) else None
        for column, value in where.items() if isinstance(where, Mapping) else ():
            if column not in known:
                text = f"is no column of the samples; {did_you_mean(column, known, _LISTED)}"
                yield Finding(("gates", index, "where", str(column)), text, value)


def _no_parameter(name: object, workload: str, allowed: Iterable[str]) -> str:
    names = sorted(allowed)
    hint = did_you_mean(name, names, "remove it")
    return f"is no parameter of {workload}, allowed: {', '.join(names)}; {hint}"


def _wrong_type(value: object, default: object) -> str:
    if isinstance(default, tuple):
        if not isinstance(value, tuple):
            return f"must be a list, like the default {list(default)}; write it in [ ]"
        parts, examples = value, default[:1]
    else:
        if isinstance(value, tuple):
            return f"must be one value, like the default {default}; remove the [ ]"
        parts, examples = (value,), (default,)
    for example in examples:
        for part in parts:
            if not _alike(part, example):
                return f"must be {_kind(example)}, like the default {example}; change it"
            if isinstance(part, int | float) and part < 0 <= float(str(example)):
                return f"is negative, allowed: 0 and above (default {example}); change it"
            if isinstance(part, int) and part > MAX_PARAM:
                return f"is too large, allowed: {MAX_PARAM} and below; lower it"
    return ""


def _alike(value: object, example: object) -> bool:
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(example, bool) and isinstance(value, bool)
    if isinstance(example, float):
        return isinstance(value, int | float)
    return type(value) is type(example)


def _kind(example: object) -> str:
    if isinstance(example, bool):
        return "true or false"
    return {int: "a whole number", float: "a number", str: "a text"}[type(example)]


def group_findings(group: Group, workload: Workload) -> Iterator[Finding]:
    """Findings about a valid group, given its workload."""
    where, steps = min(group.places("steps"), key=lambda p: p[1], default=(("steps",), workload.steps))
    warmup = workload.warmup_steps if group.warmup_steps is None else group.warmup_steps
    if warmup >= steps:
        if group.warmup_steps is not None:
            yield Finding(("warmup_steps",), f"leaves nothing of {steps} steps to judge; lower it", warmup)
        else:
            yield Finding(
                where,
                f"is not above the {warmup} warm-up steps of {group.workload}, so nothing is left to judge; "
                "raise it or set warmup_steps",
                steps,
            )
    if group.checkpoint is not None:
        if group.workload == COMMAND:
            yield Finding(
                ("checkpoint",), "but the harness saves nothing of a program; it saves itself; remove it"
            )
        elif not workload.restartable:
            yield Finding(
                ("checkpoint",),
                f"but {group.workload} cannot save its state; remove it or choose another workload",
            )
        elif group.checkpoint.every_steps > steps:
            yield Finding(
                ("checkpoint", "every_steps"),
                f"is more than the {steps} steps of a case, so none would be taken; lower it",
                group.checkpoint.every_steps,
            )
    if group.recovery.policy == "requeue" and not resumes(group, workload):
        instead = (
            "say that it can (command.restartable)"
            if group.workload == COMMAND
            else "choose another workload"
        )
        yield Finding(
            ("recovery", "policy"),
            f"but {group.workload} cannot resume from a saved state; write none or {instead}",
            group.recovery.policy,
        )
    yield from _fault_findings(group, workload, steps)
    yield from _growth_findings(group, workload)


def _fault_findings(group: Group, workload: Workload, steps: int) -> Iterator[Finding]:
    smallest = min(group.node_counts)
    recovered = [f for f in group.faults if f.expect == "recovered"]
    for index, fault in enumerate(group.faults):
        if fault.at.step >= steps:
            yield Finding(
                ("faults", index, "at", "step"),
                f"but a case has {steps} steps, the last of them {steps - 1}; lower it",
                fault.at.step,
            )
        if fault.target.node >= smallest:
            yield Finding(
                ("faults", index, "target", "node"),
                f"but the smallest case has {smallest} node{'s' * (smallest > 1)}, allowed: 0 to "
                f"{smallest - 1}; lower it",
                fault.target.node,
            )
        if fault.expect == "recovered" and resumes(group, workload):
            lacks = []
            if group.recovery.policy == "none":
                lacks.append("recovery: {policy: requeue}")
            if group.checkpoint is None and group.workload != COMMAND:
                lacks.append("checkpoint: {every_steps: ...}")
            if lacks:
                yield Finding(
                    ("faults", index, "expect"),
                    f"but the group cannot recover without {' and '.join(lacks)}; add that, or expect failed",
                    fault.expect,
                )
        elif fault.expect == "recovered":
            yield Finding(
                ("faults", index, "expect"),
                f"but {group.workload} cannot resume from a saved state; "
                "expect failed or choose another workload",
                fault.expect,
            )
    if group.recovery.policy == "requeue" and len(recovered) > group.recovery.restarts:
        yield Finding(
            ("recovery", "max_restarts"),
            f"but {len(recovered)} faults are expected to be recovered from; raise it",
            group.recovery.restarts,
        )
    if group.twin and not workload.restartable:
        yield Finding(
            ("twin",),
            f"but {group.workload} cannot resume, so its answer is no twin's; remove it",
            group.twin,
        )
    if group.twin and group.faults and not recovered:
        yield Finding(("twin",), "but no fault is expected to be recovered from; remove it", group.twin)


def _growth_findings(group: Group, workload: Workload) -> Iterator[Finding]:
    scaling = group.scaling
    if scaling is None or scaling.grow is None:
        return
    swept = {
        name: tuple(v for _, v in sweep.values(group.axes, name)) for axis in group.axes for name in axis
    }
    values = {**{name: (v,) for name, v in {**workload.defaults, **group.params}.items()}, **swept}
    own = {
        name: v[0] for name, v in values.items() if name not in sweep.AXIS_FIELDS and all(map(_is_whole, v))
    }
    whole = sorted(
        n for n, v in (own if group.workload == COMMAND else workload.defaults).items() if _is_whole(v)
    )
    if scaling.grow not in whole:
        yield Finding(
            ("scaling", "grow"),
            f"is no whole-number parameter of {group.workload}, allowed: {', '.join(whole) or 'none'}; "
            f"{did_you_mean(scaling.grow, whole, 'choose one')}",
            scaling.grow,
        )
        return
    if not all(map(_is_whole, values[scaling.grow])):
        return  # their type is a finding of its own
    for index, nodes in enumerate(scaling.nodes):
        uneven = [value for value in values[scaling.grow] if value * nodes % scaling.base_nodes]
        for value in uneven[:1]:
            yield Finding(
                ("scaling", "nodes", index),
                f"makes {scaling.grow} = {value} x {nodes}/{scaling.base_nodes}, which is no whole number; "
                f"change it or {scaling.grow}",
                nodes,
            )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def size_findings(groups: Iterable[Group]) -> Iterator[Finding]:
    """Findings about the number of cases, which is found without writing them out."""
    cases = sum(group.case_count for group in groups)
    if cases > MAX_CASES:
        yield Finding(
            ("groups",),
            f"make {cases} cases, allowed: {MAX_CASES}; lower repeats, shorten axes or split the campaign",
        )


def need_findings(campaign: Campaign) -> Iterator[Finding]:
    """Doubts about what groups need of each other."""
    failing = {g.name for g in campaign.groups if any(f.expect == "failed" for f in g.faults)}
    for index, group in enumerate(campaign.groups):
        for number, name in enumerate(group.needs):
            if name in failing:
                yield Finding(
                    ("groups", index, "needs", number),
                    "has faults with which it is expected to fail, and has passed if it does; write it in after "
                    "unless this is meant",
                    name,
                    warning=True,
                )


def site_findings(groups: Iterable[tuple[int, Group]], site: Site, registry: Registry) -> Iterator[Finding]:
    """Findings about valid groups of a campaign, each with its number there, on a site."""
    for index, group in groups:
        if group.partition is not None and group.partition not in site.partitions:
            yield _no_such_partition(index, group.partition, site)
            continue
        there = site.on(group.partition or "")
        for finding in (*_group_on_site(group, there), *_slice_findings(group, there, registry)):
            yield Finding(("groups", index, *finding.loc), finding.text, finding.value, finding.warning)


def _no_such_partition(index: int, name: str, site: Site) -> Finding:
    names = sorted(site.partitions)
    otherwise = "choose one" if names else "remove it, or add `partitions` to the site file"
    return Finding(
        ("groups", index, "partition"),
        f'is none of the partitions of site "{site.name}", allowed: {", ".join(names) or "none"}; '
        f"{did_you_mean(name, names, otherwise)}",
        name,
    )


def _slice_findings(group: Group, site: Site, registry: Registry) -> Iterator[Finding]:
    """MIG slices take one rank each, and NCCL does not join them."""
    if not site.node.mig:
        return
    where = f'the GPUs of site "{site.name}" are MIG slices'
    workload = registry.get(group.workload)
    torch = workload is not None and workload.launcher == "torch"
    most, place = max((ranks, place) for place, ranks in group.places("ranks_per_node"))
    if most > site.node.gpus and (torch or group.workload == COMMAND):
        yield Finding(
            place,
            f"but {where}, {site.node.gpus} on a node, and each rank needs one; lower it",
            most,
        )
    several = most > 1 or any(nodes > 1 for nodes in group.node_counts)
    if several and torch:
        yield Finding(
            place if most > 1 else ("workload",),
            f"but {where}, and NCCL joins no slices: there is no path from one to another; make it one rank "
            "(nodes: 1, ranks_per_node: 1), or choose a partition with whole GPUs",
            most if most > 1 else group.workload,
        )


def _group_on_site(group: Group, site: Site) -> Iterator[Finding]:
    where = f'site "{site.name}"'
    for place, nodes in group.places("nodes"):
        if nodes > site.limits.max_nodes:
            yield Finding(
                place,
                f"but {where} allows at most {site.limits.max_nodes}; lower it or choose another site",
                nodes,
            )
    if group.time_limit_min + JOB_MARGIN_MIN > site.limits.max_time_min:
        yield Finding(
            ("time_limit_min",),
            f"but {where} allows jobs of at most {site.limits.max_time_min} minutes, {JOB_MARGIN_MIN} of "
            "which the harness needs itself; lower it or choose another site",
            group.time_limit_min,
        )
    for place, ranks in group.places("ranks_per_node"):
        if ranks > site.node.cpus:
            yield Finding(
                place,
                f"but a node of {where} has {site.node.cpus} processors: oversubscribed, so times mean little; "
                "lower it unless this is meant",
                ranks,
                warning=True,
            )
    if group.recovery.policy == "requeue" and not site.requeue:
        yield Finding(
            ("recovery", "policy"),
            f"but {where} does not start jobs again (requeue: false); choose another site, or write none and "
            "expect failed",
            group.recovery.policy,
        )
    for index, fault in enumerate(group.faults):
        if fault.kind == POWER_OFF and fault.instead is None and not can_power_off(site):
            yield Finding(
                ("faults", index, "kind"),
                f"but {where} has no power command; choose a site that has one, or add "
                f"instead: {KILL_PROCESSES}",
                fault.kind,
            )
