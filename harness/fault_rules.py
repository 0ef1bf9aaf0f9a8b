"""What is wrong with the faults and the recovery of a group: findings about a valid group, and about it on a site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from harness.fault_means import nearest, why_not
from harness.model import fault as model
from harness.model.campaign import COMMAND, Group
from harness.model.campaign_faults import FaultSpec
from harness.model.case import IN_PLACE
from harness.model.command import OWN_FAULTS
from harness.model.fields import NOTHING, Finding, did_you_mean
from harness.model.site import Site
from harness.param_rules import no_parameter, wrong_type


class Workload(Protocol):
    """What these rules need to know of a workload."""

    @property
    def restartable(self) -> bool:
        """Whether its state can be saved and restored."""

    @property
    def launcher(self) -> str:
        """How its ranks are started: "torch", "mpi", ..."""

    @property
    def controls(self) -> tuple[str, ...]:
        """Negative controls that it can do."""

    @property
    def reshapes(self) -> bool:
        """Whether its state can be restored by another number of ranks, with the same answer."""


def group_findings(group: Group, workload: Workload, steps: int, resumes: bool) -> Iterator[Finding]:
    """Findings about a group.

    Args:
        group: valid in itself.
        workload: its workload.
        steps: fewest steps of any of its cases.
        resumes: whether its cases go on where they were lost.
    """
    yield from _recovery_findings(group, workload, resumes)
    yield from _restore_findings(group)
    recovered = [f for f in group.faults if f.expect == model.RECOVERED]
    for index, fault in enumerate(group.faults):
        for loc, words, value in _fault_findings(fault, group, workload, steps, resumes):
            yield Finding(("faults", index, *loc), words, value)
    strikes_expected = sum(f.count for f in recovered)
    if group.recovery.policy != "none" and strikes_expected > group.recovery.restarts:
        yield Finding(
            ("recovery", "max_restarts"),
            f"but {strikes_expected} faults are expected to be recovered from; raise it",
            group.recovery.restarts,
        )
    yield from _twin_findings(group, workload)
    if group.twin and group.faults and all(f.expect == model.FAILED for f in group.faults):
        yield Finding(("twin",), "but no fault is expected to be recovered from; remove it", group.twin)


def _twin_findings(group: Group, workload: Workload) -> Iterator[Finding]:
    if group.twin and group.command is None and not workload.restartable:
        yield Finding(
            ("twin",),
            f"but {group.workload} cannot resume, so its answer is no twin's; remove it",
            group.twin,
        )
    if group.twin and group.command is not None and not group.command.comparable:
        yield Finding(
            ("twin",),
            "but nothing of the program can be compared with its twin's; add command: {answers: {files: [...]}} or "
            "{answers: {metrics: [...]}}, or cooperates: true where it saves and restores by harness.program",
            group.twin,
        )
    if group.twin and group.command is not None and not group.faults and group.recovery.policy == "none":
        yield Finding(
            ("twin",), "means nothing without faults and without recovery; remove it or add one", group.twin
        )


def _recovery_findings(group: Group, workload: Workload, resumes: bool) -> Iterator[Finding]:
    policy = group.recovery.policy
    if policy != "none" and not resumes:
        instead = (
            "say that it can (command.restartable)"
            if group.workload == COMMAND
            else "choose another workload"
        )
        yield Finding(
            ("recovery", "policy"),
            f"but {group.workload} cannot resume from a saved state; write none or {instead}",
            policy,
        )
    if policy == "warm-restart" and workload.launcher != "torch":
        yield Finding(
            ("recovery", "policy"),
            f"forks ranks from processes that have imported torch, and {group.workload} is no torch workload; "
            "write new-step",
            policy,
        )
    if group.recovery.shrink and not workload.reshapes:
        yield Finding(
            ("recovery", "shrink"),
            f"but the answer of {group.workload} depends on its number of ranks; remove it and give spares",
            True,
        )
    if group.checkpoint is not None and group.checkpoint.engine != "own" and workload.launcher != "torch":
        yield Finding(
            ("checkpoint", "engine"),
            f"is torch's, and {group.workload} saves in its own way; remove it",
            group.checkpoint.engine,
        )


def _restore_findings(group: Group) -> Iterator[Finding]:
    """Negative controls need a restart to strike in."""
    if any(f.expect == model.RECOVERED for f in group.faults):
        return
    for index, fault in enumerate(group.faults):
        if fault.expect == model.CAUGHT:
            yield Finding(
                ("faults", index),
                "strikes when a rank has restored its state, and nothing here leads to a restart; add a fault with "
                "expect: recovered, such as rank.kill",
            )
            return


_Local = tuple[tuple[str | int, ...], str, object]


def _fault_findings(
    fault: FaultSpec, group: Group, workload: Workload, steps: int, resumes: bool
) -> Iterator[_Local]:
    smallest = min(group.node_counts)
    ranks = smallest * group.ranks_per_node
    if group.command is not None and not group.places("steps") and (fault.at.step or fault.at.steps):
        name = "step" if fault.at.step else "steps"
        yield (
            ("at", name),
            "but the group does not say how many steps its program has; add steps: N, as many as the program says by "
            "command.progress or by harness.program's steps",
            fault.at.given[name],
        )
        return
    for name, step in (("step", fault.at.step), ("steps", fault.at.steps[1] if fault.at.steps else None)):
        if step is not None and step >= steps:
            yield ("at", name), f"but a case has {steps} steps, the last of them {steps - 1}; lower it", step
    nodes = fault.target.nodes or (() if fault.target.node is None else (fault.target.node,))
    if nodes and max(nodes) >= smallest:
        yield (
            ("target", "node" if fault.target.node is not None else "nodes"),
            f"but the smallest case has {smallest} node{'s' * (smallest > 1)}, allowed: 0 to {smallest - 1}; lower it",
            max(nodes),
        )
    if fault.target.rank is not None and fault.target.rank >= ranks:
        yield (
            ("target", "rank"),
            f"but the smallest case has {ranks} rank{'s' * (ranks > 1)}, allowed: 0 to {ranks - 1}; lower it",
            fault.target.rank,
        )
    what = fault.kind.removeprefix("control.")
    own = OWN_FAULTS if group.command is not None and group.command.cooperates else ()
    if what != fault.kind and what not in workload.controls and fault.kind not in own:
        controls = [f"control.{name}" for name in workload.controls]
        known = ", ".join(controls or [k for k in own if k.startswith("control.")]) or "none"
        yield ("kind",), f"but {group.workload} has no such state, allowed: {known}; change it", fault.kind
    kind = model.KINDS[fault.kind]
    if kind.where == model.RANK and own and fault.kind not in own and what == fault.kind:
        yield (
            ("kind",),
            f"is of the harness's own workloads, allowed of a program: {', '.join(own)}; change it",
            fault.kind,
        )
    elif kind.where == model.RANK and not own and not kind.signal and group.command is not None:
        yield (
            ("kind",),
            "strikes at a moment of the harness's own loop, which a program of yours does not have; take one that is "
            "a signal (rank.kill, rank.terminate, rank.abort, rank.segfault, rank.freeze, rank.pause), or let the "
            "program count its steps by harness.program and say command: {cooperates: true}",
            fault.kind,
        )
    yield from _place_findings(fault, group)
    yield from _param_findings(fault)
    yield from _detection_findings(fault, group)
    if fault.expect == model.RECOVERED and (words := _for_good(fault.kind, group)):
        yield ("expect",), words, fault.expect
    elif fault.expect == model.RECOVERED and resumes:
        lacks = []
        if group.recovery.policy == "none":
            lacks.append("recovery: {policy: requeue}")
        if group.checkpoint is None and group.workload != COMMAND:
            lacks.append("checkpoint: {every_steps: ...}")
        if lacks:
            yield (
                ("expect",),
                f"but the group cannot recover without {' and '.join(lacks)}; add that, or expect failed",
                fault.expect,
            )
    elif fault.expect == model.RECOVERED:
        yield (
            ("expect",),
            f"but {group.workload} cannot resume from a saved state; expect failed or choose another workload",
            fault.expect,
        )


def _place_findings(fault: FaultSpec, group: Group) -> Iterator[_Local]:
    """A target or a moment that the group does not have."""
    if fault.target.random == "other_node" and min(group.node_counts) < 2:
        yield (
            ("target", "random"),
            "but the smallest case has 1 node, which is the batch host; write node, or raise the number of nodes",
            "other_node",
        )
    in_loop = fault.at.event is not None and fault.at.event != model.RECOVERY
    known = (*model.MOMENTS, model.RECOVERY)
    if group.command is not None:
        yield from _program_findings(fault, in_loop, group.command.cooperates)
    elif in_loop and fault.at.event not in known:
        yield (
            ("at", "event"),
            f"is no moment of {group.workload}, allowed: {', '.join(known)}; places with names are for programs",
            fault.at.event,
        )
    elif group.checkpoint is None and (in_loop or model.KINDS[fault.kind].hits == "checkpoint"):
        yield ("at",), "but the group takes no checkpoint; add checkpoint: {every_steps: ...}", NOTHING


def _program_findings(fault: FaultSpec, in_loop: bool, cooperates: bool) -> Iterator[_Local]:
    """What a user's program has only where it lets the harness know."""
    if cooperates and fault.params.get("where") == "collective":
        yield ("params", "where"), "is not known of a program; write step", "collective"
    if cooperates:
        return
    if in_loop:
        yield (
            ("at", "event"),
            "is a moment that a program must tell; write step, after_s or mtbf_s, or let the program save by "
            "harness.program, or name the place by its faults.at, and say command: {cooperates: true}",
            fault.at.event,
        )
    elif model.KINDS[fault.kind].hits == "checkpoint":
        yield (
            ("kind",),
            "damages checkpoints, and a program saves in its own way; take another kind, or let it save by "
            "harness.program and say command: {cooperates: true}",
            fault.kind,
        )


