"""What one rank does in each of its steps, and when it strays from it: then it is the one whom the others wait for.

Steps are alike: the same collectives, from the same lines, in the same order, or one of a few such orders. A rank that
leaves one out, or calls two in the wrong order, does what it has not done in any step before, and the others do not.
That needs no word of the other ranks, so it also tells which of two it was. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ENOUGH = 3  # steps before what is new is called odd
MOST = 4096  # places that are remembered: steps that are never alike have no routine


class Routine:
    """The orders of collectives that one rank knows, as a tree: a place is what was done since the step began.

    ``strayed`` is the last step in which it did something for the first time, after it knew its ways; -1: none.
    """

    def __init__(self) -> None:
        self.strayed = -1
        self._next: dict[tuple[int, object], int] = {}
        self._ends: set[int] = set()  # places at which a step was over
        self._at, self._step, self._steps = 0, -1, 0

    def begin(self, step: int) -> None:
        """A step begins, and so the one before is over."""
        if self._step >= 0:
            if self._at not in self._ends:
                self._ends.add(self._at)
                self._odd()
            self._steps += 1
        self._at, self._step = 0, step

    def do(self, call: Callable[[], Any]) -> None:
        """A collective begins; which one it is, the line tells where it is called."""
        if self._step < 0:
            return  # of setup, once
        key = (self._at, _line(call))
        known = self._next.get(key)
        if known is None:
            if len(self._next) >= MOST:
                return
            known = self._next[key] = len(self._next) + 1
            self._odd()
        self._at = known

    def _odd(self) -> None:
        if self._steps >= ENOUGH and len(self._next) < MOST:
            self.strayed = self._step


def _line(call: Callable[[], Any]) -> object:
    """What tells a call from others: its code, whichever values it has now."""
    code = getattr(call, "__code__", None)  # of a function, a lambda or a bound method
    return id(code) if code is not None else getattr(call, "__qualname__", type(call).__qualname__)
