"""Campaign: the question that somebody asks of a cluster, as written in a campaign file.

Frozen, and holds what the person wrote: what they left out stays None and is filled in by ``plan`` from
the workload's own defaults. It refuses facts about a cluster. Rules here need nothing but the campaign;
those that need the registry of workloads or a site are in ``harness.rules``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.model import axes as sweep
from harness.model import order
from harness.model.campaign_design import (
    Compare,
    Percent,
    Repeats,
    RepeatsOrNumber,
    Statistic,
    Variables,
)
from harness.model.campaign_faults import Detection, FaultSpec
from harness.model.command import Command
from harness.model.command import findings as command_findings
from harness.model.design import AB
from harness.model.fields import Finding, Frozen, Line, Loc, Number, Slug, Text, refuse_if_any
from harness.model.scalars import Count, Minutes, ParamValue, Seed, Step, Steps

COMMAND = "command"  # the workload that is a program of the user's own


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


class GateSpec(Frozen):
    """A limit that the samples of every case of the group must keep, warm-up left out.

    The limit is min or max; or a baseline file, or the history of a folder, against which repeats must not be worse.
    """

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
    baseline: Line | None = None
    """Results file, or run folder, that the repeats are compared with; relative to the file that names it."""
    history: Line | None = None
    """Folder of earlier runs that this one is compared with; relative to the file that names it."""
    smallest: Percent | None = None
    """Smallest change against baseline or history that matters, as 5%, the default."""
    smallest_change: Annotated[float, Field(gt=0)] | None = None
    """The same as a number in the metric's own unit."""
    despite: tuple[Literal["hardware", "software", "definition"], ...] = ()
    """What may differ from baseline or history; otherwise a difference makes the gate invalid."""

    @model_validator(mode="after")
    def _rules(self) -> GateSpec:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        limited = self.min is not None or self.max is not None
        kinds = [("baseline", self.baseline), ("history", self.history)]
        named = [name for name, path in kinds if path is not None]
        if limited + len(named) > 1:
            said = " and ".join([*(["min or max"] if limited else []), *named])
            yield Finding(
                (), f"says {said}, allowed: one of min or max, baseline, history; remove the others"
            )
        if not named:
            for name in ("smallest", "smallest_change", "despite"):
                if getattr(self, name):
                    yield Finding(
                        (name,), "means nothing without baseline or history; remove it", getattr(self, name)
                    )
        elif self.smallest is not None and self.smallest_change is not None:
            yield Finding(
                ("smallest_change",), "and smallest say the same; remove one of them", self.smallest_change
            )
        if not limited and not named:
            yield Finding(
                (),
                "has neither min nor max, baseline nor history, so it would pass everything; add one of them",
            )
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
    repeats: RepeatsOrNumber = 1
    """How often each case is run; repeat i uses seed + i. Or a rule: until an interval is narrow enough."""
    compare: Compare | None = None
    """Two settings; each case is run with both, one after the other in one allocation."""
    seed: Seed | None = None
    """Seed of the first repeat; the campaign's unless told otherwise."""
    steps: Steps | None = None
    """Steps of each case; the workload's default unless told otherwise."""
    warmup_steps: Step | None = None
    """First steps that are recorded but not judged; the workload's default unless told otherwise."""
    params: dict[Text, ParamValue] = Field(default_factory=dict)
    """Parameters of the workload; those left out have its defaults."""
    environment: Variables = Field(default_factory=dict)
    """Variables of every rank, such as NCCL_ALGO, set before its workload is. A program's are in `command`."""
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
            compared = [n for _, s in self.compare.settings for n in s.params] if self.compare else []
            known = [*self.params, *swept, *compared]
            yield from command_findings(self.command, known, self.time_limit_min)
        if self.twin and not self.faults and self.command is None:  # a program may do faults to itself
            yield Finding(("twin",), "means nothing without faults; remove it or add a fault", self.twin)
        if self.command is not None and self.environment:
            yield Finding(("environment",), "is for ranks of the harness's workloads; write it in command")
        if self.compare is not None:
            yield from self._compare_findings(self.compare)

    def _compare_findings(self, compare: Compare) -> Iterator[Finding]:
        if self.faults:
            yield Finding(
                ("compare",),
                "means nothing with faults: each faulted case has a job of its own; remove one of them",
            )
        for number, axis in enumerate(self.axes):
            for name in axis:
                if name == AB:
                    yield Finding(("axes", number, name), "is what compare calls its two settings; rename it")
                for side, setting in compare.settings:
                    if name in setting.params:
                        place = ("compare", side, "params", name)
                        yield Finding(place, f"is an axis in axes[{number}] too; remove one of the two")
        grown = self.scaling.grow if self.scaling is not None else None
        for side, setting in compare.settings:
            if grown in setting.params:
                yield Finding(
                    ("compare", side, "params", str(grown)),
                    "is what scaling.grow multiplies, so it cannot be compared; compare another or remove grow",
                )

    @property
    def most_repeats(self) -> int:
        """Repeats at most."""
        return self.repeats.max if isinstance(self.repeats, Repeats) else self.repeats

    @property
    def rule(self) -> Repeats | None:
        """What says how many repeats it takes; None where their number is fixed."""
        return self.repeats if isinstance(self.repeats, Repeats) else None

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
        """Number of its cases at most, twins left out, without writing them out."""
        scaled = len(self.scaling.nodes) if self.scaling is not None else 1
        sides = 1 if self.compare is None else 2
        return scaled * sweep.count(self.axes) * self.most_repeats * sides


class Packing(Frozen):
    """How cases are put into jobs."""

    mode: Literal["sequence", "interleaved", "jobs"] = "sequence"
    """sequence: cases of one shape follow each other in one allocation. interleaved: likewise, one repeat of each
    before the next repeat of any, so that a drift of the machine meets all alike. jobs: a job for each case, as
    arrays. The two cases of a pair (`compare`) always share an allocation."""
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
        if self.packing.max_cases == 1 and any(g.compare is not None for g in self.groups):
            yield Finding(
                ("packing", "max_cases"),
                "leaves no room for a pair of settings that are compared; raise it",
                1,
            )
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
