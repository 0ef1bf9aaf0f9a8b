"""Rows of /checkpoints and /digests: what was saved, refused and loaded, and which state each rank was in when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.model import event as ev
from harness.model.event import Event

Row = dict[str, Any]
_EVENTS = {
    ev.CHECKPOINT_COMMITTED: "committed",
    ev.CHECKPOINT_RESTORED: "restored",
    ev.CHECKPOINT_REFUSED: "refused",
    ev.CHECKPOINT_FAILED: "failed",
}


def checkpoints(events: Iterable[Event]) -> list[Row]:
    """One row for each checkpoint that a rank took, loaded, refused, or could not commit."""
    return [
        {
            "case_id": e.case_id,
            "attempt": e.attempt,
            "rank": e.rank,
            "step": int(e.data.get("step", -1)),
            "level": str(e.data.get("level", "")),
            "engine": str(e.data.get("engine", "")),
            "event": _EVENTS[e.kind],
            "digest": str(e.data.get("digest", "")),
            "committed_digest": str(e.data.get("committed_digest", "")),
            "bytes": int(e.data.get("bytes", -1)),
            "time_ns": _time_ns(e),
            "wall_ns": e.wall_ns,
            "why": str(e.data.get("why", "")),
        }
        for e in events
        if e.kind in _EVENTS
    ]


def _time_ns(event: Event) -> int:
    """How long it took the rank: a program says it in ns, the harness's own loop its parts in s."""
    total_s = event.data.get("times_s", {}).get("total", -1e-9)
    return int(event.data.get("time_ns", round(total_s * 1e9)))


def digests(events: Iterable[Event]) -> list[Row]:
    """The digest of each rank's live state after a number of steps; what is said twice stands once."""
    kinds = (ev.STATE_DIGEST, ev.CHECKPOINT_COMMITTED)
    found = {
        (e.case_id, e.attempt, e.rank, int(e.data["step"]), str(e.data["digest"])): None
        for e in events
        if e.kind in kinds and e.data.get("digest")
    }
    names = ("case_id", "attempt", "rank", "step", "digest")
    return [dict(zip(names, key, strict=True)) for key in found]