def _param_findings(fault: FaultSpec) -> Iterator[_Local]:
    known = dict(model.KINDS[fault.kind].params)
    known |= model.KINDS[fault.instead].params if fault.instead is not None else {}
    for name, value in fault.params.items():
        default = known.get(name)
        if default is None:
            yield ("params", name), no_parameter(name, fault.kind, known), value
        elif isinstance(default, tuple) and value not in default:
            hint = did_you_mean(value, default, "choose one")
            yield ("params", name), f"allowed: {', '.join(default)}; {hint}", value
        elif not isinstance(default, tuple) and (problem := wrong_type(value, default)):
            yield ("params", name), problem, value


def _detection_findings(fault: FaultSpec, group: Group) -> Iterator[_Local]:
    """A decoy that would be taken for a fault, and a freeze that would be taken for a decoy."""
    detection = group.detection
    windows = {
        "rank.pause": ("frozen_s", detection.frozen_s),
        "rank.slow_step": ("step_s", detection.step_s),
        "storage.slow": ("checkpoint_s", detection.checkpoint_s),
    }
    if fault.for_s is None:
        return
    if fault.kind in windows:
        name, window_s = windows[fault.kind]
        if fault.for_s >= window_s:
            yield (
                ("for_s",),
                f"is no decoy any more: detection.{name} = {window_s:g} would call it a fault; lower it or raise "
                f"{name}",
                fault.for_s,
            )
    elif (
        fault.kind == "rank.freeze" and fault.expect == model.RECOVERED and fault.for_s <= detection.frozen_s
    ):
        yield (
            ("for_s",),
            f"is a pause that detection.frozen_s = {detection.frozen_s:g} tolerates; raise it, or leave it out: then "
            "the rank stays frozen",
            fault.for_s,
        )


