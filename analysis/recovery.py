"""Recovery: what each fault did to its case, when, and what it cost; and what all of them say together.

Stamps and durations are those of METRICS.md: everything is told relative to t1, when the call that produces
the effect returned. A stamp that nobody recorded is unknown, and so is whatever needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis import buckets, detectors, lost, recovery_words, saved, spread, stamps, text, usefultime
from analysis.buckets import QUEUE, Bucket
from analysis.commandline import main as run
from analysis.lost import Lost
from analysis.results import CampaignResults, Row
from analysis.stamps import Stamp
from harness.model.fault import RECOVERED

MOST_TOLD = 30  # faults that the command line tells in full


@dataclass(frozen=True)
class Recovery:
    """One declared fault of one case, with what became of it.

    ``origin`` is the stamp that the others are relative to: t1, or t0 where whoever did it took the record of
    t1 with it (the node that ran the supervisor, for one). Then durations are unknown, and only bounded.
    """

    case_id: str
    label: str
    fault_id: str
    kind: str
    requested_kind: str
    target: str
    nodes: tuple[str, ...]  # that were hit
    trigger: str
    series: str
    expect: str
    policy: str  # recovery policy of the case
    requested: bool
    observed: bool
    healed: bool
    healable: bool
    detector: str  # what the first detector said; empty when none did
    blamed: str  # and of whom
    origin: str
    stamps: tuple[Stamp, ...]
    detection_s: float | None  # t2 - t1
    attribution_s: float | None  # t3 - t1
    time_to_restart_s: float | None  # t7 - t1
    time_to_recover_s: float | None  # t8 - t1, MTTR
    time_to_recover_bound_s: float | None  # t8 - t0, where t1 is not recorded: it took at most this
    degraded_tail_s: float | None  # t9 - t8
    restarts: int  # attempts after the one that was hit, until it had recovered
    hit_attempt: int
    lost: Lost
    buckets: tuple[Bucket, ...]  # they add up to t8 - t1
    evidence: tuple[tuple[str, str], ...]

    @property
    def queue_s(self) -> float | None:
        """How much of it was spent waiting for the job to run again."""
        return next(b.time_s for b in self.buckets if b.name == QUEUE)

    @property
    def restart_work_s(self) -> float | None:
        """Time to recover without the queue."""
        if self.time_to_recover_s is None or self.queue_s is None:
            return None
        return self.time_to_recover_s - self.queue_s

    @property
    def took(self) -> str:
        """Time to recover in words."""
        if self.time_to_recover_s is not None:
            return f"in {text.seconds(self.time_to_recover_s)}"
        if self.time_to_recover_bound_s is not None:
            return f"in at most {text.seconds(self.time_to_recover_bound_s)}"
        return "after an unknown time"

    def stamp(self, name: str) -> Stamp:
        """The stamp of that name."""
        return next(s for s in self.stamps if s.name == name)


def _degraded(results: CampaignResults, case: Row, fault: Row, origin: int) -> Stamp:
    """The stamp t9; what was to leave the case unharmed, or to be caught, has nothing to come back from."""
    if fault["expect"] in stamps.WITHOUT_RECOVERY:
        return Stamp(*stamps.DEGRADED, 0, None, stamps.NOTHING_TO_RECOVER)
    wall, why = lost.as_before_ns(results, case, fault) if origin > 0 else (0, "not recorded")
    return Stamp(*stamps.DEGRADED, wall, (wall - origin) / 1e9 if wall else None, why)


def of_fault(results: CampaignResults, case: Row, fault: Row) -> Recovery:
    """The story of one row of /faults."""
    exact = fault["injected_wall_ns"] > 0
    *told, healed = stamps.of_fault(fault)
    degraded = _degraded(results, case, fault, fault["injected_wall_ns"] or fault["requested_wall_ns"])
    after = {s.name: s.after_s for s in (*told, degraded)}
    attempts = results.of_case("attempts", case["case_id"])
    # What was not seen, or what nothing followed, was not recovered from.
    counts = fault["observed"] and any(a["index"] > fault["attempt"] for a in attempts)
    tail = None
    if exact and after["t9"] is not None and after["t8"] is not None:
        tail = after["t9"] - after["t8"]
    return Recovery(
        case_id=case["case_id"],
        label=case["label"],
        fault_id=stamps.short_id(fault["fault_id"], case["case_id"]),
        kind=fault["kind"],
        requested_kind=fault["requested_kind"],
        target=fault["target"],
        nodes=stamps.hit_nodes(fault),
        trigger=fault["trigger"] or f"step {fault['at_step']}",
        series=fault["series"],
        expect=fault["expect"],
        policy=fault["policy"] or case["recovery"],
        requested=fault["requested"],
        observed=fault["observed"],
        healed=fault["healed"],
        healable=stamps.healable(fault["kind"]),
        detector=fault["detector"],
        blamed=fault["blamed"],
        origin="t1" if exact else "t0",
        stamps=(*told, degraded, healed),
        detection_s=after["t2"] if exact else None,
        attribution_s=after["t3"] if exact else None,
        time_to_restart_s=after["t7"] if exact and counts else None,
        time_to_recover_s=after["t8"] if exact and counts else None,
        time_to_recover_bound_s=after["t8"] if counts and not exact else None,
        degraded_tail_s=tail,
        restarts=sum(
            a["index"] > fault["attempt"]
            and a["start_wall_ns"] <= (fault["recovered_wall_ns"] or a["start_wall_ns"])
            for a in attempts
        ),
        hit_attempt=fault["attempt"],
        lost=lost.of_fault(results, case, fault),
        buckets=buckets.of_fault(results, fault),
        evidence=stamps.evidence(fault),
    )


def analyse(results: CampaignResults) -> tuple[Recovery, ...]:
    """Every fault of the file whose case the file knows, in the file's order."""
    pairs = ((results.case(fault["case_id"]), fault) for fault in results.faults)
    return tuple(of_fault(results, case, fault) for case, fault in pairs if case is not None)


