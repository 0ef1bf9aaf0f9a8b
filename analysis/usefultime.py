"""Where the wall time of cases went, and how much of it was useful: METRICS.md's ETTR, measured beside the model.

A case's wall time runs from the start of its first attempt to the end of its last one; how long its job waited in the
queue before that is not part of it. Each moment of it is in one bucket, so they add up: a step's last execution is
productive, earlier ones are ``recompute``; what nobody accounts for is ``stall``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from analysis import costs, ettr, joblevel
from analysis.results import CampaignResults, Row, samples_of

if TYPE_CHECKING:
    from analysis.recovery import Recovery

PRODUCTIVE = "productive"
WORDS = {
    PRODUCTIVE: "steps that the answer is made of",
    "queue": "waiting for the job to run again",
    "start": "starting processes, and ending them",
    "load": "reading checkpoints, to the first step",
    "checkpoint": "blocked by saving checkpoints",
    "recompute": "steps done again, and broken ones",
    "detect": "from a fault to its first sign",
    "stall": "anything else: leaving broken steps, waits between steps",
}


@dataclass
class Account:
    """Seconds of wall time of some cases by bucket; ``why`` names cases that are left out, with the reason."""

    buckets: dict[str, float] = field(default_factory=lambda: dict.fromkeys(WORDS, 0.0))
    cases: int = 0
    failures: int = 0  # attempts that ended without completing and were followed by another
    intervals_s: list[float] = field(default_factory=list)  # work between checkpoints
    checkpoints_s: list[float] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        """All of it."""
        return sum(self.buckets.values())

    @property
    def ettr(self) -> float | None:
        """Productive share of the wall time; None without any."""
        return self.buckets[PRODUCTIVE] / self.wall_s if self.wall_s > 0 else None

    @property
    def ettr_without_queue(self) -> float | None:
        """Productive share of the wall time less the queue."""
        rest = self.wall_s - self.buckets["queue"]
        return self.buckets[PRODUCTIVE] / rest if rest > 0 else None

    def add(self, other: Account) -> None:
        """Take another account in."""
        for name, value in other.buckets.items():
            self.buckets[name] += value
        self.cases += other.cases
        self.failures += other.failures
        self.intervals_s += other.intervals_s
        self.checkpoints_s += other.checkpoints_s
        self.why += other.why


class _Clock:
    """Goes forward only: each boundary gives the time since the one before to one bucket."""

    def __init__(self, account: Account, begin_ns: int) -> None:
        self._account, self.now_ns = account, begin_ns

    def until(self, wall_ns: int, bucket: str) -> float:
        """The time up to ``wall_ns`` is ``bucket``'s; nothing when that is not known or is past. Returns it in s."""
        spent = max(0, wall_ns - self.now_ns) / 1e9
        if spent:
            self._account.buckets[bucket] += spent
            self.now_ns = wall_ns
        return spent

    def move(self, seconds: float, source: str, to: str) -> None:
        """So much of what one bucket has was another's."""
        self._account.buckets[source] -= seconds
        self._account.buckets[to] += seconds


def of_case(results: CampaignResults, case: Row) -> Account:
    """One case's account; of no cases, with the reason, where nothing can be said.

    Raises:
        StoreError: the samples are damaged.
    """
    account = Account()
    attempts = [a for a in results.of_case("attempts", case["case_id"]) if a["start_wall_ns"] > 0]
    steps = {s.attempt: s for s in joblevel.of_case(results, case)}
    if not attempts or not steps:
        account.why.append(
            f"{case['label']}: {'no steps on a known clock' if attempts else 'it did not run'}"
        )
        return account
    final = _last_execution(steps.values())
    struck = [f for f in results.of_case("faults", case["case_id"]) if f["observed"]]
    typical = float(np.median(np.concatenate([s.slowest_s for s in steps.values()])))
    clock = _Clock(account, attempts[0]["start_wall_ns"])
    before: Row | None = None
    for attempt in attempts:
        if before is not None and (before["job_key"], before["restart"]) != (
            attempt["job_key"],
            attempt["restart"],
        ):
            job_id = attempt["slurm_job_id"] or f"local-{attempt['job_key']}"
            begun = results.job_starts.get((job_id, attempt["restart"]), 0)
            clock.until(begun or attempt["start_wall_ns"], "queue")
        clock.until(attempt["start_wall_ns"], "start")
        faults = [f for f in struck if f["attempt"] == attempt["index"] and f["injected_wall_ns"] > 0]
        _attempt(results, case, clock, attempt, steps.get(attempt["index"]), final, faults, typical)
        before = attempt
    account.cases = 1
    account.failures = len(attempts) - 1
    account.checkpoints_s = costs.checkpoints_s(results, case)
    account.intervals_s = [value for s in steps.values() for value in _intervals_s(s)]
    return account


