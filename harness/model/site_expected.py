"""What a site says its collectives reach: figures that a run's verdicts hold what they measured against.

Frozen. Checked here is what can be said of one figure or one entry; which workloads and operations there are, the
registry knows (``harness.figure_rules``). A figure is judged as the gates of a campaign are (``analysis.expected``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from harness.model.campaign_design import Percent
from harness.model.fields import Finding, Frozen, Text, refuse_if_any
from harness.model.metrics import BARRIER, EXPECTED, OF_A_SIZE
from harness.model.scalars import Count

Positive = Annotated[float, Field(gt=0)]


class Bounds(Frozen):
    """Limits of one figure, in its unit."""

    at_least: Positive | None = None
    """Smallest value that passes."""
    at_most: Positive | None = None
    """Largest value that passes."""

    @model_validator(mode="after")
    def _rules(self) -> Bounds:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.at_least is None and self.at_most is None:
            yield Finding(
                (), "has neither at_least nor at_most, so it would pass everything; add one of them"
            )
        elif self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            text = f"is above at_most = {self.at_most}, so nothing can pass; exchange them"
            yield Finding(("at_least",), text, self.at_least)


def _kind(value: Any) -> str:
    return "[rule]" if isinstance(value, Mapping | Bounds) else "[number]"


BoundsOrNumber = Annotated[
    Annotated[Positive, Tag("[number]")] | Annotated[Bounds, Tag("[rule]")], Discriminator(_kind)
]
"""Limits; or the figure itself, with ``within`` beside it. Tags as in ``harness.model.campaign_design``."""


class Expected(Frozen):
    """What one operation reaches here. A key of the first six that is left out stands for every value of it."""

    workload: Text
    """torch.collectives or mpi.collectives."""
    operation: Text
    """One of the workload's operations, such as all-reduce."""
    nodes: Count | None = None
    """Number of nodes."""
    ranks_per_node: Count | None = None
    """Ranks on each node."""
    message_bytes: Annotated[int, Field(ge=1, le=1 << 36)] | None = None
    """Size that bandwidths and times are of, as in a campaign; what is fitted is of all sizes and needs none."""
    dtype: Text | None = None
    """Type of the elements, as in a campaign."""
    within: Percent | None = None
    """How much worse than a figure that is given as a number may be, as 10%: times longer, bandwidths smaller."""
    bus_bandwidth_bytes_per_s: BoundsOrNumber | None = None
    """Median bus bandwidth at message_bytes: {at_least: X}, {at_most: X}, or a number with `within`; so the others."""
    algorithm_bandwidth_bytes_per_s: BoundsOrNumber | None = None
    """Algorithm bandwidth at message_bytes, median."""
    time_s: BoundsOrNumber | None = None
    """Time of one call at message_bytes, slowest rank, median."""
    latency_s: BoundsOrNumber | None = None
    """Alpha of t = alpha + S / beta, fitted to all sizes; of a barrier, its time."""
    asymptotic_bandwidth_bytes_per_s: BoundsOrNumber | None = None
    """Beta of t = alpha + S / beta, fitted to all sizes."""

    @model_validator(mode="after")
    def _rules(self) -> Expected:
        return refuse_if_any(self, self._findings())

    @property
    def figures(self) -> dict[str, Bounds | float]:
        """Those that are given, by name."""
        return {name: value for name in EXPECTED if (value := getattr(self, name)) is not None}

    @property
    def of(self) -> tuple[Any, ...]:
        """What it is expected of."""
        return (
            self.workload,
            self.operation,
            self.nodes,
            self.ranks_per_node,
            self.message_bytes,
            self.dtype,
        )

    def _findings(self) -> Iterator[Finding]:
        figures = self.figures
        if not figures:
            yield Finding((), f"expects nothing, allowed: {', '.join(EXPECTED)}; add one of them")
            return
        plain = [name for name, value in figures.items() if not isinstance(value, Bounds)]
        if plain and self.within is None:
            text = "is a number, and nothing says how near is near enough; add within: 10%, or write {at_least: …}"
            yield from (Finding((name,), text, figures[name]) for name in plain)
        elif self.within is not None and not plain:
            text = "is of figures that are numbers, and there is none; remove it, or write a figure without at_least"
            yield Finding(("within",), text, self.within)
        if self.nodes == 1 and self.ranks_per_node == 1:
            yield Finding(("nodes",), "with ranks_per_node: 1 is one rank, which sends nothing; raise one", 1)
        yield from self._size_findings(figures)

    def _size_findings(self, figures: Mapping[str, Any]) -> Iterator[Finding]:
        sized = [name for name in figures if name in OF_A_SIZE]
        if self.operation == BARRIER:
            text = "and a barrier carries nothing, so it has no bandwidth; write time_s or latency_s"
            yield from (Finding((name,), text) for name in figures if name not in ("time_s", "latency_s"))
            if self.message_bytes is not None:
                yield Finding(
                    ("message_bytes",), "means nothing for a barrier; remove it", self.message_bytes
                )
        elif sized and self.message_bytes is None:
            yield Finding(("message_bytes",), f"is missing: {sized[0]} differs from size to size; add it")
        elif self.message_bytes is not None and not sized:
            text = f"means nothing for {' and '.join(figures)}, fitted to all sizes; remove it"
            yield Finding(("message_bytes",), text, self.message_bytes)
