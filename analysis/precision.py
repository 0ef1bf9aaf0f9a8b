"""How well a figure is known after its repeats, and whether more of them are needed.

A series is the figure of each repeat; it is known as well as the interval of its median over repeats is narrow, or of
the ratio within pairs where two settings are compared. Half the width, on the wider side, as a share of the figure,
is what `within` limits. Below 6 repeats there is no interval and nothing is decided.

Looking after each wave and stopping when the interval is narrow favours samples that happen to lie close together: of
normal noise, intervals of 95 % so found hold the truth 91.7 to 93.9 times in 100.
A figure of an emulated cluster decides how often it is repeated there, and judges nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis import designs, paired, text
from analysis.commandline import main as run
from analysis.difference import compare
from analysis.gates import is_performance
from analysis.resample import MINIMUM, interval
from analysis.results import CampaignResults
from harness.model.design import ENOUGH, MORE, NEVER, Comparison, Lot
from harness.model.metrics import NEITHER
from harness.model.verdict import EXIT_PASS


@dataclass(frozen=True)
class Series:
    """One series of a lot, or one ratio of two."""

    name: str
    unit: str  # "" for a ratio
    n: int  # repeats that have a figure
    estimate: float | None
    interval: tuple[float, float] | None
    half: float | None  # of the width, on the wider side, as a share of the figure
    why: str  # why there is no interval, or no share; and of repeats without a figure


@dataclass(frozen=True)
class Precision:
    """How well a lot is known."""

    lot: str
    group: str
    figure: str
    within: float
    level: float
    most: int
    series: tuple[Series, ...]
    node_hours: float  # of the lot's group
    node_hours_each: float  # of one more repeat of the lot, by those that ran
    max_node_hours: float | None
    stopped: str  # why no more repeats were run; "" where all were, or are still to be
    stamp: str

    @property
    def n(self) -> int:
        """Repeats of the series that has the fewest."""
        return min((one.n for one in self.series), default=0)

    @property
    def half(self) -> float | None:
        """Half the width of the widest interval; None where one has none."""
        halves = [one.half for one in self.series]
        return None if not halves or None in halves else max(h for h in halves if h is not None)

    @property
    def narrow(self) -> bool:
        """Whether every interval is as narrow as asked."""
        return self.half is not None and self.half <= self.within

    @property
    def words(self) -> str:
        """``interval ±1.4 % after 9 repeats``."""
        repeats = text.count(self.n, "repeat")
        stamp = f" ({self.stamp})" if self.stamp else ""
        if self.half is None:
            why = next((one.why for one in self.series if one.half is None), "no series")
            return f"no interval after {repeats}: {why}{stamp}"
        return f"interval ±{text.digits(self.half * 100, 2)} % after {repeats}{stamp}"


def measure(results: CampaignResults, lot: Lot) -> Precision:
    """How well a lot is known by what ran of it.

    Raises:
        StoreError: the samples are damaged.
    """
    own = {case_id for cases in lot.series.values() for case_id in cases}
    compared = [c for c in designs.comparisons(results) if own & {case_id for p in c.pairs for case_id in p}]
    if compared:
        series = tuple(_ratio(results, comparison, lot) for comparison in compared)
    else:
        series = tuple(_series(results, name, cases, lot) for name, cases in lot.series.items())
    ran = {row["case_id"] for row in results.attempts} & own
    repeats = max((len(ran & set(cases)) for cases in lot.series.values()), default=0)
    units = {one.unit for one in series} | (
        {"ns"} if compared else set()
    )  # a ratio is of what it is a ratio of
    return Precision(
        lot=lot.name,
        group=lot.group,
        figure=lot.question.words,
        within=lot.within,
        level=lot.level,
        most=lot.most,
        series=series,
        node_hours=designs.node_hours(results, lot.group),
        node_hours_each=designs.node_hours_of(results, own) / repeats if repeats else 0.0,
        max_node_hours=lot.max_node_hours,
        stopped=designs.stopped(results, lot),
        stamp=results.stamp if any(map(is_performance, units)) else "",
    )


def _series(results: CampaignResults, name: str, cases: Sequence[str], lot: Lot) -> Series:
    figures = [designs.figure(results, case_id, lot.question) for case_id in cases if results.case(case_id)]
    values = np.array([f.value for f in figures if f.value is not None], dtype=np.float64)
    ran = [f for f in figures if f.value is None and f.why != designs.NOT_RUN]
    unit = next((f.unit for f in figures if f.unit), "")
    missing = f"{text.count(len(ran), 'repeat')} without a figure: {ran[0].why}" if ran else ""
    estimate = float(np.median(values)) if len(values) else None
    if not np.all(np.isfinite(values)):
        return Series(name, unit, len(values), estimate, None, None, "a figure is not a finite number")
    found = interval(values, np.median, lot.level)
    if found is None or estimate is None:
        why = missing or f"{len(values)} of {MINIMUM} repeats that an interval needs"
        return Series(name, unit, len(values), estimate, None, None, why)
    wide = max(found[1] - estimate, estimate - found[0])
    if wide and not estimate:
        return Series(name, unit, len(values), estimate, found, None, "the figure is 0, which has no share")
    return Series(name, unit, len(values), estimate, found, wide / abs(estimate) if wide else 0.0, missing)


def _ratio(results: CampaignResults, comparison: Comparison, lot: Lot) -> Series:
    pairs, left_out, _ = paired.pairs_of(results, comparison, lot.question)
    name, n = f"{comparison.name}: b/a", len(pairs)
    a, b = (np.array([getattr(p, side) for p in pairs], dtype=np.float64) for side in ("a", "b"))
    found = compare(a, b, smallest=lot.within, direction=NEITHER, paired=True, level=lot.level)
    why = left_out[0] if left_out else found.why if found.interval is None else ""
    if found.ratio is None or found.interval is None:
        why = why or "figures that are not above 0 have no ratio"
        return Series(name, "", n, found.ratio, None, None, why)
    low, high = 1 + found.interval[0], 1 + found.interval[1]
    half = max(high - found.ratio, found.ratio - low) / found.ratio
    return Series(name, "", n, found.ratio, (low, high), half, why)


def decide(results: CampaignResults, lot: Lot) -> tuple[str, str]:
    """Whether a lot's next wave is needed: an answer of ``harness.model.design``, and why.

    Raises:
        StoreError: the samples are damaged.
    """
    found = measure(results, lot)
    if found.narrow:
        return ENOUGH, found.words
    ran = {row["case_id"] for row in results.attempts if row["outcome"] == "completed"}
    whole = [sum(case_id in ran for case_id in cases) for cases in lot.series.values()]
    if whole and min(whole) >= MINIMUM and not found.n:
        return NEVER, f"no repeat has a figure {found.figure}: {found.series[0].why}"
    if lot.max_node_hours is not None:
        more = found.node_hours_each * lot.step
        if found.node_hours + more > lot.max_node_hours:
            spent = f"{text.digits(found.node_hours)} of {lot.max_node_hours:g} node-hours"
            asked = f"±{lot.within * 100:g} % was asked"
            each = f"{text.count(lot.step, 'more repeat')} would take about {text.digits(more)}"
            return ENOUGH, f"the budget is spent ({spent}, and {each}), {found.words}, {asked}"
    return MORE, found.words


def analyse(results: CampaignResults) -> tuple[Precision, ...]:
    """Every lot of the file.

    Raises:
        StoreError: the samples are damaged.
    """
    return tuple(measure(results, lot) for lot in designs.lots(results))


def reached(found: Precision) -> str:
    """Whether a lot is known as well as was asked, for people."""
    asked = f"asked ±{found.within * 100:g} % at {found.level * 100:g} %"
    if found.narrow:
        return f"{asked}: reached"
    if found.stopped or found.n >= found.most:
        return f"{asked}: not reached"
    return f"{asked}: not reached yet"


def _row(found: Precision, one: Series) -> tuple[object, ...]:
    if one.estimate is None:
        estimate = "none"
    else:
        estimate = text.quantity(one.estimate, one.unit) if one.unit else text.digits(one.estimate)
    half = (
        f"±{text.digits(one.half * 100, 2)} %"
        if one.half is not None
        else f"none: {text.one_line(one.why, 120)}"
    )
    return text.one_line(one.name), f"{one.n} of {found.most}", estimate, half


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    found = analyse(results)
    lines: list[str] = []
    for one in found:
        rows = [_row(one, series) for series in one.series]
        lines.append(f"{text.one_line(one.lot)}: {text.one_line(one.figure)}, {reached(one)}")
        lines.append(text.columns(("series", "repeats", "figure", "interval"), rows, left=(0, 3)))
        budget = f" of {one.max_node_hours:g}" if one.max_node_hours is not None else ""
        lines.append(f"{text.digits(one.node_hours)}{budget} node-hours in group {text.one_line(one.group)}")
        if one.stopped:
            lines.append(f"no more were needed: {text.one_line(one.stopped)}")
        if one.stamp:
            lines.append(f"{one.stamp}: how well it is known there, and nothing else")
    data = [{**asdict(one), "narrow": one.narrow, "words": one.words} for one in found]
    return data, "\n".join(lines) or "every number of repeats was fixed in this file", EXIT_PASS


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.precision results.h5 [--json]``."""
    return run("precision", "How well figures are known that are repeated until they are.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
