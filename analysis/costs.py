"""What a campaign measured of the three costs that decide about useful time, each with its number of samples.

How long a checkpoint blocks the job, how long a failure holds it up, how often machines fail by themselves. The first
two are those of one workload under one recovery policy: a median over several is nobody's. A figure that was not
measured is None, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis import text
from analysis.results import CampaignResults, Row, names, samples_of
from analysis.series import slowest_rank
from harness.model.attempt import LOST, NODE_LOST

if TYPE_CHECKING:
    from analysis.recovery import Recovery

CONFIDENCE = 0.95


@dataclass(frozen=True, order=True)
class Origin:
    """Whose costs: of the cases of one recovery policy and one workload (a user's program: its group); "": of all."""

    policy: str = ""
    workload: str = ""

    def has(self, case: Row, policy: str) -> bool:
        """Whether a case under a policy is one of these."""
        return self.policy in ("", policy) and self.workload in ("", samples_of(case))

    @property
    def words(self) -> str:
        """It for people; "" for all."""
        parts = (
            f"policy {self.policy}" if self.policy else "",
            f"workload {self.workload}" if self.workload else "",
        )
        return ", ".join(part for part in parts if part)


def origins(results: CampaignResults, found: Sequence[Recovery]) -> tuple[Origin, ...]:
    """Of the cases that were hit; where none was, of those that took checkpoints, whatever their policy."""
    cases = {case["case_id"]: case for case in results.cases}
    hit = {Origin(r.policy, samples_of(cases[r.case_id])) for r in found if r.case_id in cases}
    saving = {
        Origin("", name)
        for case in cases.values()
        if results.has_samples(name := samples_of(case), "checkpoints")
    }
    return tuple(sorted(hit or saving))


@dataclass(frozen=True)
class Cost:
    """One measured figure: the median of ``n`` samples in its unit, or None with the reason in ``why``."""

    value: float | None
    n: int
    why: str = ""


def _median(values: Sequence[float], why: str) -> Cost:
    return Cost(float(np.median(values)), len(values)) if len(values) else Cost(None, 0, why)


def checkpoints_s(results: CampaignResults, case: Row) -> list[float]:
    """How long each checkpoint of a case blocked it, in s: that of the slowest rank, of every attempt.

    Raises:
        StoreError: the samples are damaged.
    """
    if not results.has_samples(samples_of(case), "checkpoints"):
        return []
    samples = results.case_samples(case["case_id"], "checkpoints", all_attempts=True)
    found: list[float] = []
    for attempt in np.unique(samples["attempt"]):
        own = {name: values[samples["attempt"] == attempt] for name, values in samples.items()}
        ranks = len(np.unique(own["rank"]))
        found += (slowest_rank(own, "checkpoint_time_ns", ranks).slowest / 1e9).tolist()
    return found


def checkpoint_s(results: CampaignResults, origin: Origin = Origin()) -> Cost:
    """How long one checkpoint blocks the job, d, in s: the median over the cases of an origin.

    Raises:
        StoreError: the samples are damaged.
    """
    cases = [case for case in results.cases if origin.has(case, case["recovery"])]
    found = [value for case in cases for value in checkpoints_s(results, case)]
    return _median(found, "no checkpoint was taken")


def restart_s(results: CampaignResults, found: Sequence[Recovery], origin: Origin = Origin()) -> Cost:
    """Time to restart (t7 - t1), R, in s: the median over the faults that hit the cases of an origin."""
    cases = {case["case_id"]: case for case in results.cases}
    known = [
        r.time_to_restart_s
        for r in found
        if r.time_to_restart_s is not None and r.restarts and origin.has(cases[r.case_id], r.policy)
    ]
    return _median(known, "no restart was measured")


@dataclass(frozen=True)
class Failures:
    """Failures of machines that nobody commanded: ``rate`` a node-hour, at most ``most`` with 95 % confidence."""

    count: int
    node_hours: float
    rate: float | None
    most: float
    why: str = ""


def failures(results: CampaignResults) -> Failures:
    """Failures in the node-hours of all attempts.

    Counted are attempts that lost a node, or that nobody lived to end, where no fault had been commanded.
    """
    struck = {(f["case_id"], f["attempt"]) for f in results.faults if f["requested"]}
    hours, number = 0.0, 0
    for attempt in (results.attempts[n] for n in results.own_attempts):
        if attempt["duration_ns"] > 0:
            nodes = len(dict.fromkeys(_nodes(results, attempt)))
            hours += nodes * attempt["duration_ns"] / 3.6e12
        own = (attempt["case_id"], attempt["index"]) not in struck
        number += attempt["outcome"] in (NODE_LOST, LOST) and own
    most = _poisson_upper(number) / hours if hours > 0 else math.inf
    if number and hours > 0:
        return Failures(number, hours, number / hours, most)
    why = f"no failure but those commanded in {text.digits(hours)} node-hours"
    return Failures(number, hours, None, most, why)


def _nodes(results: CampaignResults, attempt: Row) -> list[str]:
    return list(names(attempt["rank_nodes"]) or names(attempt["nodes"]))


def _poisson_upper(number: int) -> float:
    """Upper end of the one-sided 95 % interval of a Poisson count: the mean for which so few are seen in 5 %."""
    low, high = 0.0, 10.0 + 3.0 * number
    for _ in range(100):
        middle = (low + high) / 2
        terms = (math.exp(-middle + k * math.log(middle) - math.lgamma(k + 1)) for k in range(number + 1))
        low, high = (middle, high) if sum(terms) > 1 - CONFIDENCE else (low, middle)
    return (low + high) / 2
