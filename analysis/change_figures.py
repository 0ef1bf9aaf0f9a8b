"""Figures of changes: each series with its interval between the lines of the smallest effect; a series over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from analysis import svg, text
from analysis.compare import Line
from analysis.difference import Smallest, amount
from analysis.figures import ticks
from harness.model.verdict import Verdict

MAXIMUM_ROWS = 40
WIDEST = 4.0  # a change beyond +400 % is drawn at the edge
_ROW = 21.0  # px
_COLOURS = {Verdict.FAIL: svg.FAIL, Verdict.PASS: svg.PASS, Verdict.WITHIN_NOISE: svg.MUTED, None: svg.MUTED}


def drawable(lines: Sequence[Line]) -> list[Line]:
    """Lines whose change is a ratio with an interval, at most as many as a figure holds."""
    fit = [x for x in lines if x.difference and x.difference.relative and x.difference.interval]
    return fit[:MAXIMUM_ROWS]


def changes(lines: Sequence[Line], smallest: Smallest) -> str:
    """One row a series: dot the estimate, bar the 95 % interval, shaded what is too small to matter."""
    found = [x.difference for x in lines if x.difference is not None and x.difference.interval is not None]
    low = [max(-1.0, d.interval[0]) for d in found if d.interval]
    high = [min(WIDEST, d.interval[1]) for d in found if d.interval]
    middle = [min(WIDEST, d.change or 0.0) for d in found]
    s = smallest.value if smallest.relative else 0.0
    size = (860.0, 70.0 + _ROW * len(found))
    plot = svg.Plot("Changes of B against A with their intervals", size, (300.0, 14.0, 20.0, 44.0))
    edge = 0.06 * max(*high, s) - 0.06 * min(*low, -s)
    label = "change of B against A with its 95 % interval; shaded: too small to matter"
    plot.x_axis(
        min(*low, -s) - edge,
        max(*high, s) + edge,
        lambda v: amount(v, True) if v else "0",
        label=label,
        grid=True,
    )
    plot.rows([f"{x.label} {x.name}" for x in lines], 46)
    if s:
        plot.shade(-s, s, svg.MUTED)
    plot.upright(0, svg.MUTED)
    for row, (line, d) in enumerate(zip(lines, found, strict=True)):
        colour = _COLOURS.get(line.verdict, svg.WARN)
        plot.box(low[row], high[row], row, 5, colour, f"{line.label} {line.name}: {d.said(line.unit)}", 1)
        plot.dots([middle[row]], [row], colour, 9)
    return plot.svg()


def over_time(
    title: str,
    unit: str,
    repeats: Sequence[Sequence[float]],
    expected: tuple[float, float] | None,
    changed: Sequence[int],
    runs: Sequence[str],
    worse: bool,
) -> str:
    """One series over the runs of a folder: rings are repeats, the line their medians, upright the change points.

    Args:
        repeats: figures of each run's repeats, empty where it has none.
        expected: where the last run's was expected, after the history.
        changed: runs at which another level begins.
        runs: name of each run.
        worse: whether the last run is called worse.
    """
    plot = svg.Plot(text.one_line(f"{title} over time", 120), (470.0, 240.0), (70.0, 16.0, 42.0, 30.0))
    finite = [[v for v in values if math.isfinite(v)] for values in repeats]
    every = [v for values in finite for v in values] + list(expected or ())
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    edge = 0.08 * (high - low) or abs(high) * 0.05 or 1.0
    number = len(repeats)
    at = sorted({0, number // 2, number - 1})
    plot.x_axis(-0.6, number - 0.4, lambda v: text.one_line(runs[int(v)], 16), [float(i) for i in at])
    plot.y_axis(low - edge, high + edge, ticks(unit))
    if expected is not None:
        plot.band([number - 1.4, number - 0.6], [expected[0]] * 2, [expected[1]] * 2, f"{svg.MUTED} wash")
    for run in changed:
        plot.upright(run - 0.5, f"{svg.WARN} dash")
    medians = [float(np.median(v)) if v else math.nan for v in finite]
    plot.line(range(number), medians, svg.SERIES[0])
    x = [run for run, values in enumerate(finite) for _ in values]
    plot.rings(x, [v for values in finite for v in values], svg.SERIES[0], 2.5)
    plot.dots([number - 1], [medians[-1]], svg.FAIL if worse else svg.SERIES[0], 8)
    return plot.svg()
