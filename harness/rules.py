"""What must hold between a campaign, the registry of workloads and a site. Pure: values in, findings out.

What one file says of itself is checked by the models. A finding's place is within the group, or within
the campaign for ``site_findings``; ``harness.config`` turns findings into messages with file and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from harness import fault_rules, figure_rules
from harness.model import axes as sweep
from harness.model import fault as fault_model
from harness.model.campaign import COMMAND, Campaign, Group
from harness.model.campaign_design import FOR_AN_INTERVAL
from harness.model.design import A, B
from harness.model.fault import FAILED
from harness.model.fields import Finding, Loc, did_you_mean
from harness.model.metrics import METRICS
from harness.model.site import Site
from harness.param_rules import no_parameter, wrong_value

JOB_MARGIN_MIN = (
    2  # starting the agents, and the warning signal, which Slurm sends up to two minutes before the end
)
MAX_CASES = 10_000
_LISTED = "harness/model/metrics.py lists them"


class Workload(fault_rules.Workload, figure_rules.Workload, Protocol):
    """What the rules need to know of a workload; ``harness.workloads.Entry`` has it."""

    @property
    def steps(self) -> int:
        """Default number of steps."""

    @property
    def warmup_steps(self) -> int:
        """Default number of warm-up steps."""

    @property
    def allowed(self) -> dict[str, tuple[Any, ...]]:
        """Of parameters: the texts that are allowed, or the lowest and the highest number."""


Registry = Mapping[str, Workload]


def wants_twin(group: Group, workload: Workload) -> bool:
    """Whether the group's faulted cases are compared with undisturbed runs."""
    if group.twin is not None:
        return group.twin
    recovers = any(f.expect != FAILED for f in group.faults)
    return recovers and (group.command.comparable if group.command is not None else workload.restartable)


def resumes(group: Group, workload: Workload) -> bool:
    """Whether its cases go on where they were lost: from the harness's checkpoints, or a program from its own files."""
    return group.command.restartable if group.command is not None else workload.restartable


def workload_findings(
    workload: object, params: object, registry: Registry, axes: object = (), compare: object = None
) -> Iterator[Finding]:
    """Findings about a group's workload and all its parameters, which may still be anything that YAML can say."""
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
    defaults, allowed = registry[workload].defaults, registry[workload].allowed
    for place, given in _parameters(params, compare):
        for name, value in given.items():
            if name not in defaults:
                yield Finding((*place, str(name)), no_parameter(name, workload, defaults), value)
            elif problem := wrong_value(value, defaults[name], allowed.get(name, ())):
                yield Finding((*place, str(name)), problem, value)
    for number, axis in enumerate(axes if isinstance(axes, tuple) else ()):
        for name, values in axis.items() if isinstance(axis, Mapping) else ():
            if name in sweep.AXIS_FIELDS:
                continue  # the model's own rules
            loc: Loc = ("axes", number, str(name))
            if name not in defaults:
                yield Finding(loc, no_parameter(name, workload, (*defaults, *sweep.AXIS_FIELDS)))
                continue
            for index, value in enumerate(values if isinstance(values, tuple) else ()):
                if problem := wrong_value(value, defaults[name], allowed.get(name, ())):
                    yield Finding((*loc, index), problem, value)


def _parameters(params: object, compare: object) -> Iterator[tuple[Loc, Mapping[Any, Any]]]:
    """Parameters that a group gives, with their place: its own, and those of settings that it compares."""
    given: list[tuple[Loc, object]] = [(("params",), params)]
    for side in (A, B) if isinstance(compare, Mapping) else ():
        setting = compare.get(side) if isinstance(compare, Mapping) else None
        given.append(
            (("compare", side, "params"), setting.get("params") if isinstance(setting, Mapping) else None)
        )
    for place, values in given:
        if isinstance(values, Mapping):
            yield place, values


def metric_findings(
    gates: object, command: object, repeats: object = None, compare: object = None
) -> Iterator[Finding]:
    """Findings about the metrics that a group names; all may still be anything that YAML can say."""
    said = command.get("metrics") if isinstance(command, Mapping) else ()
    known = set(METRICS)
    for metric in said if isinstance(said, tuple) else ():
        if isinstance(metric, Mapping):
            coordinates = metric.get("coordinates")
            known |= {metric.get("name"), *(coordinates if isinstance(coordinates, Mapping) else ())} - {None}
    for index, gate in enumerate(gates if isinstance(gates, tuple) else ()):
        yield from _figure_findings(("gates", index), gate, known)
    if isinstance(repeats, Mapping):
        yield from _figure_findings(("repeats", "until"), repeats.get("until"), known)
    yield from _figure_findings(("compare",), compare, known)


def _figure_findings(loc: Loc, figure: object, known: set[Any]) -> Iterator[Finding]:
    name = figure.get("metric") if isinstance(figure, Mapping) else None
    if isinstance(name, str) and name not in known:
        text = f"is no metric of the harness; {did_you_mean(name, known, _LISTED)}"
        yield Finding((*loc, "metric"), text, name)
    where = figure.get("where") if isinstance(figure, Mapping) else None
    for column, value in where.items() if isinstance(where, Mapping) else ():
        if column not in known:
            text = f"is no column of the samples; {did_you_mean(column, known, _LISTED)}"
            yield Finding((*loc, "where", str(column)), text, value)


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
    yield from fault_rules.group_findings(group, workload, steps, resumes(group, workload))
    yield from figure_rules.findings(group, workload)
    yield from _growth_findings(group, workload)
    yield from _variable_findings(group, workload)


