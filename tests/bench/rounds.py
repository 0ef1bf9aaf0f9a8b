"""Measuring several things in rounds, each thing once a round, within a budget of time.

In rounds, so that a drift of the machine meets all alike. When the budget does not hold every repeat, what is
quick still gets all of its repeats, and what takes minutes gets as many as fit, but at least one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tests.bench.bench_cluster import BenchError

T = TypeVar("T")


@dataclass
class Found(Generic[T]):
    """What was measured, and why something was not."""

    values: dict[str, list[T]] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)
    short: bool = False
    """Whether the budget ended before every repeat."""
    stopped: bool = False
    """Whether somebody pressed Ctrl-C; what was measured before is here."""


def fits(wall_s: Mapping[str, float], left: Mapping[str, int], key: str, remaining_s: float) -> bool:
    """Whether ``key`` may be measured once more: after it, all that is quicker must still have its repeats."""
    quicker = sum(wall_s[k] * n for k, n in left.items() if k != key and wall_s[k] < wall_s[key])
    return wall_s[key] + quicker <= remaining_s


def in_rounds(
    keys: Sequence[str],
    measure: Callable[[str, int], T],
    *,
    repeats: int,
    budget_s: float,
    impossible: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
) -> Found[T]:
    """Measure each key ``repeats`` times; one that fails is said why, and is left out from then on.

    Args:
        keys: what is measured; every round begins with another one.
        measure: given a key and the number of the round.
        repeats: how often each.
        budget_s: time for all of it. The first round is measured whatever it takes.
        impossible: keys that cannot be measured, and why.
        clock: seconds that pass.
    """
    begin = clock()
    found: Found[T] = Found({key: [] for key in keys}, dict(impossible))
    took: dict[str, float] = {}
    for number in range(repeats):
        turn = number % max(1, len(keys))
        for key in (*keys[turn:], *keys[:turn]):
            if key in found.why_not:
                continue
            left = {k: repeats - len(found.values[k]) for k in took if k not in found.why_not}
            if number and not fits(took, left, key, budget_s - (clock() - begin)):
                found.short = True
                continue
            started = clock()
            try:
                found.values[key].append(measure(key, number))
            except KeyboardInterrupt:
                found.stopped = True
                return found
            except BenchError as error:
                found.why_not[key] = str(error).splitlines()[0]
                print(f"  {error}", file=sys.stderr, flush=True)
            took[key] = max(took.get(key, 0.0), clock() - started)
            print(f"  round {number + 1}: {key}: {took[key]:.0f} s", file=sys.stderr, flush=True)
    return found
