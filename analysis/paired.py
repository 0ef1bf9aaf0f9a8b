"""Two settings in one allocation, by turns: the difference within pairs, told apart from what their order did.

A pair is one repeat: both cases ran in the same allocation on the same nodes, one behind the other. Its ratio is free
of whatever differs between allocations, and since every other pair ran b first, a drift from the first to the second
of each pair cancels; how large it was is told beside. Pairs that were torn apart are named and left out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis import designs, text
from analysis.commandline import main as run
from analysis.difference import Change, Difference, compare
from analysis.gates import is_performance
from analysis.results import CampaignResults, Row
from analysis.series import Floats
from harness.model.design import Comparison, Question
from harness.model.metrics import NEITHER
from harness.model.verdict import EXIT_PASS

BALANCED = 1  # pairs by which the two orders may differ: an odd number of repeats


@dataclass(frozen=True)
class Pair:
    """One repeat: figures of both settings, b over a, and which ran first."""

    repeat: int
    a: float
    b: float
    a_first: bool

    @property
    def ratio(self) -> float:
        """b over a; NaN where a is nothing."""
        return self.b / self.a if self.a else math.nan


@dataclass(frozen=True)
class Order:
    """What being the second of a pair did to a figure, as a share; ``interval`` is None below 6 pairs of each order."""

    change: float | None
    interval: tuple[float, float] | None
    a_first: int
    b_first: int

    @property
    def real(self) -> bool:
        """Whether the interval leaves out that it did nothing."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    @property
    def balanced(self) -> bool:
        """Whether each order has as many pairs, so that what the order does cancels."""
        return abs(self.a_first - self.b_first) <= BALANCED


@dataclass(frozen=True)
class Pairing:
    """Setting b against setting a in one cell. ``verdict`` is None where figures of the file judge nothing."""

    name: str
    group: str
    a: str
    b: str
    figure: str
    unit: str
    direction: str
    smallest: float
    pairs: tuple[Pair, ...]
    left_out: tuple[str, ...]  # pairs that are none, each with the reason
    difference: Difference
    order: Order
    stamp: str
    verdict: Change | None

    @property
    def words(self) -> str:
        """One sentence for people."""
        said = self.difference.said(self.unit)
        found = f"b is {said} against a over {text.count(len(self.pairs), 'pair')}"
        if self.verdict is None:
            return f"{found}: {self.stamp}, so it judges nothing"
        why = f" ({self.difference.why})" if self.difference.why else ""
        return f"{found}: {self.verdict.value}{why}"


def pairs_of(
    results: CampaignResults, comparison: Comparison, question: Question
) -> tuple[tuple[Pair, ...], tuple[str, ...], str]:
    """The pairs of a comparison by repeat; those that are none, with the reason; and the unit of the figures.

    Pairs of which neither was run are no pairs and are not named.

    Raises:
        StoreError: the samples are damaged.
    """
    found, left_out, unit = [], [], ""
    for repeat, (a_id, b_id) in enumerate(comparison.pairs):
        a, b = (designs.figure(results, case_id, question) for case_id in (a_id, b_id))
        if a.why == b.why == designs.NOT_RUN:
            continue
        unit = a.unit or b.unit or unit
        if a.value is None or b.value is None:
            side, why = ("a", a.why) if a.value is None else ("b", b.why)
            left_out.append(f"repeat {repeat}: no figure of {side}: {why}")
            continue
        one, two = results.completed(a_id), results.completed(b_id)
        assert one is not None and two is not None  # a case without has no figure
        if torn := _torn(one, two):
            left_out.append(f"repeat {repeat}: {torn}")
            continue
        found.append(Pair(repeat, a.value, b.value, bool(one["start_wall_ns"] <= two["start_wall_ns"])))
    return tuple(found), tuple(left_out), unit


def _torn(a: Row, b: Row) -> str:
    """Why two attempts were not made in one allocation on the same nodes; "" where they were."""
    if (a["job_key"], a["slurm_job_id"], a["restart"]) != (b["job_key"], b["slurm_job_id"], b["restart"]):
        return "a and b did not run in one allocation"
    if a["rank_nodes"] != b["rank_nodes"]:
        return "a and b did not run on the same nodes"
    return ""


