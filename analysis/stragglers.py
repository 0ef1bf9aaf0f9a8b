"""Ranks and nodes that keep others waiting: who is the slowest of a step more often than by chance, and what it costs.

Of n equal ranks each is the slowest in 1/n of the steps. A rank is named when a binomial test says that it was so more
often, corrected for the many that are tested (S. Holm, Scandinavian Journal of Statistics 6, 1979), and when it cost at
least 1 % of the time. Steps follow one another, so the test counts only as many as are independent. Ranks that wait for
each other take equally long, whoever is late; so what is compared is what a rank computed, where that was recorded, and
else its step time. Ties are shared. Nodes are tested over all cases of a group.

What a straggler costs is what the steps would have been shorter without it, the slowest rank less the slowest of the
others, beyond what the others cost when they are the slowest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binom

from analysis import text
from analysis.commandline import main as run
from analysis.resample import correlation_time
from analysis.results import CampaignResults, Row, names, samples_of
from analysis.series import Floats

SIGNIFICANT = 0.01  # family-wise, over all that a call tests
COST = 0.01  # of the time; what costs less is not named
FEWEST_STEPS = 20


@dataclass(frozen=True)
class Straggler:
    """A rank of one case, or a node of a group, that was slowest too often, with what that cost."""

    group: str
    label: str  # of the case; of a node, how many cases
    who: str  # rank 3 on n2, node n2
    node: str
    slowest: float  # share of the steps in which it was the slowest
    expected: float  # what chance has
    steps: int
    independent: int  # of them, so many that know nothing of each other
    p: float  # corrected
    cost_s: float
    cost_share: float  # of the time of these steps
    column: str  # what was compared: compute_ns or step_time_ns

    @property
    def words(self) -> str:
        """In one line."""
        return text.one_line(
            f"{self.group}, {self.label}: {self.who} was the slowest in {text.percent(self.slowest)} "
            f"of {self.steps} steps, "
            f"by chance {text.percent(self.expected)} ({text.chance(self.p)}); it cost {text.seconds(self.cost_s)}, "
            f"{text.percent(self.cost_share)} of the time"
        )


@dataclass(frozen=True)
class _Seen:
    """One candidate before the correction."""

    group: str
    label: str
    who: str
    node: str
    count: float
    expected: float
    steps: int
    independent: float
    cost_s: float
    all_s: float
    column: str


@dataclass(frozen=True)
class _Case:
    """Who was the slowest in each step of one case."""

    row: Row
    hosts: tuple[str, ...]  # of each rank
    won: Floats  # share in being the slowest, (steps, ranks): rows add up to 1
    times_s: Floats  # what was compared, (steps, ranks)
    step_s: float  # time of these steps, all together
    column: str


def _of_case(results: CampaignResults, case: Row) -> _Case | None:
    completed = results.completed(case["case_id"])
    if completed is None or case["ranks"] < 2 or not results.has_samples(samples_of(case), "steps"):
        return None
    if results.of_case("faults", case["case_id"]):
        return None
    hosts = names(completed["rank_nodes"])
    ranks = case["ranks"]
    known = results.facts(samples_of(case), "steps")
    column = "compute_ns" if "compute_ns" in known else "step_time_ns"
    samples = results.judged(case["case_id"], "steps", list({"step", "rank", "step_time_ns", column}))
    inside = (samples["rank"] >= 0) & (samples["rank"] < ranks)
    steps, place = np.unique(samples["step"][inside], return_inverse=True)
    times = np.full((len(steps), ranks), np.nan)
    times[place, samples["rank"][inside]] = samples[column][inside]
    whole = np.all(np.isfinite(times), axis=1)
    if int(np.sum(whole)) < FEWEST_STEPS or len(hosts) != ranks:
        return None
    times_s = times[whole] / 1e9
    slowest = times_s == np.max(times_s, axis=1, keepdims=True)
    took = np.zeros(len(steps))
    np.maximum.at(took, place, samples["step_time_ns"][inside] / 1e9)
    won = slowest / np.sum(slowest, axis=1, keepdims=True)
    return _Case(case, hosts, won, times_s, float(np.sum(took[whole])), column)


def _without(times_s: Floats, mine: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """What the steps would have been shorter without some ranks, all together, in s."""
    if bool(np.all(mine)):
        return 0.0
    every, others = np.max(times_s, axis=1), np.max(times_s[:, ~mine], axis=1)
    return float(np.sum(np.maximum(0.0, every - others)))


def _independent(found: _Case, mine: np.ndarray[Any, np.dtype[np.bool_]], won: Floats) -> float:
    """How many steps know nothing of each other, by who was the slowest and by how much."""
    ahead = np.max(found.times_s[:, mine], axis=1) - np.mean(found.times_s[:, ~mine], axis=1)
    return len(won) / max(correlation_time(won), correlation_time(ahead))


def _beyond_chance(costs: Floats) -> Floats:
    """Costs less what the others cost on average: among equals each is the slowest now and then, and costs that."""
    return np.asarray(np.maximum(0.0, costs - (np.sum(costs) - costs) / max(1, len(costs) - 1)))


def _ranks(found: _Case) -> list[_Seen]:
    n, ranks = found.won.shape
    counts = np.sum(found.won, axis=0)
    ordered = np.partition(found.times_s, ranks - 2, axis=1)
    gap = ordered[:, -1] - ordered[:, -2]  # what the slowest alone costs
    costs = _beyond_chance(np.sum(found.won * gap[:, None], axis=0))
    return [
        _Seen(
            found.row["group"],
            found.row["label"],
            f"rank {r} on {found.hosts[r]}",
            found.hosts[r],
            float(counts[r]),
            1 / ranks,
            n,
            _independent(found, np.arange(ranks) == r, found.won[:, r]),
            float(costs[r]),
            found.step_s,
            found.column,
        )
        for r in range(ranks)
        if counts[r] > n / ranks
    ]


def _nodes(group: str, cases: Sequence[_Case]) -> list[_Seen]:
    """Nodes over all cases of a group; of chances that differ, the mean errs on the safe side (W. Hoeffding 1956)."""
    parts: dict[str, list[tuple[float, float, int, float, float, float]]] = {}
    for found in cases:
        hosts, n = np.array(found.hosts), len(found.won)
        different = sorted(set(found.hosts))
        if len(different) < 2:
            continue
        own = [hosts == host for host in different]
        costs = _beyond_chance(np.array([_without(found.times_s, mine) for mine in own]))
        for host, mine, cost in zip(different, own, costs.tolist(), strict=True):
            won = np.sum(found.won[:, mine], axis=1)
            independent = _independent(found, mine, won)
            part = float(np.sum(won)), float(np.mean(mine)), n, independent, cost, found.step_s
            parts.setdefault(host, []).append(part)
    seen = []
    for host, rows in sorted(parts.items()):
        count, steps = sum(r[0] for r in rows), sum(r[2] for r in rows)
        independent = sum(r[3] for r in rows)
        # Each case counts for as many steps as it has independent ones.
        expected = sum(r[1] * r[3] for r in rows) / independent
        share = sum(r[0] / r[2] * r[3] for r in rows) / independent
        label = text.count(len(rows), "case")
        lost_s, every = sum(r[4] for r in rows), sum(r[5] for r in rows)
        if share > expected and count > 0:
            seen.append(
                _Seen(group, label, f"node {host}", host, share * steps, expected, steps, independent, lost_s, every,
                      cases[0].column)
            )  # fmt: skip
    return seen


def _named(seen: Sequence[_Seen], tested: int) -> list[Straggler]:
    """Those that Holm's correction leaves, of ``tested`` in all, and that cost enough; the dearest first."""
    shares = np.array([s.count / s.steps for s in seen])
    counted = np.array([s.independent for s in seen])
    p = binom.sf(np.floor(shares * counted) - 1, np.floor(counted), np.array([s.expected for s in seen]))
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(seen))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (tested - np.arange(len(seen)))))
    found = [
        Straggler(
            s.group, s.label, s.who, s.node, s.count / s.steps, s.expected, s.steps, int(s.independent), float(q),
            s.cost_s, s.cost_s / s.all_s if s.all_s > 0 else 0.0, s.column,
        )
        for s, q in zip(seen, corrected, strict=True)
        if q < SIGNIFICANT
    ]  # fmt: skip
    return sorted((x for x in found if x.cost_share >= COST), key=lambda x: -x.cost_s)