def overview(found: Sequence[Recovery]) -> dict[str, Any]:
    """Over all faults: how many were observed, recovered (with Wilson interval), and times to recover in s.

    A fault that was not observed is not counted; one that never recovered is counted as censored. Of the times, one
    that is only bounded is left out; ``queue_s`` and ``restart_work_s`` are their two shares, where both are known.
    """
    counted = [r for r in found if r.observed and r.expect == RECOVERED]
    recovered = [r for r in counted if r.stamp("t8").after_s is not None]
    low, high = spread.wilson(len(recovered), len(counted))
    data: dict[str, Any] = {
        "faults": len(found),
        "counted": len(counted),
        "recovered": len(recovered),
        "never_recovered": len(counted) - len(recovered),
        "rate_95": [low, high],
    }
    apart = [r for r in recovered if r.restart_work_s is not None]
    for name, values in (
        ("time_to_recover_s", [r.time_to_recover_s for r in recovered]),
        ("queue_s", [r.queue_s for r in apart]),
        ("restart_work_s", [r.restart_work_s for r in apart]),
    ):
        found_spread = spread.of(values)
        if found_spread is not None:
            data[name] = found_spread
    return data


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    found = analyse(results)
    over = overview(found)
    score = detectors.score(results)
    policies, kinds = spread.table(found, lambda r: r.policy), spread.table(found, lambda r: r.kind)
    useful = usefultime.beside(results, found)
    data = {
        "stamp": results.stamp,
        "overview": over,
        "policies": [asdict(row) for row in policies],
        "kinds": [asdict(row) for row in kinds],
        "detectors": asdict(score),
        "checkpoints": asdict(saved.of(results)),
        "useful_time": [
            {**asdict(b), "ettr": b.account.ettr, "ettr_without_queue": b.account.ettr_without_queue}
            for b in useful
        ],
        "faults": [{**asdict(r), "queue_s": r.queue_s, "restart_work_s": r.restart_work_s} for r in found],
    }
    if not found:
        return data, f"no fault was declared, or none left a record\n\ndetectors: {score.words}", 0
    parts = [recovery_words.story(results, r) for r in found[:MOST_TOLD]]
    if len(found) > MOST_TOLD:
        parts.append(f"{len(found) - MOST_TOLD} more faults are not told here; --json has all")
    parts.append(recovery_words.together(policies, kinds, score, saved.of(results), useful, results.stamp))
    parts.append(recovery_words.over(over))
    return data, "\n\n".join(parts), 0


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.recovery results.h5 [--json]``."""
    return run("recovery", "Faults: the three facts, the time line, and what was lost.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
