"""Campaign: the question that somebody asks of a cluster, as written in a campaign file.

Frozen, and holds what the person wrote: what they left out stays None and is filled in by ``plan`` from
the workload's own defaults. It refuses facts about a cluster. Rules here need nothing but the campaign;
those that need the registry of workloads or a site are in ``harness.rules``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from harness.model import axes as sweep
from harness.model import fault as fault_model
from harness.model import order
from harness.model.command import Command
from harness.model.command import findings as command_findings
from harness.model.fields import Finding, Frozen, Line, Loc, Number, Slug, Text, did_you_mean, refuse_if_any

COMMAND = "command"  # the workload that is a program of the user's own


def _known_kind(value: str) -> str:
    if value not in fault_model.KINDS:
        raise PydanticCustomError(
            "text",
            "is no kind of fault, allowed: {kinds}; {hint}",
            {
                "kinds": ", ".join(fault_model.KINDS),
                "hint": did_you_mean(value, fault_model.KINDS, "`harness faults` explains each"),
            },
        )
    return value


FaultKind = Annotated[
    str, AfterValidator(_known_kind), WithJsonSchema({"type": "string", "enum": list(fault_model.KINDS)})
]
Statistic = Literal["median", "mean", "min", "max", "p95"]

Count = Annotated[int, Field(ge=1, le=100_000)]
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]
Step = Annotated[int, Field(ge=0, le=1_000_000_000)]
Minutes = Annotated[int, Field(ge=1, le=43_200)]  # up to 30 days
Seed = Annotated[
    int, Field(ge=0, le=2**31 - 1)
]  # with a repeat added it still fits 32 bits, which numpy wants


def _param(value: Any) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    for v in values:
        if not isinstance(v, str | int | float) or (isinstance(v, float) and not math.isfinite(v)):
            raise PydanticCustomError(
                "text", "must be a number, a text, true, false, or a list of these; change it"
            )
    if not values:
        raise PydanticCustomError("text", "is an empty list; give a value or leave the key out")
    return value


_SCALAR_SCHEMA = [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]
ParamValue = Annotated[
    Any,
    BeforeValidator(_param),
    WithJsonSchema({"anyOf": [*_SCALAR_SCHEMA, {"type": "array", "items": {"anyOf": _SCALAR_SCHEMA}}]}),
]


class Scaling(Frozen):
    """One case for each number of nodes, instead of one number."""

    mode: Literal["strong", "weak"]
    """strong: the same work on more nodes. weak: work that grows with the nodes."""
    nodes: Annotated[tuple[Count, ...], Field(min_length=1, max_length=1000)]
    """Numbers of nodes, each of them once."""
    base: Count | None = None
    """Number of nodes for which the parameters are meant; the smallest of `nodes` unless told otherwise."""
    grow: Text | None = None
    """weak only: the parameter that is multiplied by nodes/base."""

    @model_validator(mode="after")
    def _rules(self) -> Scaling:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        for index, count in enumerate(self.nodes):
            if count in self.nodes[:index]:
                yield Finding(("nodes", index), "is in the list twice; keep one of the two", count)
        if self.mode == "weak" and self.grow is None:
            yield Finding(
                ("grow",), "is missing: weak scaling must know which parameter grows with the nodes; add it"
            )
        if self.mode == "strong" and self.grow is not None:
            yield Finding(
                ("grow",), "only weak scaling grows a parameter; remove it or write mode: weak", self.grow
            )

    @property
    def base_nodes(self) -> int:
        """``base``, or the smallest number of nodes."""
        return self.base if self.base is not None else min(self.nodes)


class Checkpoint(Frozen):
    """When the state is saved."""

    every_steps: Steps
    """A checkpoint is taken after every so many steps."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    """How many complete checkpoints are kept; the older ones are removed."""
    engine: Literal["own", "torch.save", "dcp"] = "own"
    """How torch writes it: own and torch.save, a file by each rank; dcp, torch.distributed.checkpoint. Digests, commit
    and verification are the harness's with each. MPI workloads have their own."""
    memory_every_steps: Steps | None = None
    """A checkpoint in the memory of each node after every so many steps: cheap, and gone with its node."""


