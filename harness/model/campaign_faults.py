"""What a campaign says of faults: what is hit, when, for how long, what is expected; and when something is wrong.

Frozen, and holds what the person wrote. Rules here need nothing but the declaration; those that need the group or
the site are in ``harness.fault_rules``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from harness.model import fault as fault_model
from harness.model.fields import Finding, Frozen, Line, Text, did_you_mean, refuse_if_any
from harness.model.scalars import ParamValue, Step

_PLACE = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # of a user's program


# By what a kind hits: words of the reason that a case then ends with, as an example.
_REASONS = {
    "rank": "ended", "node": "was lost", "nodes": "was lost", "job": "received SIGTERM",
    "checkpoint": "no checkpoint can be used", "controller": "Unable to contact slurm controller",
}  # fmt: skip


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


class Detection(Frozen):
    """When something counts as wrong. Windows of steps are learned from the run: median + 8 MAD of its own steps."""

    lease_s: Annotated[float, Field(ge=0.5, le=600)] = 5.0
    """A node whose agent is silent for so long is lost; an agent that hears nothing for so long ends its ranks."""
    frozen_s: Annotated[float, Field(ge=0.05, le=600)] = 0.9
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


def _place(value: str) -> str:
    if value not in (*fault_model.MOMENTS, fault_model.RECOVERY) and not _PLACE.fullmatch(value):
        raise PydanticCustomError(
            "text",
            "is no moment, allowed: {moments}, or the name of a place in a program that cooperates (a-z 0-9 _ -)",
            {"moments": ", ".join((*fault_model.MOMENTS, fault_model.RECOVERY))},
        )
    return value


Place = Annotated[
    str,
    AfterValidator(_place),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": [*fault_model.MOMENTS, fault_model.RECOVERY]},
                {"type": "string", "pattern": f"^{_PLACE.pattern}$"},
            ]
        }
    ),
]


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
    event: Place | None = None
    """A moment of the run: restore.begin, checkpoint.begin, checkpoint.written (its files are, nothing is committed),
    checkpoint.committed, recovery.begin; or a place that a program names by harness.program's faults.at."""
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
        if self.expect == fault_model.FAILED and not self.because and not kind.harmless:
            yield Finding(
                ("expect",),
                "says nothing of why, so a case that ends for any other reason would pass; add because: with words "
                f'that its reason must hold, such as because: "{_REASONS[kind.hits]}"',
                self.expect,
            )
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
