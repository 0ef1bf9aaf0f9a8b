"""What must hold between a campaign, the registry of workloads and a site. Pure: values in, findings out.

What one file says of itself is checked by the models. A finding's place is within the group, or within
the campaign for ``site_findings``; ``harness.config`` turns findings into messages with file and line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from harness.model.campaign import KILL_PROCESSES, POWER_OFF, Campaign, Group, did_you_mean
from harness.model.fields import Finding
from harness.model.site import Site

JOB_MARGIN_MIN = (
    2  # starting the agents, and the warning signal, which Slurm sends up to two minutes before the end
)
MAX_CASES = 10_000


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


Registry = Mapping[str, Workload]


def can_power_off(site: Site) -> bool:
    """Whether a node's power may be switched on this site."""
    return site.power is not None and site.kind in ("emulated", "staging")


def wants_twin(group: Group, workload: Workload) -> bool:
    """Whether the group's faulted cases are compared with undisturbed runs."""
    if group.twin is not None:
        return group.twin
    return workload.restartable and any(f.expect == "recovered" for f in group.faults)


def workload_findings(workload: object, params: object, registry: Registry) -> Iterator[Finding]:
    """Findings about a group's workload and parameters, which may still be anything that YAML can say."""
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
    if not isinstance(params, Mapping):
        return
    defaults = registry[workload].defaults
    for name, value in params.items():
        if name not in defaults:
            names = sorted(defaults)
            yield Finding(
                ("params", str(name)),
                f"is no parameter of {workload}, allowed: {', '.join(names)}; "
                f"{did_you_mean(name, names, 'remove it')}",
                value,
            )
        elif problem := _wrong_type(value, defaults[name]):
            yield Finding(("params", str(name)), problem, value)


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
    steps = workload.steps if group.steps is None else group.steps
    warmup = workload.warmup_steps if group.warmup_steps is None else group.warmup_steps
    if warmup >= steps:
        if group.warmup_steps is not None:
            yield Finding(("warmup_steps",), f"leaves nothing of {steps} steps to judge; lower it", warmup)
        else:
            yield Finding(
                ("steps",),
                f"is not above the {warmup} warm-up steps of {group.workload}, so nothing is left to judge; "
                "raise it or set warmup_steps",
                steps,
            )
    if group.checkpoint is not None:
        if not workload.restartable:
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
    if group.recovery.policy == "requeue" and not workload.restartable:
        yield Finding(
            ("recovery", "policy"),
            f"but {group.workload} cannot resume from a saved state; write none or choose another workload",
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
        if fault.expect == "recovered" and workload.restartable:
            lacks = []
            if group.recovery.policy == "none":
                lacks.append("recovery: {policy: requeue}")
            if group.checkpoint is None:
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
    whole = sorted(n for n, v in workload.defaults.items() if isinstance(v, int) and not isinstance(v, bool))
    if scaling.grow not in whole:
        yield Finding(
            ("scaling", "grow"),
            f"is no whole-number parameter of {group.workload}, allowed: {', '.join(whole) or 'none'}; "
            f"{did_you_mean(scaling.grow, whole, 'choose one')}",
            scaling.grow,
        )
        return
    value = group.params.get(scaling.grow, workload.defaults[scaling.grow])
    if not isinstance(value, int):
        return  # its type is a finding of its own
    for index, nodes in enumerate(scaling.nodes):
        if value * nodes % scaling.base_nodes:
            yield Finding(
                ("scaling", "nodes", index),
                f"makes {scaling.grow} = {value} x {nodes}/{scaling.base_nodes}, which is no whole number; "
                f"change it or {scaling.grow}",
                nodes,
            )


def site_findings(campaign: Campaign, site: Site, registry: Registry) -> Iterator[Finding]:
    """Findings about a valid campaign on a site."""
    cases = sum(len(g.node_counts) * g.repeats for g in campaign.groups)
    if cases > MAX_CASES:
        yield Finding(
            ("groups",), f"make {cases} cases, allowed: {MAX_CASES}; lower repeats or split the campaign"
        )
    for index, group in enumerate(campaign.groups):
        for finding in _group_on_site(group, site):
            yield Finding(("groups", index, *finding.loc), finding.text, finding.value, finding.warning)


def _group_on_site(group: Group, site: Site) -> Iterator[Finding]:
    where = f'site "{site.name}"'
    for index, nodes in enumerate(group.node_counts):
        if nodes > site.limits.max_nodes:
            yield Finding(
                ("nodes",) if group.scaling is None else ("scaling", "nodes", index),
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
    if group.ranks_per_node > site.node.cpus:
        yield Finding(
            ("ranks_per_node",),
            f"but a node of {where} has {site.node.cpus} processors: oversubscribed, so times mean little; "
            "lower it unless this is meant",
            group.ranks_per_node,
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
