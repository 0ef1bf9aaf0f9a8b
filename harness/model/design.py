"""What cases are repeated for: until an interval is narrow, or to compare two settings. Standard library only.

A *lot* is what is repeated together: its cases run in waves, and after each wave somebody asks whether that is
enough. A *comparison* is a pair of settings, run one after the other in one allocation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NOT_NEEDED = "NOT_NEEDED"  # state of a job that is not run, because the repeats before it were enough
WORDS = "not needed: "  # how the reason of such a case begins; its outcome is not_run
AB = "ab"  # what a case's cell calls its side of a comparison
A, B = "a", "b"

# Answers to: are the repeats so far enough?
MORE = "more"
ENOUGH = "enough"
NEVER = "never"  # no number of them would be


def not_needed(outcome: str, reason: str) -> bool:
    """Whether a case was not run because the repeats before it were enough: then it is no part of the evidence."""
    return outcome == "not_run" and reason.startswith(WORDS)


@dataclass(frozen=True)
class Question:
    """The figure that a lot or a comparison is about."""

    metric: str
    statistic: str  # of one case's samples: "median", "mean", "min", "max", "p95"
    where: Mapping[str, int | float] = field(default_factory=dict)  # column -> value the samples must have

    @property
    def words(self) -> str:
        """``median step_time_ns (message_bytes = 65536)``."""
        where = ", ".join(f"{name} = {value}" for name, value in self.where.items())
        return f"{self.statistic} {self.metric}" + (f" ({where})" if where else "")


@dataclass(frozen=True)
class Lot:
    """Cases that are repeated together, until each of their series is known well enough."""

    name: str  # group, nodes, and what its cell says: unique in its campaign
    group: str
    question: Question
    within: float  # half the width of the interval, as a share of the figure
    level: float  # confidence of the interval
    least: int  # repeats of the first wave
    most: int
    step: int  # repeats of each wave behind it
    max_node_hours: float | None  # of the whole group
    series: Mapping[str, tuple[str, ...]]  # name of a series -> its cases, by repeat, from 0

    @property
    def words(self) -> str:
        """How often it is repeated, for people."""
        budget = (
            "" if self.max_node_hours is None else f" or its group took {self.max_node_hours:g} node-hours"
        )
        return (
            f"{self.least} to {self.most} repeats, {self.step} at a time, until {self.question.words} is known "
            f"within ±{self.within * 100:g} % at {self.level * 100:g} %{budget}"
        )

    def before(self, wave: int) -> frozenset[str]:
        """Cases of the waves before one."""
        return frozenset(
            case for cases in self.series.values() for case in cases[: self.least + (wave - 1) * self.step]
        )

    def to_json(self) -> dict[str, Any]:
        """The lot as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Lot:
        """Rebuild a lot from ``to_json``'s data."""
        series = {name: tuple(cases) for name, cases in data["series"].items()}
        return cls(**{**data, "question": Question(**data["question"]), "series": series})


@dataclass(frozen=True)
class Comparison:
    """Setting ``b`` against setting ``a`` in one cell of a group: one pair of cases for each repeat."""

    name: str  # group, nodes, and what its cell says
    group: str
    question: Question
    smallest: float  # the smallest difference that matters, as a share
    a: str  # what the setting says, in words; "" for nothing
    b: str
    pairs: tuple[tuple[str, str], ...]  # cases of a and of b, by repeat

    @property
    def words(self) -> str:
        """What is compared, for people."""
        alone = "the group as it is"
        return (
            f"a ({self.a or alone}) against b ({self.b or alone}) by {self.question.words}, {len(self.pairs)} pairs; "
            f"{self.smallest * 100:g} % matters"
        )

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Comparison:
        """Rebuild a comparison from ``to_json``'s data."""
        pairs = tuple((first, second) for first, second in data["pairs"])
        return cls(**{**data, "question": Question(**data["question"]), "pairs": pairs})


def a_first(seed: int, repeat: int) -> bool:
    """Whether a repeat's pair begins with a: by turns, so that over two repeats a steady drift meets both alike."""
    return (seed + repeat) % 2 == 0
