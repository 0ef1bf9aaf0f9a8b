"""Figures over many faults: times by recovery policy side by side, and throughput over time with faults shaded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis import joblevel, svg
from analysis.figures import ticks
from analysis.recovery import Recovery
from analysis.results import CampaignResults, Row
from analysis.series import Floats
from analysis.timelines import WIDE, gutter
from harness.model.fault import RECOVERED

BINS = 240
MAXIMUM_CASES = 6
MAXIMUM_MARKS = 400  # faults in one figure of throughput

_SHOWN = (
    ("detection_s", "to its detection"),
    ("time_to_restart_s", "to the first new step"),
    ("time_to_recover_s", "to past the step reached before"),
)


def by_policy(found: Sequence[Recovery]) -> str:
    """Times from the fault, a row each policy and figure: a dot each fault, the median a tick, the p95 a ring.

    As in the tables, only faults that were observed and had to be recovered from.
    """
    counted = [r for r in found if r.observed and r.expect == RECOVERED]
    rows: list[tuple[str, str, Floats]] = []
    for policy in sorted({r.policy for r in counted}):
        for figure, words in _SHOWN:
            values = [getattr(r, figure) for r in counted if r.policy == policy]
            known = np.array([v for v in values if v is not None and v > 0])
            if len(known):
                rows.append((policy, words, known))
    if not rows:
        return ""
    policies = sorted({policy for policy, _, _ in rows})

    labels = [f"{policy}: {words}" for policy, words, _ in rows]
    left = gutter(labels, 60)
    plot = svg.Plot("Times by recovery policy", (WIDE, 30 + 30.0 * len(rows) + 44), (left, 16, 20, 44))
    everything = np.concatenate([values for _, _, values in rows])
    low, high = float(everything.min()) / 1.3, float(everything.max()) * 1.3
    plot.rows(labels, 60)
    plot.x_axis(
        low,
        high,
        ticks("s"),
        log=True,
        grid=True,
        label="time after the fault; tick: median, ring: 95th percentile",
    )
    for y, (policy, _, times) in enumerate(rows):
        css = svg.series_colour(policies.index(policy))
        some = times[:: max(1, -(-len(times) // MAXIMUM_MARKS))]
        spread = np.random.default_rng(y).uniform(-0.24, 0.24, len(some))
        plot.dots(some, y + spread, f"{css} soft", 5)
        median, p95 = np.percentile(times, [50, 95])
        plot.segments(median, y - 0.36, median, y + 0.36, f"{svg.INK} strong")
        plot.rings([p95], [y], svg.INK, 4.5)
    return plot.svg()


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

    seconds = (ends - begin) / 1e9
    everything = np.histogram(seconds, edges)[0] / width
    useful = np.histogram(seconds[new], edges)[0] / width
    plot = svg.Plot(
        f"{case['label']}: steps in a second over time, faults shaded", (WIDE, 220), (58, 34, 16, 42)
    )
    plot.x_axis(0, float(edges[-1]), lambda v: f"{v:.4g}", svg.linear_ticks(0, float(edges[-1]), 10),
                label="seconds since the first step")  # fmt: skip
    plot.y_axis(0, float(everything.max()) * 1.05 or 1.0, lambda v: f"{v:.4g}", label="steps/s")
    for r in mine[:MAXIMUM_MARKS]:
        _shade(plot, r, begin, float(edges[-1]))
    plot.histogram(edges, everything, f"{svg.WARN} pale")
    plot.histogram(edges, useful, f"{svg.SERIES[0]} most")
    for r in mine[:MAXIMUM_MARKS]:
        plot.upright(
            (r.stamp(r.origin).wall_ns - begin) / 1e9,
            f"{svg.FAIL if r.expect != 'unharmed' else svg.MUTED} thin",
        )
    plot.legend([("new steps", f"{svg.SERIES[0]} most", "area"), ("done again", f"{svg.WARN} pale", "area")])
    return plot.svg()


def _shade(plot: svg.Plot, r: Recovery, begin: int, end_s: float) -> None:
    """A shade from a fault until it had recovered, or until the end where it never did."""
    at = (r.stamp(r.origin).wall_ns - begin) / 1e9
    recovered = r.stamp("t8")
    if r.expect == RECOVERED and r.observed:
        until = (recovered.wall_ns - begin) / 1e9 if recovered.after_s is not None else end_s
        plot.shade(at, max(until, at), svg.FAIL)
