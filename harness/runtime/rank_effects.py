"""Whether a fault that a rank did to itself landed: seen from outside, by its process and its page.

The rank's own word that it does a fault is only the request; this is the second view. Standard library only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from harness.runtime import page

if TYPE_CHECKING:
    from harness.runtime.attempt_run import AttemptRun

STILL_S = 0.5  # how long nothing must move before it is called standing still
ENDS = {
    "rank.kill": "-9", "rank.terminate": "-15", "rank.abort": "-6", "rank.segfault": "-11",
    "rank.raise": "1", "rank.out_of_memory": "1",
}  # fmt: skip


class Effects:
    """Looks at one rank after it was struck."""

    def __init__(self, run: AttemptRun, rank: int, kind: str, duration_s: float) -> None:
        self._kind, self._duration_s = kind, duration_s or float("inf")
        self._run, self._rank = run, run.ranks[rank]
        self._at = time.monotonic()
        self._moved_at = self._at
        self._first = self._last = self._position()

    def _position(self) -> tuple[int, int, int]:
        view = self._rank.view
        return view.finished, view.sequence, view.section

    def seen(self) -> dict[str, Any] | None:
        """Evidence that the effect is there, or None: not yet."""
        kind, rank, now = self._kind, self._rank, time.monotonic()
        position = self._position()
        if position != self._last:
            self._last, self._moved_at = position, now
        still_s = now - self._moved_at
        if kind in ENDS:
            if not rank.ended:
                return None
            return {
                "process": "ended",
                "status": rank.status,
                "expected": ENDS[kind],
                "words": rank.words[:200],
            }
        if kind == "storage.full":
            return {"said": "the rank could not write its part of a checkpoint"} if self._run.felt else None
        if kind in ("rank.freeze", "rank.pause"):
            return {"kernel": "stopped", "for_s": rank.view.stopped_s} if rank.view.stopped_s > 0 else None
        if kind in ("rank.hang", "rank.slow_step", "storage.slow"):
            if still_s < min(STILL_S, max(self._duration_s * 0.6, 0.1)):
                return None
            return {
                "stands_still_s": round(still_s, 2),
                "step": rank.view.begun,
                "section": _section(rank.view.section),
            }
        if kind == "rank.livelock":
            if position[0] != self._first[0]:  # the beat of the step before came late
                self._first = position
            tries = position[1] - self._first[1]
            if tries < 10:
                return None
            return {"tries": tries, "finished": position[0]}
        return self._by_its_word()

    def _by_its_word(self) -> dict[str, Any] | None:
        """What nobody outside can see until it has consequences: the rank said that it came to this line."""
        return {"said": "the rank published that it did it", "step": self._rank.view.begun}


def _section(section: int) -> str:
    return page.SECTIONS[section] if 0 <= section < len(page.SECTIONS) else str(section)
