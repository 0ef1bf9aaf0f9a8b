"""What a campaign says of repeats, and of two settings that are compared. Frozen; rules that need nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from harness.model.fields import Finding, Findings, Frozen, Line, Number, Text, refuse_if_any
from harness.model.scalars import ParamValue

MOST_REPEATS = 1000
FOR_AN_INTERVAL = 6  # METRICS.md: with fewer repeats there is a range and no interval

Statistic = Literal["median", "mean", "min", "max", "p95"]

_PERCENT = re.compile(r"(\d{1,2}(?:\.\d{1,6})?) ?%")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
# What says to a rank who and where it is: the harness sets these itself.
_OWN_VARIABLES = re.compile(
    r"HARNESS_.*|SLURM_.*|SBATCH_.*|SRUN_.*|PMIX?_.*|OMPI_COMM_WORLD_.*|(LOCAL_|GROUP_|NODE_)?RANK"
    r"|(LOCAL_|GROUP_)?WORLD_SIZE|MASTER_(ADDR|PORT)|PYTHONPATH"
)


def _percent(value: Any) -> Any:
    if not isinstance(value, str) or not _PERCENT.fullmatch(value) or not 0 < _share(value) < 1:
        raise PydanticCustomError("text", "must be a percentage above 0 % and below 100 %; write it as 2%")
    return value


def _share(percent: str) -> float:
    return round(float(percent.rstrip("% ")) / 100, 12)


Percent = Annotated[
    str, BeforeValidator(_percent), WithJsonSchema({"type": "string", "pattern": f"^{_PERCENT.pattern}$"})
]
"""A share as people write it: ``2%``."""


def _variables(value: dict[str, str]) -> dict[str, str]:
    found = []
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            words = "is no name of a variable, allowed: letters, digits and _; rename it"
            found.append(Finding((name,), words, text))
        elif _OWN_VARIABLES.fullmatch(name):
            found.append(Finding((name,), "is set by the harness itself; remove it", text))
    if found:
        raise Findings(found)
    return value


Variables = Annotated[dict[str, Line], AfterValidator(_variables)]


class Figure(Frozen):
    """One figure of each case: a statistic of a metric over its samples, warm-up left out."""

    metric: Text
    """Name of a metric, unit included: one of harness/model/metrics.py, or one that the group's command defines."""
    statistic: Statistic = "median"
    """Of the samples of one repeat."""
    where: dict[Text, Number] = Field(default_factory=dict)
    """Only samples whose columns have these values."""


class Until(Figure):
    """How well a figure is to be known: the interval of its median over the repeats, or of a comparison's ratio."""

    within: Percent
    """Half the width of the interval, as a share of the figure: 2% is plus or minus 2 %."""
    level: Percent = "95%"
    """Confidence of the interval."""

    @model_validator(mode="after")
    def _rules(self) -> Until:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if not 0.5 <= self.confidence <= 0.999:
            yield Finding(("level",), "allowed: 50% to 99.9%; change it", self.level)

    @property
    def half_width(self) -> float:
        """``within`` as a share."""
        return _share(self.within)

    @property
    def confidence(self) -> float:
        """``level`` as a share."""
        return _share(self.level)


Repeated = Annotated[int, Field(ge=1, le=MOST_REPEATS)]


class Repeats(Frozen):
    """As many repeats as it takes: first `min`, then `step` more at a time, until the interval is narrow enough."""

    min: Repeated = FOR_AN_INTERVAL
    """Repeats that are run in any case."""
    max: Repeated
    """Most repeats."""
    until: Until
    """When it is enough."""
    step: Repeated = 1
    """Repeats that are added at a time: each time is a submission that waits for the one before."""
    max_node_hours: Annotated[float, Field(gt=0)] | None = None
    """What the group may take, measured: no repeats are added when they would take it beyond this."""

    @model_validator(mode="after")
    def _rules(self) -> Repeats:
        return refuse_if_any(self, self._findings())

    def _findings(self) -> Iterator[Finding]:
        if self.max < FOR_AN_INTERVAL:
            yield Finding(
                ("max",),
                f"is too small: below {FOR_AN_INTERVAL} repeats there is no interval; raise it, or write the number of "
                "repeats alone, as in repeats: 5",
                self.max,
            )
        elif self.min >= self.max:
            yield Finding(
                ("min",),
                f"leaves nothing to decide, since max = {self.max}; lower it, or write the number of repeats alone",
                self.min,
            )


def _kind(value: Any) -> str:
    return "[rule]" if isinstance(value, Mapping | Repeats) else "[number]"


RepeatsOrNumber = Annotated[
    Annotated[Repeated, Tag("[number]")] | Annotated[Repeats, Tag("[rule]")], Discriminator(_kind)
]
"""A number, or a rule. The tags stand in pydantic's places of errors; ``harness.explain`` leaves them out."""


class Setting(Frozen):
    """One of two settings; nothing is the group as it is."""

    params: dict[Text, ParamValue] = Field(default_factory=dict)
    """Parameters of the workload, instead of the group's."""
    environment: Variables = Field(default_factory=dict)
    """Variables of every rank, beside the group's and instead of those of the same name."""

    @property
    def words(self) -> str:
        """What it says, for people; "" for nothing."""
        said = [*self.params.items(), *self.environment.items()]
        return ", ".join(f"{name}={value}" for name, value in said)


class Compare(Figure):
    """Two settings, run by turns in one allocation: a pair for each repeat, judged by the ratio within pairs."""

    a: Setting = Setting()
    """What is compared with."""
    b: Setting = Setting()
    """What is compared."""
    smallest: Percent = "2%"
    """The smallest difference that matters."""

    @property
    def smallest_share(self) -> float:
        """``smallest`` as a share."""
        return _share(self.smallest)

    @property
    def settings(self) -> tuple[tuple[str, Setting], ...]:
        """Both, by name."""
        return (("a", self.a), ("b", self.b))
