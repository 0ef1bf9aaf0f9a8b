"""What each group waits for: its own ``after`` and ``needs``, and what its role adds. Pure.

All measurements need all pre-checks; a post-check comes after everything that is no post-check. A group
that is needed must have ended and passed, one that is only waited for must have ended.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.model.fields import Finding, Loc, did_you_mean

MEASUREMENT, PRE_CHECK, POST_CHECK = "measurement", "pre-check", "post-check"
RANK = {PRE_CHECK: 0, MEASUREMENT: 1, POST_CHECK: 2}
"""Roles in the order in which they run."""

_MAX_CIRCLES = 10  # that are told at once


@dataclass(frozen=True)
class Wish:
    """What a group says of its order."""

    name: str
    role: str = MEASUREMENT
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wait:
    """What a group waits for: groups that must have ended, and groups that must have ended and passed."""

    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def resolve(wishes: Sequence[Wish]) -> dict[str, Wait]:
    """What each group waits for, in the campaign's order of groups; what is needed is not listed twice."""
    resolved = {}
    for wish in wishes:
        needs, after = set(wish.needs), set(wish.after)
        for other in wishes:
            if wish.role == MEASUREMENT and other.role == PRE_CHECK:
                needs.add(other.name)
            elif wish.role == POST_CHECK and other.role != POST_CHECK:
                after.add(other.name)
        resolved[wish.name] = Wait(
            after=tuple(w.name for w in wishes if w.name in after - needs),
            needs=tuple(w.name for w in wishes if w.name in needs),
        )
    return resolved


def findings(wishes: Sequence[Wish | None]) -> Iterator[Finding]:
    """What is wrong with the order of groups; ``None`` is one of which nothing can be said."""
    known: dict[str, Wish] = {}
    for wish in wishes:
        if wish is not None:
            known.setdefault(wish.name, wish)
    circular: dict[str, list[str]] = {name: [] for name in known}
    for index, wish in enumerate(wishes):
        if wish is None or known[wish.name] is not wish:
            continue  # of two groups with one name, that is what is wrong
        for key, named in (("after", wish.after), ("needs", wish.needs)):
            for number, other in enumerate(named):
                text = _wrong(wish, key, number, known)
                if text:
                    yield Finding(("groups", index, key, number), text, other)
                else:
                    circular[wish.name].append(other)
    yield from _circles(wishes, circular)


def _wrong(wish: Wish, key: str, number: int, known: Mapping[str, Wish]) -> str:
    """What is wrong with one name in one list, circles left out; "" when nothing is."""
    named = wish.after if key == "after" else wish.needs
    other = named[number]
    if other not in known:
        names = [name for name in known if name != wish.name]
        hint = did_you_mean(other, names, "choose one or remove it")
        return f"is no group of this campaign, allowed: {', '.join(names) or 'none'}; {hint}"
    if other == wish.name:
        return "is the group itself; remove it"
    if other in named[:number]:
        return "is in the list twice; keep one of the two"
    if key == "after" and other in wish.needs:
        return "is in needs too, which says more; remove it here"
    role = known[other].role
    if wish.role == PRE_CHECK and role == MEASUREMENT:
        return "is a measurement, and all measurements need this pre-check; remove it or change a role"
    if wish.role != POST_CHECK and role == POST_CHECK:
        return "is a post-check, which runs when all else has ended; remove it or change a role"
    return ""


def _circles(wishes: Sequence[Wish | None], edges: dict[str, list[str]]) -> Iterator[Finding]:
    """A finding for each circle; of roles alone there can be none."""
    for _ in range(_MAX_CIRCLES):
        try:
            graphlib.TopologicalSorter(edges).prepare()
            return
        except graphlib.CycleError as error:
            circle: list[str] = error.args[1][:0:-1]  # each waits for the next, and the last for the first
        index, wish = next((i, w) for i, w in enumerate(wishes) if w is not None and w.name in circle)
        start = circle.index(wish.name)
        circle = [*circle[start:], *circle[: start + 1]]
        waits, other = circle[0], circle[1]
        key = "needs" if other in wish.needs else "after"
        loc: Loc = ("groups", index, key, getattr(wish, key).index(other))
        yield Finding(loc, f"makes a circle: {' waits for '.join(circle)}; remove one of these", other)
        edges[waits] = [name for name in edges[waits] if name != other]


def levels(waits: Mapping[str, Wait]) -> dict[str, int]:
    """How many groups in a row each waits for, at the longest; there must be no circle."""
    edges = {name: (*wait.after, *wait.needs) for name, wait in waits.items()}
    found: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(edges).static_order():
        found[name] = 1 + max((found[other] for other in edges[name]), default=-1)
    return found
