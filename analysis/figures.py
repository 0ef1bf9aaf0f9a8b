"""Figures of measurements, each an ``<svg>`` element: raw points first, summaries on top of them.

Labels come from the results file and are hostile: matplotlib escapes them, mathematics in them is off, and
control characters are replaced. A figure that would be too large shows its first rows; the report says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullLocator,
)

from analysis import svg, text
from analysis.collectives import Measurement
from analysis.load import CampaignResults, Row
from analysis.models import STRONG, time_s
from analysis.scaling import Series, step_times_s
from analysis.series import Floats, Summary

SMALL = (4.7, 3.1)  # inches; two beside each other on a desk, one on a phone
MAXIMUM_CASES = 40
MAXIMUM_DOTS = 1600  # in one figure of step times


def label(value: object, limit: int = 40) -> str:
    """A name from the results file, short enough for an axis."""
    return text.one_line(value, limit)


def _node_axis(axes: Axes, nodes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(nodes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.set_xlim(min(nodes) / 1.25, max(nodes) * 1.25)
    axes.set_xlabel("nodes")


def _short(words: str) -> str:
    """A tick's words without zeros that say nothing: ``1.50 ms`` is ``1.5 ms``."""
    return re.sub(r"\.0+(?= )|(?<=\.\d)0+(?= )", "", words)


def ticks(unit: str) -> FuncFormatter:
    """Tick labels for values of a metric's unit."""
    return FuncFormatter(lambda value, _: "0" if value == 0 else _short(text.quantity(value, unit)))


def byte_ticks(axis: Axis, most: float) -> None:
    """Ticks at powers of two, for bytes from 0 to ``most``."""
    step = 2.0 ** math.ceil(math.log2(max(most, 1.0) / 4))
    axis.set_major_locator(MultipleLocator(step))
    axis.set_major_formatter(ticks("B"))