def _last_execution(steps: Iterable[joblevel.Steps]) -> dict[int, int]:
    """Step -> the last attempt that finished it."""
    final: dict[int, int] = {}
    for s in sorted(steps, key=lambda s: s.attempt):
        final.update(dict.fromkeys(s.step.tolist(), s.attempt))
    return final


def _intervals_s(s: joblevel.Steps) -> list[float]:
    """Work between two checkpoints of an attempt, in s."""
    at = np.flatnonzero(s.blocked_s > 0)
    return [float(np.sum(s.slowest_s[a:b])) for a, b in pairwise(at.tolist())]


def _attempt(
    results: CampaignResults,
    case: Row,
    clock: _Clock,
    attempt: Row,
    steps: joblevel.Steps | None,
    final: dict[int, int],
    faults: Sequence[Row],
    typical: float,
) -> None:
    running = [
        e["wall_ns"]
        for e in results.of_case("events", case["case_id"])
        if e["attempt"] == attempt["index"] and e["kind"] == "rank.running"
    ]
    clock.until(max(running, default=0), "start")
    if steps is not None and len(steps.step):
        clock.until(int(steps.begin_ns[0]), "load" if attempt["restored_step"] >= 0 else "start")
        for step, begin, end, blocked in zip(
            *(v.tolist() for v in (steps.step, steps.begin_ns, steps.end_ns, steps.blocked_s)), strict=True
        ):
            clock.until(min(begin, clock.now_ns + int(blocked * 1e9)), "checkpoint")
            clock.until(begin, "stall")
            hit = any(clock.now_ns < f["injected_wall_ns"] <= end for f in faults)
            bucket = PRODUCTIVE if final[step] == attempt["index"] else "recompute"
            spent = clock.until(end, bucket)
            if hit and spent > typical:  # the attempt survived a fault in this step
                clock.move(spent - typical, bucket, "stall")
    if attempt["outcome"] != "completed":
        for fault in sorted(faults, key=lambda f: int(f["injected_wall_ns"])):
            clock.until(fault["injected_wall_ns"], "recompute")
            clock.until(fault["detected_wall_ns"], "detect")
        clock.until(attempt["end_wall_ns"], "stall")
    clock.until(attempt["end_wall_ns"], "start")


# --- the model beside it --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """Useful time of the cases of one policy and workload that were hit: measured, and modelled with what they cost.

    ``mttf_s`` is their wall time by failures; ``cost_s``, ``restart_s`` and ``interval_s`` are medians; ``young_s``,
    ``daly_s`` and ``best_s`` the intervals that these make best. None is unknown, ``why`` says what is missing.
    """

    policy: str
    workload: str
    account: Account
    mttf_s: float | None
    cost_s: costs.Cost
    restart_s: costs.Cost
    interval_s: costs.Cost
    modelled: float | None
    young_s: float | None
    daly_s: float | None
    best_s: float | None
    modelled_best: float | None
    why: str


def beside(results: CampaignResults, found: Sequence[Recovery]) -> tuple[Beside, ...]:
    """Measured beside modelled useful time, by policy and workload.

    Raises:
        StoreError: the samples are damaged.
    """
    hit = {r.case_id: r.policy for r in found if r.observed and r.restarts}
    accounts: dict[costs.Origin, Account] = {}
    for case in results.cases:
        if case["case_id"] in hit:
            origin = costs.Origin(hit[case["case_id"]], samples_of(case))
            accounts.setdefault(origin, Account()).add(of_case(results, case))
    return tuple(
        _beside(origin, accounts[origin], costs.restart_s(results, found, origin))
        for origin in sorted(accounts)
    )


def _beside(origin: costs.Origin, account: Account, restart: costs.Cost) -> Beside:
    def median(values: Sequence[float], why: str) -> costs.Cost:
        return costs.Cost(float(np.median(values)), len(values)) if len(values) else costs.Cost(None, 0, why)

    cost = median(account.checkpoints_s, "no checkpoint was timed")
    interval = median(account.intervals_s, "no two checkpoints in one attempt")
    mttf = account.wall_s / account.failures if account.failures and account.wall_s > 0 else None
    missing = [c.why for c in (cost, interval, restart) if c.value is None]
    if mttf is None:
        missing.append("no failure in a case whose steps have a known clock")
    young = daly = best = modelled = modelled_best = None
    if mttf is not None and cost.value is not None:
        young, daly, best = (f(cost.value, mttf) for f in (ettr.young_s, ettr.daly_s, ettr.best_s))
        if restart.value is not None:
            modelled_best = ettr.ettr(best, cost.value, restart.value, mttf)
            if interval.value is not None:
                modelled = ettr.ettr(interval.value, cost.value, restart.value, mttf)
    return Beside(
        origin.policy or "unknown",
        origin.workload,
        account,
        mttf,
        cost,
        restart,
        interval,
        modelled,
        young,
        daly,
        best,
        modelled_best,
        "; ".join(dict.fromkeys(missing)),
    )
