"""Learns what shared memory the ranks of an attempt have, while they live: one that is killed leaves it behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.runtime import leftovers

SOON_S = 0.05
AGAIN_S = 10.0


class Segments:
    """The shared memory of one node's ranks; ``root`` is the folder in which its names are noted."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: set[Path] = set()
        self._at = self._gap_s = 0.0  # when it is looked for, and how long until the time after

    def begin(self, *, at_start: bool) -> None:
        """An attempt begins; ``at_start``: its ranks may make their shared memory when they start, as MPI's do."""
        self._found, self._at, self._gap_s = set(), 0.0, 0.0 if at_start else SOON_S

    def look(self, pids: Iterable[int]) -> None:
        """Note what these processes have."""
        if found := leftovers.segments_of(pids) - self._found:
            self._found |= found
            leftovers.note(self._root, found)

    def look_if_due(self, pids: Callable[[], Iterable[int]]) -> None:
        """Look once in a while, ever more seldom; until the first is found where it is made at the start."""
        now = time.monotonic()
        if now < self._at:
            return
        self.look(pids())
        # MPI makes it when it starts, and a rank may be killed right after.
        waits_for_it = not self._found and not self._gap_s
        self._gap_s = 0.0 if waits_for_it else min(2 * self._gap_s + SOON_S, AGAIN_S)
        self._at = now + self._gap_s

    def unlink(self) -> None:
        """Remove what the ranks of this attempt have had."""
        leftovers.unlink(self._found)
