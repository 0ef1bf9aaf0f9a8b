"""Axes of a group: what they multiply out to, and what is wrong with them. Pure.

An axis is a mapping from names to lists of values. Names of one axis change together (their lists are as
long as each other), axes are multiplied. Nothing is written out to be counted. Whether a name is a
parameter of the workload is asked elsewhere (``harness.rules``).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.model.case import short
from harness.model.fields import Finding, Loc

AXIS_FIELDS = {"nodes": 100_000, "ranks_per_node": 4096, "steps": 1_000_000_000}
"""Fields of a group that an axis may set as well as parameters, and the largest value of each."""

MAX_AXES = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")

Axes = Sequence[Mapping[str, tuple[Any, ...]]]
"""As in a campaign file."""


def count(axes: Axes) -> int:
    """Number of combinations."""
    return math.prod(_length(axis) for axis in axes)


def cells(axes: Axes) -> Iterator[dict[str, Any]]:
    """Every combination, as names and values; the last axis changes fastest."""
    for indices in itertools.product(*(range(_length(axis)) for axis in axes)):
        yield {
            name: values[index]
            for axis, index in zip(axes, indices, strict=True)
            for name, values in axis.items()
        }


def values(axes: Axes, name: str) -> list[tuple[Loc, Any]]:
    """Every value of one name, with its place in the group; empty where no axis has it."""
    return [
        (("axes", number, name, index), value)
        for number, axis in enumerate(axes)
        for index, value in enumerate(axis.get(name, ()))
    ]


def _length(axis: Mapping[str, tuple[Any, ...]]) -> int:
    return len(next(iter(axis.values())))


def findings(axes: Axes, given: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with a group's axes.

    Args:
        axes: the group's.
        given: names that the group sets elsewhere, and where: ``{"rows": "params"}``.
    """
    first: dict[str, int] = {}
    for number, axis in enumerate(axes):
        lengths = {name: len(listed) for name, listed in axis.items()}
        if len(set(lengths.values())) > 1:
            each = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            yield Finding(
                ("axes", number),
                f"changes {' and '.join(axis)} together, but {each} values; give as many of each, or make "
                "each an axis of its own",
            )
        else:
            yield from _repeated(number, axis)
        for name, listed in axis.items():
            loc: Loc = ("axes", number, name)
            if not _NAME.fullmatch(name):
                yield Finding(loc, "is no name, allowed: letters, digits and _ . -; rename it")
            elif name in first:
                yield Finding(loc, f"is an axis in axes[{first[name]}] too; keep one of the two")
            elif name in given:
                yield Finding(loc, f"is given by {given[name]} too; remove one of the two")
            first.setdefault(name, number)
            if name in AXIS_FIELDS:
                yield from _counts(loc, listed, AXIS_FIELDS[name])


def _counts(loc: Loc, listed: tuple[Any, ...], most: int) -> Iterator[Finding]:
    for index, value in enumerate(listed):
        if isinstance(value, bool) or not isinstance(value, int):
            yield Finding((*loc, index), "must be a whole number; write digits only, without quotes", value)
        elif value < 1:
            yield Finding((*loc, index), "is too small, allowed: 1 and above; raise it", value)
        elif value > most:
            yield Finding((*loc, index), f"is too large, allowed: {most} and below; lower it", value)


def _repeated(number: int, axis: Mapping[str, tuple[Any, ...]]) -> Iterator[Finding]:
    """Entries that would make the same case twice, or cases whose labels are the same."""
    alone = next(iter(axis)) if len(axis) == 1 else ""
    seen: dict[tuple[str, ...], int] = {}
    for index, entry in enumerate(zip(*axis.values(), strict=True)):
        shown = tuple(short(value) for value in entry)
        if shown in seen:
            loc: Loc = ("axes", number, alone, index) if alone else ("axes", number)
            which = (
                "is" if alone else f"has {', '.join(f'{n} = {s}' for n, s in zip(axis, shown, strict=True))}"
            )
            yield Finding(
                loc, f"{which} in the list twice; keep one of the two", *([entry[0]] if alone else [])
            )
        seen.setdefault(shown, index)