class Recovery(Frozen):
    """What happens when a node or a rank is lost."""

    policy: Literal["none", "requeue", "new-step", "warm-restart"] = "none"
    """none: the case has failed. requeue: Slurm starts the job again. new-step: all ranks start again by a new step in
    the same allocation. warm-restart: they are forked again from processes that have imported torch; needs no
    controller. Each resumes from the newest checkpoint that verifies."""
    spares: Annotated[int, Field(ge=0, le=1000)] = 0
    """Nodes that the job has beyond those it computes on, to replace lost ones; with new-step and warm-restart."""
    shrink: bool = False
    """When no spare is left, it goes on with fewer ranks; where the answer does not depend on their number."""
    max_restarts: Annotated[int, Field(ge=1, le=100)] | None = None
    """Restarts allowed before the case has failed; 3 unless told otherwise."""

    @model_validator(mode="after")
    def _rules(self) -> Recovery:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.policy == "none" and self.max_restarts is not None:
            yield Finding(
                ("max_restarts",),
                "means nothing with policy: none; remove it or write policy: requeue",
                self.max_restarts,
            )
        for name in ("spares", "shrink"):
            if self.policy in ("none", "requeue") and getattr(self, name):
                yield Finding(
                    (name,),
                    f"means nothing with policy: {self.policy}, where no attempt follows in the same allocation; "
                    "remove it or write policy: new-step or warm-restart",
                    getattr(self, name),
                )

    @property
    def restarts(self) -> int:
        """Restarts allowed."""
        return 0 if self.policy == "none" else 3 if self.max_restarts is None else self.max_restarts


class Detection(Frozen):
    """When something counts as wrong. Windows of steps are learned from the run: median + 8 MAD of its own steps."""

    lease_s: Annotated[float, Field(ge=0.5, le=600)] = 5.0
    """A node whose agent is silent for so long is lost; an agent that hears nothing for so long ends its ranks."""
    frozen_s: Annotated[float, Field(ge=0.05, le=600)] = 1.0
    """A rank that the kernel calls stopped for so long is frozen; shorter pauses are tolerated."""
    step_s: Annotated[float, Field(ge=0.1, le=86_400)] = 10.0
    """The window of a step is never shorter than this."""
    checkpoint_s: Annotated[float, Field(ge=0.1, le=86_400)] = 60.0
    """Likewise for saving a checkpoint."""
    start_s: Annotated[float, Field(ge=1, le=86_400)] = 120.0
    """How long ranks may take from their start to their first step, loading included."""


class Target(Frozen):
    """What a fault hits: one of these. A fault of the job, of its checkpoints or of the controller needs none."""

    rank: Step | None = None
    """A rank of the world."""
    node: Step | None = None
    """Index of the node in the job's allocation, from 0; node 0 is the one that runs the batch script."""
    nodes: Annotated[tuple[Step, ...], Field(min_length=1, max_length=1000)] | None = None
    """Several nodes, by index."""
    role: Literal["batch_host", "checkpoint_writer"] | None = None
    """batch_host: the node of the batch script. checkpoint_writer: the rank that commits checkpoints, or its node."""
    random: Literal["rank", "node", "other_node"] | None = None
    """One that the seed chooses; other_node: not the batch host."""

    @property
    def given(self) -> dict[str, Any]:
        """What is said."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


class Moment(Frozen):
    """When a fault is injected: one of step, steps, after_s, mtbf_s, event."""

    step: Step | None = None
    """As soon as every rank has begun this step; a rank's own fault exactly when that rank begins it."""
    steps: Annotated[tuple[Step, ...], Field(min_length=2, max_length=2)] | None = None
    """A step between these two, which the seed chooses."""
    after_s: Annotated[float, Field(ge=0, le=10_000_000)] | None = None
    """Seconds after the case's first step."""
    mtbf_s: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """A Poisson process with this mean time between faults, from the case's first step; `count` says how many."""
    event: (
        Literal[
            "restore.begin",
            "checkpoint.begin",
            "checkpoint.written",
            "checkpoint.committed",
            "recovery.begin",
        ]
        | None
    ) = None
    """A moment of the run. checkpoint.written: files are written, nothing is committed."""
    time: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """event only: at its n-th time."""

    @property
    def given(self) -> dict[str, Any]:
        """Which trigger is given."""
        return {k: v for k, v in self.model_dump().items() if v is not None and k != "time"}