def analyse(results: CampaignResults) -> tuple[Straggler, ...]:
    """Stragglers of every completed case without an injected fault: nodes first, then ranks; the dearest first.

    Raises:
        StoreError: samples are damaged.
    """
    nodes: list[_Seen] = []
    ranks: list[_Seen] = []
    tested_nodes, tested_ranks = 0, 0
    groups: dict[str, list[Row]] = {}
    for case in results.cases:
        groups.setdefault(case["group"], []).append(case)
    for group, rows in groups.items():
        cases = [found for row in rows if (found := _of_case(results, row)) is not None]
        tested_ranks += sum(len(found.hosts) for found in cases)
        tested_nodes += len({host for found in cases for host in found.hosts})
        for found in cases:
            ranks += _ranks(found)
        if cases:
            nodes += _nodes(group, cases)
    return (*_named(nodes, tested_nodes), *_named(ranks, tested_ranks))


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    found = analyse(results)
    data = {"stamp": results.stamp, "stragglers": [asdict(s) for s in found]}
    head = [f"{results.stamp}: for information, these figures judge nothing"] if results.stamp else []
    told = [s.words for s in found] or [
        "no rank and no node was the slowest more often than chance has it, and at a cost"
    ]
    return data, "\n".join([*head, *told]), 0


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.stragglers results.h5 [--json]``."""
    return run("stragglers", "Ranks and nodes that keep the others waiting.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
