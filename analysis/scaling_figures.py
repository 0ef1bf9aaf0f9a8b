"""Figures of scaling: time, efficiency, and where the time of a step goes, each over node counts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from analysis import svg, text
from analysis.figures import MARGINS, SMALL, ticks
from analysis.models import STRONG, time_s
from analysis.scaling import Series

_LAWS = {"Universal Scalability": "USL"}  # short enough for a key


def _percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def _node_axis(plot: svg.Plot, nodes: Sequence[int], beyond: Sequence[int] = ()) -> None:
    """Node counts on a logarithmic axis; ``beyond`` are those that a law speaks of and nobody ran."""
    shown = sorted({*nodes, *beyond})
    plot.x_axis(
        shown[0] / 1.2,
        shown[-1] * 1.25,
        lambda v: f"{v:.0f}",
        [float(n) for n in shown],
        log=True,
        label="nodes",
    )


def _rings(plot: svg.Plot, series: Series, values: Sequence[Sequence[float]], css: str) -> None:
    """Single repeats as rings, at the nodes of each point."""
    xs = [p.nodes for p, each in zip(series.points, values, strict=True) for _ in each]
    plot.rings(xs, [v for each in values for v in each], css)


def time(series: Series) -> str:
    """Step time over node counts: rings are repeats, bars intervals, dashed ideal, dotted a law, beyond them too."""
    nodes = [p.nodes for p in series.points]
    medians = np.array([p.median_s for p in series.points])
    beyond = [p for p in series.predictions if p.outside and p.nodes > nodes[-1]]
    end = max([nodes[-1], *(p.nodes for p in beyond)])
    span = np.geomspace(nodes[0], end, 60) if end > nodes[0] else np.array(nodes, dtype=np.float64)
    ideal = medians[0] * nodes[0] / span if series.mode == STRONG else np.full(len(span), medians[0])
    told = [t for p in beyond for t in (p.time_s, *(p.run_interval_s or p.interval_s or ()))]
    every = [t for p in series.points for t in (*p.times_s, *(p.interval_s or ()))] + [
        t for t in told if t > 0
    ]
    plot = svg.Plot(f"{series.group}: step time over nodes, {series.mode} scaling", SMALL, MARGINS)
    _node_axis(plot, nodes, [p.nodes for p in beyond])
    label = "time of a step, slowest rank"
    if series.mode == STRONG:
        low = max(min(*every, float(ideal[-1])), max(every) / 1e4)
        plot.y_axis(low / 1.15, max(every) * 1.15, ticks("s"), log=True, label=label)
    else:
        plot.y_axis(0, max(every) * 1.2, ticks("s"), label=label)
    if beyond:
        plot.shade(nodes[-1] * 1.1, end * 1.25, svg.MUTED)
    plot.line(span, ideal, f"{svg.MUTED} dash")
    keys = [("median", svg.SERIES[0], "line"), ("ideal", svg.MUTED, "dash")]
    if series.best:
        fit = series.fit_named(series.best)
        plot.line(span, [time_s(fit, series.mode, float(p)) for p in span], f"{svg.SERIES[1]} dot")
        keys.insert(1, (_LAWS.get(series.best, series.best), svg.SERIES[1], "dots"))
    for p in beyond:
        for interval, css in ((p.run_interval_s, "range"), (p.interval_s, "bar")):
            if interval:
                plot.segments(
                    p.nodes, max(interval[0], plot.y.low), p.nodes, interval[1], f"{svg.SERIES[1]} {css}"
                )
        plot.dots([p.nodes], [p.time_s], svg.SERIES[1], 5)
    _rings(plot, series, [p.times_s for p in series.points], svg.SERIES[0])
    for point in series.points:
        if point.interval_s:
            plot.segments(
                point.nodes, point.interval_s[0], point.nodes, point.interval_s[1], f"{svg.SERIES[0]} bar"
            )
    plot.line(nodes, medians, svg.SERIES[0])
    plot.legend(keys)
    return plot.svg()


def efficiency(series: Series) -> str:
    """Efficiency over node counts against the base: rings are repeats, bars intervals, the line their median."""
    nodes = [p.nodes for p in series.points]
    each = [[p.efficiency * p.median_s / t for t in p.times_s] for p in series.points]
    highest = max(1.0, *itertools.chain.from_iterable(each))
    plot = svg.Plot(f"{series.group}: {series.mode} efficiency over nodes", SMALL, MARGINS)
    _node_axis(plot, nodes)
    label = f"{series.mode} efficiency, base {text.count(series.base_nodes, 'node')}"
    plot.y_axis(0, min(highest, 4.0) * 1.12, _percent, label=label)
    plot.line([nodes[0], nodes[-1]], [1, 1], f"{svg.MUTED} dash")
    _rings(plot, series, each, svg.SERIES[2])
    for p in series.points:
        if p.efficiency_interval:
            plot.segments(
                p.nodes, p.efficiency_interval[0], p.nodes, p.efficiency_interval[1], f"{svg.SERIES[2]} bar"
            )
    plot.line(nodes, [p.efficiency for p in series.points], svg.SERIES[2])
    for p in series.points if len(nodes) <= 8 else (series.points[0], series.points[-1]):
        last = p is series.points[-1] and len(nodes) > 1
        at = plot.x.at(p.nodes) + (6 if last else -6)
        plot.text(
            at,
            plot.y.at(p.efficiency) + 20,
            text.fine_percent(p.efficiency),
            "value end" if last else "value",
        )
    return plot.svg()


def parts(series: Series) -> str:
    """Where the time of a step goes, a bar for each node count; empty where it was not recorded."""
    told = [p for p in series.points if p.shares]
    if not told:
        return ""
    names = list(dict.fromkeys(name for p in told for name in p.shares or ()))
    plot = svg.Plot(
        f"{series.group}: where the time of a step goes",
        (SMALL[0], 66 + 26.0 * len(told) + 42),
        (76, 40, 18, 42),
    )
    plot.rows([text.count(p.nodes, "node") for p in told])
    # Medians of parts that change against each other may be more than the median of the whole.
    end = max(1.0, *(sum(share for share in (p.shares or {}).values() if share > 0) for p in told))
    plot.x_axis(
        0, end, _percent, [0, 0.25, 0.5, 0.75, 1.0], label="share of the time of the median step", grid=True
    )
    for row, p in enumerate(told):
        at = 0.0
        for name, share in (p.shares or {}).items():
            if share > 0:
                css = svg.MUTED if name == "rest" else svg.series_colour(names.index(name))
                plot.box(at, at + share, row, 16, f"{css} most", f"{name}: {text.percent(share)}", 0)
                at += share
    keys = [(n, svg.MUTED if n == "rest" else svg.series_colour(i), "area") for i, n in enumerate(names)]
    plot.legend([(n, f"{css} most", shape) for n, css, shape in keys])
    return plot.svg()