class FaultSpec(Frozen):
    """One fault, declared before the run together with the outcome that is expected of it."""

    kind: FaultKind
    """What is done; `harness faults` lists all, and which of them a site allows."""
    instead: FaultKind | None = None
    """What to do on a site that lacks the means for `kind`; without it such a site refuses the campaign."""
    target: Target = Target()
    """What it hits."""
    at: Moment
    """When it is injected."""
    for_s: Annotated[float, Field(gt=0, le=600)] | None = None
    """After so many seconds it ends by itself; for kinds that last."""
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often: with `step` and `event` again after each restart, with `steps` and `mtbf_s` at other moments."""
    expect: Literal["recovered", "failed", "unharmed", "caught"]
    """recovered: the case must finish with the right answer. failed: it must end badly, for the reason in `because`.
    unharmed: nothing may happen, no detection, no restart. caught: a negative control, which the proof must notice."""
    because: Line = ""
    """failed only: a text that the reason must hold."""
    params: dict[Text, ParamValue] = Field(default_factory=dict)
    """What the kind can be told."""

    @model_validator(mode="after")
    def _rules(self) -> FaultSpec:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        kind = fault_model.KINDS[self.kind]
        yield from self._target_findings(kind)
        yield from self._instead_findings(kind)
        yield from self._moment_findings(kind)
        yield from self._length_findings(kind)
        yield from self._expect_findings(kind)

    def _instead_findings(self, kind: fault_model.Kind) -> Iterator[Finding]:
        if self.instead is None:
            return
        if self.instead == self.kind:
            yield Finding(("instead",), "is the same as kind; name another fault or remove it", self.instead)
            return
        if kind.needs == fault_model.OWN:
            yield Finding(
                ("instead",), f"is never used, since every site allows {self.kind}; remove it", self.instead
            )
            return
        other, given = fault_model.KINDS[self.instead], self.target.given
        fits = all(_fits(name, value, other) for name, value in given.items())
        if other.hits in _AIMED and not (given and fits):
            said = " and ".join(given) or "nothing"
            yield Finding(
                ("instead",),
                f"hits {_AIMED[other.hits]}, and target says {said}; take a kind that hits the same",
                self.instead,
            )

    def _moment_findings(self, kind: fault_model.Kind) -> Iterator[Finding]:
        given = self.at.given
        if len(given) != 1:
            said = " and ".join(given) or "nothing"
            yield Finding(
                ("at",), f"says {said}, allowed: one of step, steps, after_s, mtbf_s, event; choose one"
            )
        if self.at.time != 1 and self.at.event is None:
            yield Finding(("at", "time"), "means nothing without event; remove it", self.at.time)
        if self.at.steps is not None and self.at.steps[0] > self.at.steps[1]:
            yield Finding(("at", "steps"), "begins behind its end; exchange the two", list(self.at.steps))
        if kind.where == fault_model.RANK and self.at.event == fault_model.RECOVERY:
            yield Finding(("at", "event"), "is a moment when no rank is there; take another", self.at.event)
        if self.kind.startswith("control.") and self.at.event != "restore.begin":
            yield Finding(
                ("at",), "says no restore, at which negative controls strike; write event: restore.begin"
            )
        if self.kind == "storage.slow" and not (self.at.event or "").startswith("checkpoint"):
            yield Finding(
                ("at",), "says no checkpoint, which is what it slows; write event: checkpoint.begin"
            )
        if self.count > 1 and self.at.after_s is not None:
            yield Finding(
                ("count",),
                "means nothing with after_s, at which all would strike at once; remove it or write mtbf_s",
                self.count,
            )
        if self.count > 1 and kind.harmless and (self.at.step is not None or self.at.event is not None):
            yield Finding(
                ("count",),
                f"but {self.kind} leads to no restart, so its moment does not come again; write steps or mtbf_s",
                self.count,
            )

    def _length_findings(self, kind: fault_model.Kind) -> Iterator[Finding]:
        kinds = [(self.kind, kind)]
        if self.instead is not None:
            kinds.append((self.instead, fault_model.KINDS[self.instead]))
        if self.for_s is not None and not any(k.lasts for _, k in kinds):
            yield Finding(
                ("for_s",), f"means nothing for {self.kind}, which is over at once; remove it", self.for_s
            )
        for name, one in kinds:
            if self.for_s is None and one.lasts and name != "rank.freeze":
                yield Finding(
                    ("for_s",), f"is missing: {name} must end by itself; say after how many seconds"
                )
                return

    def _expect_findings(self, kind: fault_model.Kind) -> Iterator[Finding]:
        if self.because and self.expect != fault_model.FAILED:
            yield Finding(("because",), f"means nothing with expect: {self.expect}; remove it", self.because)
        if self.kind in fault_model.DEADLY and self.expect == fault_model.UNHARMED:
            yield Finding(
                ("expect",),
                f"cannot be unharmed: no job rides {self.kind} out; write recovered or failed",
                self.expect,
            )
        if kind.harmless and self.expect != fault_model.UNHARMED:
            yield Finding(("expect",), f"must be unharmed for the decoy {self.kind}; change it", self.expect)
        if self.kind.startswith("control.") != (self.expect == fault_model.CAUGHT):
            yield Finding(
                ("expect",),
                "caught is for negative controls (control.*), and they for it; change one of the two",
                self.expect,
            )

    def _target_findings(self, kind: fault_model.Kind) -> Iterator[Finding]:
        given = self.target.given
        if kind.hits not in _AIMED:
            if given:
                yield Finding(
                    ("target",),
                    f"means nothing for {self.kind}, which hits the {kind.hits}; remove it",
                    given,
                )
            return
        if len(given) != 1:
            said = " and ".join(given) or "nothing"
            yield Finding(
                ("target",), f"says {said}, allowed: one of rank, node, nodes, role, random; choose one"
            )
            return
        name, value = next(iter(given.items()))
        if not _fits(name, value, kind):
            yield Finding(
                ("target", name),
                f"does not fit {self.kind}, which hits {_AIMED[kind.hits]}; change it",
                value,
            )


_AIMED = {"rank": "one rank", "node": "one node", "nodes": "nodes"}  # what a target is said for


def _fits(name: str, value: object, kind: fault_model.Kind) -> bool:
    """Whether a kind that is aimed can hit such a target."""
    return {
        "rank": kind.hits in ("rank", "node"),  # a node by its rank
        "node": kind.hits != "rank",
        "nodes": kind.hits == "nodes",
        "role": kind.hits != "rank" or value == "checkpoint_writer",
        "random": kind.hits != "rank" or value == "rank",
    }[name]


class GateSpec(Frozen):
    """A limit that the samples of every case of the group must keep, warm-up left out."""

    metric: Text
    """Name of a metric, unit included: one of harness/model/metrics.py, or one that the group's command defines."""
    statistic: Statistic
    """What is compared with the limits."""
    min: Number | None = None
    """Smallest value that passes, in the metric's unit."""
    max: Number | None = None
    """Largest value that passes, in the metric's unit."""
    where: dict[Text, Number] = Field(default_factory=dict)
    """Only samples whose columns have these values."""

    @model_validator(mode="after")
    def _rules(self) -> GateSpec:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.min is None and self.max is None:
            yield Finding((), "has neither min nor max, so it would pass everything; add one or both")
        elif self.min is not None and self.max is not None and self.min > self.max:
            yield Finding(
                ("min",), f"is above max = {self.max}, so nothing can pass; exchange them", self.min
            )