# What a process reads when it starts, or torch when it is imported: too late for a rank that is forked.
_AT_START = ("LD_PRELOAD", "LD_LIBRARY_PATH", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED")


def _variable_findings(group: Group, workload: Workload) -> Iterator[Finding]:
    """Variables that would come too late, or say nothing."""
    compare = group.compare
    places: list[tuple[Loc, Mapping[str, str]]] = [(("environment",), group.environment)]
    if compare is not None:
        places += [(("compare", side, "environment"), s.environment) for side, s in compare.settings]
    for place, variables in places if workload.launcher == "torch" else ():
        for name in variables:
            if name in _AT_START:
                yield Finding(
                    (*place, name),
                    "is read when a process starts, and ranks of torch are forked from one that runs; write it in the "
                    "site's environment, or run a program of yours (workload: command)",
                    variables[name],
                )
        threads = variables.get("OMP_NUM_THREADS", "1")
        if not (threads.isdecimal() and 1 <= int(threads) <= 4096):
            yield Finding(
                (*place, "OMP_NUM_THREADS"),
                "is how many threads a rank of torch computes with, allowed: 1 to 4096; change it",
                threads,
            )


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
    """Findings about the number of cases at most, which is found without writing them out."""
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
    groups = list(groups)
    yield from _neighbours(groups)
    for index, group in groups:
        if group.partition is not None and group.partition not in site.partitions:
            yield _no_such_partition(index, group.partition, site)
            continue
        there = site.on(group.partition or "")
        here = (*_group_on_site(group, there), *_slice_findings(group, there, registry))
        for finding in (*here, *_pair_doubts(group)):
            yield Finding(("groups", index, *finding.loc), finding.text, finding.value, finding.warning)


def _neighbours(groups: Sequence[tuple[int, Group]]) -> Iterator[Finding]:
    """Of faults that reach every job of the cluster: which other groups may be running then."""
    for index, group in groups:
        apart = {group.name, *group.after, *group.needs}
        beside = [
            g.name
            for _, g in groups
            if g.role == group.role and g.name not in apart and group.name not in (*g.after, *g.needs)
        ]  # groups of another role come before or after
        for number, fault in enumerate(group.faults):
            if beside and fault_model.KINDS[fault.kind].hits == "controller":
                more = f" and {len(beside) - 3} more" if len(beside) > 3 else ""
                yield Finding(
                    ("groups", index, "faults", number, "kind"),
                    f"reaches every job of the cluster, those of {', '.join(beside[:3])}{more} too, which may run "
                    f"beside it; where that matters write after: [{', '.join(beside[:3])}{', …' if more else ''}]",
                    fault.kind,
                    warning=True,
                )


def _no_such_partition(index: int, name: str, site: Site) -> Finding:
    names = sorted(site.partitions)
    otherwise = "choose one" if names else "remove it, or add `partitions` to the site file"
    return Finding(
        ("groups", index, "partition"),
        f'is none of the partitions of site "{site.name}", allowed: {", ".join(names) or "none"}; '
        f"{did_you_mean(name, names, otherwise)}",
        name,
    )


def _pair_doubts(group: Group) -> Iterator[Finding]:
    """Of a comparison, what may be meant and mostly is not."""
    compare = group.compare
    if compare is None:
        return
    if compare.a == compare.b:
        yield Finding(
            ("compare",),
            "has the same setting twice, which shows no more than how much two alike differ; change one unless "
            "this is meant",
            warning=True,
        )
    if group.most_repeats < FOR_AN_INTERVAL:
        yield Finding(
            ("repeats",),
            f"are too few for a verdict: below {FOR_AN_INTERVAL} pairs there is no interval; raise them",
            group.most_repeats,
            warning=True,
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
    largest = max(group.node_counts)
    if largest <= site.limits.max_nodes < largest + group.recovery.spares:
        yield Finding(
            ("recovery", "spares"),
            f"and {largest} nodes to compute on are more than the {site.limits.max_nodes} that {where} allows; "
            "lower it",
            group.recovery.spares,
        )
    if group.time_limit_min + JOB_MARGIN_MIN > site.limits.max_time_min:
        yield Finding(
            ("time_limit_min",),
            f"but {where} allows jobs of at most {site.limits.max_time_min} minutes, {JOB_MARGIN_MIN} of "
            "which the harness needs itself; lower it or choose another site",
            group.time_limit_min,
        )
    elif group.compare is not None and 2 * group.time_limit_min + JOB_MARGIN_MIN > site.limits.max_time_min:
        yield Finding(
            ("time_limit_min",),
            f"but {where} allows jobs of at most {site.limits.max_time_min} minutes, {JOB_MARGIN_MIN} of which the "
            "harness needs itself, and the two cases of a pair share a job; lower it or choose another site",
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
    yield from fault_rules.site_findings(group, site, where)
