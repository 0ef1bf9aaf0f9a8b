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
STATUS_S = 0.5  # how long after its end a process's status may be told
# How a process ends by such a fault: its status, a signal's number below zero. Memory may run out in any library.
ENDS = {
    "rank.kill": (-9,), "rank.terminate": (-15,), "rank.abort": (-6,), "rank.segfault": (-11,),
    "rank.raise": (1,), "rank.out_of_memory": (1, -6, -9),
}  # fmt: skip


class OtherEnd(Exception):
    """The rank ended, and not by this fault."""


class Effects:
    """Looks at one rank after it was struck by the fault of this number, from 1, of its case."""

    def __init__(self, run: AttemptRun, rank: int, number: int, kind: str, duration_s: float) -> None:
        self._number, self._kind, self._duration_s = number, kind, duration_s or float("inf")
        self._run, self._rank = run, run.ranks[rank]
        self._at = time.monotonic()
        self._moved_at = self._at
        self._ended_at = 0.0
        self._first = self._last = self._position()

    def _position(self) -> tuple[int, int, int]:
        view = self._rank.view
        return view.finished, view.sequence, view.section

    def seen(self) -> dict[str, Any] | None:
        """Evidence that the effect is there, or None: not yet.

        Raises:
            OtherEnd: the rank ended otherwise than by this fault.
        """
        kind, rank, now = self._kind, self._rank, time.monotonic()
        position = self._position()
        if position != self._last:
            self._last, self._moved_at = position, now
        still_s = now - self._moved_at
        if kind in ENDS:
            return self._ended(now) if rank.ended else None
        if kind == "storage.full":
            felt = self._number in self._run.felt
            return {"said": "the rank could not write its part of a checkpoint"} if felt else None
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

    def _ended(self, now: float) -> dict[str, Any] | None:
        """By its status, where anybody can tell it: MPI's launcher keeps those of its own ranks to itself."""
        rank, expected = self._rank, ENDS[self._kind]
        self._ended_at = self._ended_at or now
        if rank.status is None and now - self._ended_at < STATUS_S:
            return None
        # A program's rank is the process around it, which has an end of its own.
        if rank.status is not None and self._run.own_loop and rank.status not in expected:
            raise OtherEnd(
                f"it ended with status {rank.status}, and by {self._kind} it ends with "
                f"{' or '.join(map(str, expected))}: {rank.words[:200] or 'without a word'}"
            )
        return {
            "process": "ended",
            "status": rank.status,
            "expected": list(expected),
            "words": rank.words[:200],
        }

    def moves_again(self) -> dict[str, Any] | None:
        """Evidence that a rank which was held up goes on, or None: not yet."""
        before = self._last
        self.seen()
        if self._last == before or self._rank.view.stopped_s > 0 or self._rank.ended:
            return None
        return {"page": "moves again", "step": self._rank.view.begun}

    def _by_its_word(self) -> dict[str, Any] | None:
        """What nobody outside can see until it has consequences: the rank said that it came to this line."""
        return {"said": "the rank published that it did it", "step": self._rank.view.begun}


def gone(run: AttemptRun | None, rank: int) -> dict[str, Any] | None:
    """Evidence that the process which a fault hit is no more, after its attempt has ended; None: it still runs.

    Args:
        run: the attempt; None for one of an earlier supervisor of the job.
        rank: that was hit.
    """
    if run is None:
        return {"job": "was started again since, and with it every process of it"}
    view = run.ranks[rank]
    if view.ended:
        return {"process": "ended", "status": view.status}
    said = run.finished.get(view.node)
    if said is not None:
        return None if rank in said["alive"] else {"process": "gone", "told_by": f"the agent of {view.node}"}
    lost = run.s.links.lost(view.node)
    return {"node": f"{view.node} was lost with it: {lost}"} if lost else None


def _section(section: int) -> str:
    return page.SECTIONS[section] if 0 <= section < len(page.SECTIONS) else str(section)