def _log_ticks(axis: Axis, low: float, high: float, words: FuncFormatter) -> None:
    """Few ticks with words on a logarithmic axis, more inside a decade than over several."""
    decades = math.log10(high / low) if high > low > 0 else 0
    subs = (1, 1.5, 2, 3, 4, 5, 7) if decades < 0.8 else (1, 2, 5) if decades < 2 else (1,)
    axis.set_major_locator(LogLocator(base=10, subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(words)


_PERCENT = FuncFormatter(lambda value, _: f"{value * 100:.0f} %")


# --- scaling ----------------------------------------------------------------------------------------------


def scaling_time(series: Series) -> str:
    """Step time over node counts: rings are repeats, the line their median, dashed ideal, dotted a law."""

    def plot(figure: Figure) -> None:
        axes = svg.axes(figure)
        nodes = [p.nodes for p in series.points]
        medians = np.array([p.median_s for p in series.points])
        span = np.geomspace(nodes[0], nodes[-1], 60)
        ideal = medians[0] * nodes[0] / span if series.mode == STRONG else np.full(60, medians[0])
        axes.plot(span, ideal, "--", color=svg.MUTED, linewidth=1.1, label="ideal")
        if series.best:
            fit = series.fit_named(series.best)
            curve = [time_s(fit, series.mode, float(p)) for p in span]
            axes.plot(span, curve, ":", color=svg.SERIES[1], linewidth=1.8, label=series.best)
        axes.plot(nodes, medians, color=svg.SERIES[0], label="median of repeats")
        for p in series.points:
            axes.plot(
                [p.nodes] * len(p.times_s),
                p.times_s,
                "o",
                markersize=5.5,
                markerfacecolor="none",
                markeredgecolor=svg.SERIES[0],
                markeredgewidth=1.1,
            )
        _node_axis(axes, nodes)
        every = [t for p in series.points for t in p.times_s]
        if series.mode == STRONG:
            axes.set_yscale("log")
            _log_ticks(axes.yaxis, min(*every, float(ideal[-1])), max(every), ticks("s"))
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_formatter(ticks("s"))
            axes.set_ylim(0, max(every) * 1.25)
        axes.set_ylabel("time of a step, slowest rank")
        axes.legend(loc="best")

    return svg.draw(f"{series.group}: step time over nodes, {series.mode} scaling", *SMALL, plot)


def scaling_efficiency(series: Series) -> str:
    """Efficiency over node counts against the base: rings are repeats, the line their median, dashed ideal."""

    def plot(figure: Figure) -> None:
        axes = svg.axes(figure)
        nodes = [p.nodes for p in series.points]
        axes.axhline(1, color=svg.MUTED, linestyle="--", linewidth=1.1)
        axes.plot(nodes, [p.efficiency for p in series.points], color=svg.SERIES[2])
        highest = 1.0
        for p in series.points:
            each = [p.efficiency * p.median_s / t for t in p.times_s]
            highest = max(highest, *each)
            axes.plot(
                [p.nodes] * len(each),
                each,
                "o",
                markersize=5.5,
                markerfacecolor="none",
                markeredgecolor=svg.SERIES[2],
                markeredgewidth=1.1,
            )
            axes.annotate(
                text.percent(p.efficiency),
                (p.nodes, p.efficiency),
                xytext=(8, 5),
                fontsize=8.5,
                textcoords="offset points",
                color=svg.INK,
            )
        _node_axis(axes, nodes)
        axes.set_xlim(right=nodes[-1] * (nodes[-1] / nodes[0]) ** 0.22 * 1.1)  # room for the last label
        axes.set_ylim(0, highest * 1.12)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.set_ylabel(f"{series.mode} efficiency, base {text.count(series.base_nodes, 'node')}")

    return svg.draw(f"{series.group}: {series.mode} efficiency over nodes", *SMALL, plot)


# --- collectives ------------------------------------------------------------------------------------------


def _sized(
    figure: Figure, measured: Sequence[tuple[int, int, Summary]], counts: Sequence[int], unit: str, words: str
) -> None:
    """Summaries over message size, both logarithmic: ``(nodes, size, summary)``, a colour for each node count."""
    axes = svg.axes(figure)
    sizes = sorted({size for _, size, _ in measured})
    for nodes in sorted({nodes for nodes, _, _ in measured}):
        colour = svg.series_colour(counts.index(nodes))
        middle: list[tuple[int, float]] = []
        for size in sizes:
            found = [summary for n, s, summary in measured if (n, s) == (nodes, size)]
            for offset, summary in enumerate(found):
                x = size * 1.06 ** (offset - (len(found) - 1) / 2)
                axes.plot([x, x], [summary.low, summary.high], color=colour, linewidth=1, alpha=0.45)
                axes.plot([x], [summary.median], "o", markersize=4, color=colour)
            if found:
                middle.append((size, float(np.median([summary.median for summary in found]))))
        axes.plot(*zip(*middle, strict=True), color=colour, label=text.count(nodes, "node"))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ticks("B"))
    axes.tick_params(axis="x", labelrotation=30 if len(sizes) > 6 else 0)
    axes.set_yscale("log")
    low, high = min(m.low for _, _, m in measured), max(m.high for _, _, m in measured)
    _log_ticks(axes.yaxis, low, high, ticks(unit))
    axes.set_xlabel("message size")
    axes.set_ylabel(words)
    axes.legend(loc="best")


def collective_bandwidth(measurements: Sequence[Measurement], operation: str) -> str:
    """Bus bandwidth over size: a dot each case, with the range of its iterations; a line each node count."""
    mine = [m for m in measurements if m.operation == operation]
    counts = sorted({m.nodes for m in mine})
    found = [
        (m.nodes, m.message_bytes, bus) for m in mine if (bus := m.bus_bandwidth_bytes_per_s) is not None
    ]
    if not found:
        return ""
    title = f"{operation}: bus bandwidth over message size"
    return svg.draw(title, *SMALL, lambda figure: _sized(figure, found, counts, "B/s", "bus bandwidth"))


def collective_time(measurements: Sequence[Measurement], operation: str) -> str:
    """Time of an iteration over size, one rank included; drawn as ``collective_bandwidth``."""
    mine = [m for m in measurements if m.operation == operation]
    counts = sorted({m.nodes for m in mine})
    found = [(m.nodes, m.message_bytes, m.time_s) for m in mine]
    title = f"{operation}: time of an iteration over message size"
    return svg.draw(title, *SMALL, lambda figure: _sized(figure, found, counts, "s", "time, slowest rank"))


# --- step times ------------------------------------------------------------------------------------------


def step_times(results: CampaignResults, cases: Sequence[Row]) -> str:
    """Judged step times, a row for each case: dots, 5 to 95 % thin, quartiles thick, the median a tick."""
    shown = [(case, times) for case in cases if len(times := step_times_s(results, case))][:MAXIMUM_CASES]
    if not shown:
        return ""
    counts = sorted({case["nodes"] for case, _ in shown})

    def plot(figure: Figure) -> None:
        axes = svg.axes(figure)
        for number, nodes in enumerate(counts):
            rows = [(row, times) for row, (case, times) in enumerate(shown) if case["nodes"] == nodes]
            _distributions(axes, rows, len(shown), svg.series_colour(number))
        axes.set_yticks(range(len(shown)), [label(case["label"], 32) for case, _ in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        low, high = min(float(t.min()) for _, t in shown), max(float(t.max()) for _, t in shown)
        if low > 0 and high / low > 8:
            axes.set_xscale("log")
            _log_ticks(axes.xaxis, low, high, ticks("s"))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(ticks("s"))
        axes.set_xlabel("time of a step, slowest rank, warm-up left out")

    return svg.draw("Step times of each case", 5.6, 0.75 + 0.25 * len(shown), plot)


def _distributions(axes: Axes, rows: Sequence[tuple[int, Floats]], shown: int, colour: str) -> None:
    """Rows of one colour, of ``shown`` in all; one path for each kind of mark, so that files stay small."""
    dots, thin, thick, middle = svg.Segments(), svg.Segments(), svg.Segments(), svg.Segments()
    room = max(1, MAXIMUM_DOTS // shown)
    for row, times in rows:
        spread = np.random.default_rng(row).uniform(-0.24, 0.24, len(times))
        for i in range(0, len(times), max(1, math.ceil(len(times) / room))):
            dots.add(times[i], row + spread[i], times[i], row + spread[i])
        low, first, median, third, high = np.percentile(times, [5, 25, 50, 75, 95])
        thin.add(low, row, high, row)
        thick.add(first, row, third, row)
        middle.add(median, row - 0.33, median, row + 0.33)
    dots.plot(axes, color=colour, linewidth=1.9, alpha=0.45, solid_capstyle="round")
    thin.plot(axes, color=colour, linewidth=1.2)
    thick.plot(axes, color=colour, linewidth=4.5, solid_capstyle="butt")
    middle.plot(axes, color=svg.INK, linewidth=1.5)
