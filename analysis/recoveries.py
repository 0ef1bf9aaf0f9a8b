"""Figures over many faults: times by recovery policy side by side, and throughput over time with faults shaded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from analysis import joblevel, svg
from analysis.figures import label, ticks
from analysis.load import CampaignResults, Row
from analysis.recovery import Recovery
from analysis.series import Floats

BINS = 240
MAXIMUM_CASES = 6
MAXIMUM_MARKS = 400  # faults in one figure of throughput

_SHOWN = (
    ("detection_s", "to its detection"),
    ("time_to_restart_s", "to the first new step"),
    ("time_to_recover_s", "to past the step reached before"),
)


def by_policy(found: Sequence[Recovery]) -> str:
    """Times from the fault, a row each policy and figure: a dot each fault, the median a tick, the p95 a ring."""
    rows: list[tuple[str, str, Floats]] = []
    for policy in sorted({r.policy for r in found}):
        for figure, words in _SHOWN:
            values = [getattr(r, figure) for r in found if r.policy == policy and r.observed]
            known = np.array([v for v in values if v is not None and v > 0])
            if len(known):
                rows.append((policy, words, known))
    if not rows:
        return ""
    policies = sorted({policy for policy, _, _ in rows})

    def plot(figure: Figure) -> None:
        axes = svg.axes(figure)
        for y, (policy, _, values) in enumerate(rows):
            colour = svg.series_colour(policies.index(policy))
            spread = np.random.default_rng(y).uniform(-0.22, 0.22, len(values))
            dots = svg.Segments()
            for value, offset in zip(values.tolist(), spread.tolist(), strict=True):
                dots.add(value, y + offset, value, y + offset)
            dots.plot(axes, color=colour, linewidth=3.2, alpha=0.5, solid_capstyle="round")
            median, p95 = np.percentile(values, [50, 95])
            axes.plot([median, median], [y - 0.36, y + 0.36], color=svg.INK, linewidth=1.8)
            axes.plot([p95], [y], "o", color=svg.INK, markerfacecolor="none", markersize=6)
        axes.set_yticks(range(len(rows)), [label(f"{policy}: {words}", 60) for policy, words, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ticks("s"))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("time after the fault; tick: median, ring: 95th percentile")

    return svg.draw("Times by recovery policy", 9.5, 0.9 + 0.33 * len(rows), plot)


def chosen(results: CampaignResults, found: Sequence[Recovery]) -> list[Row]:
    """The cases whose throughput is drawn: those with most faults, in the file's order."""
    number: dict[str, int] = {}
    for r in found:
        number[r.case_id] = number.get(r.case_id, 0) + 1
    most = sorted(number, key=lambda case_id: -number[case_id])[:MAXIMUM_CASES]
    return [case for case in results.cases if case["case_id"] in most]


def throughput(results: CampaignResults, case: Row, found: Sequence[Recovery]) -> str:
    """Steps in a second over a case's time, steps done again apart; each fault shaded until it had recovered.

    Raises:
        StoreError: the samples are damaged.
    """
    steps = [s for s in joblevel.of_case(results, case) if len(s.step)]
    mine = [r for r in found if r.case_id == case["case_id"] and r.stamp(r.origin).wall_ns > 0]
    if not steps:
        return ""
    begin = min(int(s.begin_ns[0]) for s in steps)
    end = max(int(s.end_ns[-1]) for s in steps)
    if end <= begin:
        return ""
    final = {int(step): s.attempt for s in sorted(steps, key=lambda s: s.attempt) for step in s.step}
    ends = np.concatenate([s.end_ns for s in steps])
    new = np.concatenate([[final[int(x)] == s.attempt for x in s.step] for s in steps]).astype(bool)
    bins = int(min(BINS, max(20, len(ends) // 4)))
    edges = np.linspace(0, (end - begin) / 1e9, bins + 1)
    width = edges[1] - edges[0]

    def plot(figure: Figure) -> None:
        axes = svg.axes(figure)
        seconds = (ends - begin) / 1e9
        everything = np.histogram(seconds, edges)[0] / width
        useful = np.histogram(seconds[new], edges)[0] / width
        axes.fill_between(
            edges[:-1], everything, step="post", color=svg.WARN, alpha=0.35, linewidth=0, label="done again"
        )
        axes.fill_between(
            edges[:-1], useful, step="post", color=svg.SERIES[0], alpha=0.75, linewidth=0, label="new steps"
        )
        for r in mine[:MAXIMUM_MARKS]:
            _shade(axes, r, begin, edges[-1])
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("seconds since the first step")
        axes.set_ylabel("steps/s")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, handlelength=1.2)

    return svg.draw(f"{case['label']}: steps in a second over time, faults shaded", 11.0, 2.1, plot)


def _shade(axes: Axes, r: Recovery, begin: int, end_s: float) -> None:
    """One fault: a line at its begin, and a shade until it had recovered, or until the end where it never did."""
    at = (r.stamp(r.origin).wall_ns - begin) / 1e9
    recovered = r.stamp("t8")
    if r.expect == "recovered" and r.observed:
        until = (recovered.wall_ns - begin) / 1e9 if recovered.after_s is not None else end_s
        axes.axvspan(at, max(until, at), color=svg.FAIL, alpha=0.12, linewidth=0)
    axes.axvline(at, color=svg.FAIL if r.expect != "unharmed" else svg.MUTED, linewidth=0.9)
