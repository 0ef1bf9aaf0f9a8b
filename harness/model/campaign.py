"""Campaign: the question that somebody asks of a cluster, as written in a campaign file.

Frozen, and holds what the person wrote: what they left out stays None and is filled in by ``plan`` from
the workload's own defaults. It refuses facts about a cluster. Rules here need nothing but the campaign;
those that need the registry of workloads or a site are in ``harness.rules``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from harness.model.fields import Finding, Frozen, Line, Number, Slug, Text, refuse_if_any
from harness.model.metrics import METRICS

POWER_OFF = "node.power_off"  # needs a site's power command
KILL_PROCESSES = "node.kill_processes"  # the job's own processes on a node: allowed everywhere
FaultKind = Literal["node.power_off", "node.kill_processes"]
Statistic = Literal["median", "mean", "min", "max", "p95"]

Count = Annotated[int, Field(ge=1, le=100_000)]
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]
Step = Annotated[int, Field(ge=0, le=1_000_000_000)]
Minutes = Annotated[int, Field(ge=1, le=43_200)]  # up to 30 days
Seed = Annotated[
    int, Field(ge=0, le=2**31 - 1)
]  # with a repeat added it still fits 32 bits, which numpy wants


_LISTED = "harness/model/metrics.py lists them"


def did_you_mean(given: object, allowed: Iterable[str], otherwise: str) -> str:
    """``did you mean "x"?`` where something allowed resembles ``given``, else ``otherwise``."""
    close = get_close_matches(str(given), list(allowed), n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else otherwise


def _metric(name: str) -> str:
    if name not in METRICS:
        raise PydanticCustomError(
            "text",
            "is no metric of the harness; {next}",
            {"next": did_you_mean(name, METRICS, _LISTED)},
        )
    return name


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


class Recovery(Frozen):
    """What happens when a node or a rank is lost."""

    policy: Literal["none", "requeue"] = "none"
    """none: the case has failed. requeue: the job starts again, and resumes from its newest checkpoint."""
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

    @property
    def restarts(self) -> int:
        """Restarts allowed."""
        return 0 if self.policy == "none" else 3 if self.max_restarts is None else self.max_restarts


class Target(Frozen):
    """What a fault hits."""

    node: Step
    """Index of the node in the job's allocation, from 0; node 0 is the one that runs the batch script."""


class Moment(Frozen):
    """When a fault is injected."""

    step: Step
    """As soon as every rank has begun this step."""


class FaultSpec(Frozen):
    """One fault, declared before the run together with the outcome that is expected of it."""

    kind: FaultKind
    """node.power_off needs the site's power command; node.kill_processes kills the job's processes there."""
    instead: FaultKind | None = None
    """What to do on a site that lacks the means for `kind`; without it such a site refuses the campaign."""
    target: Target
    """What it hits."""
    at: Moment
    """When it is injected."""
    expect: Literal["recovered", "failed"]
    """recovered: the case must finish with the right answer. failed: it must end badly, and say why."""

    @model_validator(mode="after")
    def _rules(self) -> FaultSpec:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.instead == self.kind:
            yield Finding(("instead",), "is the same as kind; name another fault or remove it", self.instead)
        elif self.instead is not None and self.kind == KILL_PROCESSES:
            yield Finding(
                ("instead",),
                f"is never used, since every site allows {KILL_PROCESSES}; remove it",
                self.instead,
            )


class GateSpec(Frozen):
    """A limit that the samples of every case of the group must keep, warm-up left out."""

    metric: Annotated[Text, BeforeValidator(lambda v: _metric(v) if isinstance(v, str) else v)]
    """Name of a metric, unit included (harness/model/metrics.py lists them)."""
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
        for column, value in self.where.items():
            if column not in METRICS:
                yield Finding(
                    ("where", column),
                    f"is no column of the samples; {did_you_mean(column, METRICS, _LISTED)}",
                    value,
                )


class Group(Frozen):
    """Cases of one workload: repeats, over one or several numbers of nodes."""

    name: Slug
    """Short name, unique in the campaign."""
    workload: Text
    """Name of a workload of the harness."""
    nodes: Count | None = None
    """Number of nodes; or give `scaling`."""
    scaling: Scaling | None = None
    """Several numbers of nodes; or give `nodes`."""
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
    time_limit_min: Minutes = 5
    """Minutes that one case may take, restarts not counted."""
    checkpoint: Checkpoint | None = None
    """When the state is saved; never unless told otherwise."""
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
        if self.nodes is None and self.scaling is None:
            yield Finding(
                (), "says on how many nodes it runs neither by nodes nor by scaling; add one of them"
            )
        elif self.nodes is not None and self.scaling is not None:
            yield Finding(
                ("nodes",), "and scaling both say on how many nodes it runs; remove one of them", self.nodes
            )
        if self.twin and not self.faults:
            yield Finding(("twin",), "means nothing without faults; remove it or add a fault", self.twin)

    @property
    def node_counts(self) -> tuple[int, ...]:
        """Every number of nodes the group runs on, in the order of the file."""
        return self.scaling.nodes if self.scaling is not None else (self.nodes or 1,)


class Campaign(Frozen):
    """A campaign file."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this format: 1."""
    name: Slug
    """Short name of the campaign; the run folder is called after it."""
    description: Line = ""
    """What the campaign asks, in one line, for the report."""
    seed: Seed
    """Where all randomness comes from: the same seed gives the same data and the same faults."""
    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=1000)]
    """What is run."""

    @model_validator(mode="after")
    def _rules(self) -> Campaign:
        return refuse_if_any(self, duplicate_names([g.name for g in self.groups]))


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