def order_of(pairs: Sequence[Pair]) -> Order:
    """What being second did: pairs that began with a hold it in their ratio, the others against it."""
    with_it = np.array([p.ratio for p in pairs if p.a_first])
    against = np.array([p.ratio for p in pairs if not p.a_first])
    counts = len(with_it), len(against)
    whole = min(counts) and bool(np.all(np.concatenate([with_it, against]) > 0))
    if not whole:
        return Order(None, None, *counts)
    # Both settings' difference is in both; what is left is the square of what being second did.
    twice = compare(against, with_it, direction=NEITHER)
    if twice.change is None:
        return Order(None, None, *counts)
    interval = None if twice.interval is None else (_root(twice.interval[0]), _root(twice.interval[1]))
    return Order(_root(twice.change), interval, *counts)


def _root(change: float) -> float:
    return math.sqrt(max(0.0, 1 + change)) - 1


def measure(results: CampaignResults, comparison: Comparison) -> Pairing:
    """What a comparison found.

    Raises:
        StoreError: the samples are damaged.
    """
    pairs, left_out, unit = pairs_of(results, comparison, comparison.question)
    direction = _direction(results, comparison)
    a: Floats = np.array([p.a for p in pairs], dtype=np.float64)
    b: Floats = np.array([p.b for p in pairs], dtype=np.float64)
    found = compare(a, b, smallest=comparison.smallest, direction=direction, paired=True)
    stamp = results.stamp if is_performance(unit) else ""
    return Pairing(
        name=comparison.name,
        group=comparison.group,
        a=comparison.a,
        b=comparison.b,
        figure=comparison.question.words,
        unit=unit,
        direction=direction,
        smallest=comparison.smallest,
        pairs=pairs,
        left_out=left_out,
        difference=found,
        order=order_of(pairs),
        stamp=stamp,
        verdict=None if stamp else found.verdict,
    )


def _direction(results: CampaignResults, comparison: Comparison) -> str:
    """Which way is better, as the file says it, else as the harness knows the metric."""
    for case_id in (case_id for pair in comparison.pairs for case_id in pair):
        case = results.case(case_id)
        if case is None:
            continue
        return designs.direction(results, case, comparison.question.metric)
    return NEITHER


def analyse(results: CampaignResults) -> tuple[Pairing, ...]:
    """Every comparison of the file.

    Raises:
        StoreError: the samples are damaged.
    """
    return tuple(measure(results, comparison) for comparison in designs.comparisons(results))


def order_words(order: Order) -> str:
    """What the order did, for people."""
    counts = f"{order.a_first} with a first, {order.b_first} with b first"
    if order.change is None:
        return f"order: {counts}"
    low_high = ""
    if order.interval is not None:
        low_high = f" ({order.interval[0] * 100:+.1f} % to {order.interval[1] * 100:+.1f} %)"
    said = f"order: {counts}; being second made {order.change * 100:+.1f} %{low_high}"
    if order.interval is None:
        return f"{said}, of too few pairs for an interval"
    if not order.real:
        return f"{said}, which may be nothing"
    return (
        f"{said}, which cancels" if order.balanced else f"{said}, which does not cancel: run as many of each"
    )


def _data(found: Pairing) -> dict[str, Any]:
    said = asdict(found)
    said["verdict"] = None if found.verdict is None else found.verdict.value
    said["difference"]["verdict"] = found.difference.verdict.value
    said["pairs"] = [{**asdict(pair), "ratio": pair.ratio} for pair in found.pairs]
    said["words"] = found.words
    return said


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    found = analyse(results)
    lines: list[str] = []
    for one in found:
        lines.append(f"{text.one_line(one.name)}: {text.one_line(one.figure)}")
        lines.append(f"  a: {text.one_line(one.a) or 'the group as it is'}")
        lines.append(f"  b: {text.one_line(one.b) or 'the group as it is'}")
        lines.append(f"  {one.words}; {one.smallest * 100:g} % matters")
        lines.append(f"  {order_words(one.order)}")
        lines += [f"  left out: {text.one_line(why)}" for why in one.left_out]
    return [_data(one) for one in found], "\n".join(lines) or "nothing was compared in this file", EXIT_PASS


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.paired results.h5 [--json]``."""
    return run("paired", "Two settings that were compared in one allocation, by pairs.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