Axis = Annotated[
    dict[Text, Annotated[tuple[ParamValue, ...], Field(min_length=1, max_length=1000)]], Field(min_length=1)
]
"""Values of one parameter; or of several, which then change together (zipped)."""


class Group(Frozen):
    """Cases of one workload: repeats, over numbers of nodes and over axes of parameters."""

    name: Slug
    """Short name, unique in the campaign."""
    workload: Text
    """Name of a workload of the harness."""
    nodes: Count | None = None
    """Number of nodes; or give `scaling`."""
    scaling: Scaling | None = None
    """Several numbers of nodes; or give `nodes`."""
    axes: Annotated[tuple[Axis, ...], Field(max_length=sweep.MAX_AXES)] = ()
    """Every combination of these is run. An axis names one parameter, or several that change together (then
    each has as many values); nodes, ranks_per_node and steps may be axes as well."""
    partition: Slug | None = None
    """Which of the site's `partitions` it runs in; the site's own values unless told otherwise."""
    role: Literal["measurement", "pre-check", "post-check"] = "measurement"
    """pre-check: all measurements need it. post-check: runs when all else has ended, however that went."""
    after: tuple[Slug, ...] = ()
    """Groups that must have ended before this one is submitted."""
    needs: tuple[Slug, ...] = ()
    """Groups that must have ended and passed before this one is submitted; else it is not run, and says why."""
    ranks_per_node: Annotated[int, Field(ge=1, le=4096)] = 1
    """Ranks (processes of the workload) on each node."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often each case is run; repeat i uses seed + i."""
    seed: Seed | None = None
    """Seed of the first repeat; the campaign's unless told otherwise."""
    steps: Steps | None = None
    """Steps of each case; the workload's default unless told otherwise."""
    warmup_steps: Step | None = None
    """First steps that are recorded but not judged; the workload's default unless told otherwise."""
    params: dict[Text, ParamValue] = Field(default_factory=dict)
    """Parameters of the workload; those left out have its defaults."""
    command: Command | None = None
    """workload `command` only: the program, and what is read from its output."""
    time_limit_min: Minutes = 5
    """Minutes that one case may take, restarts not counted."""
    checkpoint: Checkpoint | None = None
    """When the state is saved; never unless told otherwise."""
    digest_every_steps: Steps | None = None
    """The live state's digest is recorded after every so many steps, as proof; at checkpoints in any case."""
    detection: Detection = Detection()
    """When something counts as wrong."""
    recovery: Recovery = Recovery()
    """What happens when a node or a rank is lost."""
    faults: tuple[FaultSpec, ...] = ()
    """Faults that hit every case of the group."""
    twin: bool | None = None
    """Whether each faulted case is compared with an undisturbed run; yes where it is expected to recover."""
    gates: tuple[GateSpec, ...] = ()
    """Limits that the group's cases must keep."""

    @model_validator(mode="after")
    def _rules(self) -> Group:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.nodes is None and self.scaling is None and not sweep.values(self.axes, "nodes"):
            yield Finding(
                (), "says on how many nodes it runs neither by nodes nor by scaling; add one of them"
            )
        elif self.nodes is not None and self.scaling is not None:
            yield Finding(
                ("nodes",), "and scaling both say on how many nodes it runs; remove one of them", self.nodes
            )
        given = dict.fromkeys(self.params, "params")
        given |= {name: name for name in ("ranks_per_node", "steps") if name in self.model_fields_set}
        if self.nodes is not None or self.scaling is not None:
            given["nodes"] = "nodes" if self.scaling is None else "scaling"
        yield from sweep.findings(self.axes, given)
        if self.workload == COMMAND and self.command is None:
            yield Finding(("command",), "is missing: workload command is a program of yours; say which")
        elif self.workload != COMMAND and self.command is not None:
            yield Finding(
                ("command",),
                f"means nothing with workload {self.workload}; remove it or write workload: command",
            )
        if self.command is not None:
            swept = [n for axis in self.axes for n in axis if n not in sweep.AXIS_FIELDS]
            yield from command_findings(self.command, [*self.params, *swept], self.time_limit_min)
        if self.twin and not self.faults:
            yield Finding(("twin",), "means nothing without faults; remove it or add a fault", self.twin)

    @property
    def node_counts(self) -> tuple[int, ...]:
        """Every number of nodes the group runs on, each once, in the order of the file."""
        return tuple(dict.fromkeys(count for _, count in self.places("nodes")))

    def places(self, name: str) -> list[tuple[Loc, int]]:
        """Every value of nodes, ranks_per_node or steps with its place in the group; none for steps left out."""
        if swept := sweep.values(self.axes, name):
            return swept
        if name == "nodes" and self.scaling is not None:
            return [(("scaling", "nodes", index), count) for index, count in enumerate(self.scaling.nodes)]
        value = getattr(self, name)
        return [((name,), value)] if value is not None else []

    @property
    def wish(self) -> order.Wish:
        """What it says of its order."""
        return order.Wish(self.name, self.role, self.after, self.needs)

    @property
    def case_count(self) -> int:
        """Number of its cases, twins left out, without writing them out."""
        scaled = len(self.scaling.nodes) if self.scaling is not None else 1
        return scaled * sweep.count(self.axes) * self.repeats


