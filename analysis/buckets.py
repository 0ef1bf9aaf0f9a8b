"""Where the time of a recovery went: buckets that add up to t8 - t1, as METRICS.md asks of lost time.

``detect`` ends when the broken attempt has ended; ``queue`` when the job of the next attempt runs; ``start`` at t5,
when new processes run, and ``load`` at t7, when every rank has finished a new step (where t5 is not recorded, ``start``
is both); ``recompute`` ends at t8. So time to restart is all but the last, and what is not ``queue`` is work of the
restart. Where several attempts followed, each wait counts as ``queue``, and what the attempts between did as ``start``
or ``recompute``. A bucket whose stamp nobody recorded is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from analysis import text
from analysis.results import CampaignResults, Row
from harness.model.fault import CAUGHT, UNHARMED

DETECT, QUEUE, START, LOAD, RECOMPUTE = "detect", "queue", "start", "load", "recompute"
_WORDS = {
    DETECT: "until the broken attempt had ended",
    QUEUE: "waiting for Slurm to run the job again",
    START: "start and load, to the first new step",
    LOAD: "state, to the first new step",
    RECOMPUTE: "until past the highest step before",
}
_TO_RUNNING = "until new processes ran"
_LOCAL_QUEUE = "waiting for the job to run again"


@dataclass(frozen=True)
class Bucket:
    """One share of the time to recover; ``time_s`` is None when unknown, and ``why`` says what it lacks."""

    name: str
    words: str
    time_s: float | None
    why: str


@dataclass(frozen=True)
class _Wait:
    """From the end of one attempt to the start of the next one's job; 0 where nobody recorded it."""

    end_ns: int
    begin_ns: int
    why: str


def _wait(results: CampaignResults, broken: Row, following: Row, injected_ns: int) -> _Wait:
    """``injected_ns`` stands in for the end of the attempt that was hit, where nobody wrote it; 0 for others."""
    end_ns = broken["end_wall_ns"] if broken["end_wall_ns"] > 0 else injected_ns
    if (broken["job_key"], broken["restart"]) == (following["job_key"], following["restart"]):
        return _Wait(end_ns, end_ns, "its job went on")
    notes = []
    if end_ns <= 0:
        notes.append(f"nobody wrote when attempt {broken['index']} ended")
    elif broken["end_wall_ns"] <= 0:
        notes.append(f"from the injection on: nobody wrote when attempt {broken['index']} ended")
    job_id = following["slurm_job_id"] or f"local-{following['job_key']}"
    begin_ns = results.job_starts.get((job_id, following["restart"]), 0)
    if begin_ns <= 0:
        begin_ns = following["start_wall_ns"]
        notes.append(f"until attempt {following['index']} began: nobody wrote when its job did")
    return _Wait(end_ns, begin_ns, "; ".join(notes))


def _detect(hit: Row, injected_ns: int) -> tuple[float | None, str]:
    if hit["end_wall_ns"] <= 0:
        within = "it is part of the queue: " if injected_ns > 0 else ""
        return None, f"{within}nobody wrote when attempt {hit['index']} ended"
    if injected_ns <= 0:
        return None, "when it was injected is not recorded"
    return (hit["end_wall_ns"] - injected_ns) / 1e9, ""


def _queue(waits: list[_Wait]) -> tuple[float | None, str]:
    why = "; ".join(dict.fromkeys(w.why for w in waits if w.why))
    if any(w.end_ns <= 0 for w in waits):
        return None, why
    return sum(w.begin_ns - w.end_ns for w in waits) / 1e9, why


def _work(waits: list[_Wait], first_ns: int, last_ns: int) -> float | None:
    """Seconds from ``first_ns`` to ``last_ns`` without the waits between; None where a time is not known."""
    if first_ns <= 0 or last_ns <= 0:
        return None
    inside = [w for w in waits if w.begin_ns > first_ns and (w.end_ns or w.begin_ns) < last_ns]
    if any(w.end_ns <= 0 for w in inside):
        return None
    return (
        last_ns - first_ns - sum(min(w.begin_ns, last_ns) - max(w.end_ns, first_ns) for w in inside)
    ) / 1e9


def of_fault(results: CampaignResults, fault: Row) -> tuple[Bucket, ...]:
    """The four buckets of one row of /faults, in order."""
    words = {**_WORDS, **({QUEUE: _LOCAL_QUEUE} if results.text("launcher") == "local" else {})}

    def buckets(**found: tuple[float | None, str]) -> tuple[Bucket, ...]:
        shown = {**words, START: _TO_RUNNING} if LOAD in found else words
        return tuple(Bucket(name, shown[name], *found[name]) for name in words if name in found)

    if fault["expect"] in (UNHARMED, CAUGHT):
        none = None, "nothing to recover from was expected"
        return buckets(detect=none, queue=none, start=none, recompute=none)
    attempts = results.of_case("attempts", fault["case_id"])
    hit = next((a for a in attempts if a["index"] == fault["attempt"]), None)
    later = [a for a in attempts if a["index"] > fault["attempt"]]
    if hit is None or not later:
        nothing = None, "no attempt followed"
        return buckets(detect=_detect(hit, fault["injected_wall_ns"]) if hit else nothing, queue=nothing,
                       start=nothing, recompute=nothing)  # fmt: skip
    t1, t7, t8 = (fault[f"{name}_wall_ns"] for name in ("injected", "first_step", "recovered"))
    last_ns = max(t7, t8)
    later = [a for a in later if a["start_wall_ns"] <= last_ns] if last_ns > 0 else later[:1]
    waits = [
        _wait(results, broken, following, t1 if broken is hit else 0)
        for broken, following in pairwise([hit, *later])
    ]
    stamps = [t1, *(ns for w in waits for ns in (w.end_ns, w.begin_ns)), last_ns]
    known = [ns for ns in stamps if ns > 0]
    early = [a - b for a, b in pairwise(known) if b < a]
    if not waits or early:
        span = text.seconds(early[0] / 1e9) if early else "unknown"
        bad = None, f"invalid: a stamp is {span} before the one it follows, so the clocks disagree"
        return buckets(detect=bad, queue=bad, start=bad, recompute=bad)
    none_new, never = (None, "no new step is recorded"), (None, "it never passed the step reached before")
    between = "nobody wrote when an attempt between ended"
    t5 = fault["running_wall_ns"]
    loads: dict[str, tuple[float | None, str]] = {}
    if 0 < waits[0].begin_ns <= t5 <= t7:
        started_ns, load = t5, _work(waits, t5, t7)
        loads[LOAD] = (load, "" if load is not None else between)
    else:
        started_ns = t7
    start = _work(waits, waits[0].begin_ns, started_ns) if t7 > 0 else None
    again = _work(waits, t7, t8) if t7 > 0 and t8 > 0 else None
    return buckets(
        detect=_detect(hit, t1),
        queue=_queue(waits),
        start=none_new if t7 <= 0 else (start, "" if start is not None else between),
        **loads,
        recompute=never
        if t8 <= 0
        else none_new
        if t7 <= 0
        else (again, "" if again is not None else between),
    )