def _for_good(kind: str, group: Group) -> str:
    """Why nothing can follow such a fault under the group's recovery; "" where something can."""
    if kind == "job.cancel":
        return "but scancel ends the job for good; expect failed"
    if model.KINDS[kind].hits == "job" and group.recovery.policy != "requeue":
        return (
            "but Slurm takes the allocation away, so only a job that it starts again recovers; write recovery: "
            "{policy: requeue}, or expect failed"
        )
    return ""


def _instead(fault: FaultSpec, site: Site) -> str:
    """What to write for a fault that the site does not allow."""
    other = nearest(fault.kind, site)
    if other and model.KINDS[other].hits in (model.KINDS[fault.kind].hits, "node", "job"):
        return f"add instead: {other}"
    return "remove it"


def site_findings(group: Group, site: Site, where: str) -> Iterator[Finding]:
    """Findings about a valid group on a site: what the site does not allow."""
    if group.recovery.policy in IN_PLACE and site.launcher == "local" and group.recovery.spares:
        yield Finding(
            ("recovery", "spares"),
            f"but {where} has one machine, and no node to spare; remove it",
            group.recovery.spares,
        )
    for index, fault in enumerate(group.faults):
        problem = why_not(fault.kind, site)
        if not problem:
            continue
        if fault.instead is None:
            yield Finding(
                ("faults", index, "kind"),
                f"but {problem}; choose another site, or {_instead(fault, site)} (`harness faults` lists what it "
                "allows)",
                fault.kind,
            )
        elif other := why_not(fault.instead, site):
            yield Finding(
                ("faults", index, "instead"),
                f"but {other}; choose another (`harness faults` lists what it allows)",
                fault.instead,
            )