class Packing(Frozen):
    """How cases are put into jobs."""

    mode: Literal["sequence", "interleaved", "jobs"] = "sequence"
    """sequence: cases of one shape follow each other in one allocation. interleaved: likewise, one repeat of each
    before the next repeat of any, so that a drift of the machine meets all alike. jobs: a job for each case, as
    arrays."""
    max_cases: Count | None = None
    """Most cases of one job; as many as its time limit holds unless told otherwise."""
    share_nodes: bool = False
    """Cases of fewer nodes run in the allocation of larger ones, on some of its nodes: fewer jobs wait in the queue,
    and nodes are idle meanwhile. Cases with faults never share."""

    @model_validator(mode="after")
    def _rules(self) -> Packing:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.mode == "jobs":
            for name in ("max_cases", "share_nodes"):
                value = getattr(self, name)
                if value:
                    text = "means nothing with mode: jobs, where each case has its own; remove it"
                    yield Finding((name,), text, value)


class CampaignLimits(Frozen):
    """What the campaign may take, whatever the site allows."""

    max_node_hours: Annotated[float, Field(gt=0)] | None = None
    """A plan that could take more is refused."""
    max_jobs_in_queue: Count | None = None
    """Most jobs queued or running at a time, each task of an array counted."""


Retries = Annotated[int, Field(ge=0, le=100)]


class Retry(Frozen):
    """How often a case is submitted again after its job failed, by the class of the failure.

    A case that injects a fault is not: its end is what was asked.
    """

    program: Retries = 0
    """The program ended badly."""
    machine: Retries = 2
    """A node failed, or did not start the job; that node is then avoided."""
    memory: Retries = 0
    """The memory limit."""
    time_limit: Retries = 0
    """The time limit of the job or of the case."""
    preempted: Retries = 5
    """Another job took the nodes."""
    cancelled: Retries = 0
    """Somebody cancelled the job, other than by `harness cancel`."""
    unknown: Retries = 1
    """Nobody can say."""


class Campaign(Frozen):
    """A campaign file."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this format: 1."""
    name: Slug
    """Short name of the campaign; the run folder is called after it."""
    include: tuple[Text, ...] = ()
    """Files with more of a campaign's keys, relative to this one: groups are put behind these, mappings are merged, and
    what stands here wins. Done when a file is read, so a campaign in memory has none."""
    description: Line = ""
    """What the campaign asks, in one line, for the report."""
    seed: Seed
    """Where all randomness comes from: the same seed gives the same data and the same faults."""
    packing: Packing = Packing()
    """How cases are put into jobs."""
    limits: CampaignLimits = CampaignLimits()
    """What the campaign may take, whatever the site allows."""
    retry: Retry = Retry()
    """How often a case is submitted again after its job failed, by the class of the failure."""
    templates: Line = ""
    """Folder of templates that override the site's and the harness's, relative to the file that names it. Templates are
    code."""
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=1000)]
    """What is run."""

    @model_validator(mode="after")
    def _rules(self) -> Campaign:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.include:
            yield Finding(("include",), "needs a file, and this is none; write what it names in its place")
        yield from duplicate_names([g.name for g in self.groups])
        yield from order.findings([g.wish for g in self.groups])

    def waits(self) -> dict[str, order.Wait]:
        """What each group waits for, what roles add included."""
        return order.resolve([g.wish for g in self.groups])


def duplicate_names(names: Iterable[object]) -> Iterator[Finding]:
    """A finding for each group whose name an earlier one has."""
    first: dict[object, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue
        if name in first:
            yield Finding(
                ("groups", index, "name"),
                f"is the name of groups[{first[name]}] too; give each its own",
                name,
            )
        else:
            first[name] = index
