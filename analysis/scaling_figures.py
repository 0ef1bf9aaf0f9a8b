"""Figures of scaling: time, efficiency, and where the time of a step goes, each over node counts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from analysis import labels, svg, text
from analysis.figures import MARGINS, SMALL, ticks
from analysis.models import STRONG, time_s
from analysis.scaling import Series

_LAWS = {"Universal Scalability": "USL"}  # short enough for a key
_WIDE = 10.0  # times whose ratio is larger need a logarithmic axis
_SAID = 0.12  # a share as large as this has room for its figure, on a phone too
_MOST = 4.0  # a single repeat whose efficiency is above is not drawn, where no median is


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
    if series.mode == STRONG or max(every) > _WIDE * min(every):
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
    most = max(_MOST, *(p.efficiency for p in series.points))
    each = [[e for t in p.times_s if (e := p.efficiency * p.median_s / t) <= most] for p in series.points]
    highest = max(1.0, *(p.efficiency for p in series.points), *itertools.chain.from_iterable(each))
    plot = svg.Plot(f"{series.group}: {series.mode} efficiency over nodes", SMALL, MARGINS)
    _node_axis(plot, nodes)
    label = f"{series.mode} efficiency, base {text.count(series.base_nodes, 'node')}"
    plot.y_axis(0, highest * 1.12, _percent, label=label)
    plot.line([nodes[0], nodes[-1]], [1, 1], f"{svg.MUTED} dash")
    _rings(plot, series, each, svg.SERIES[2])
    for p in series.points:
        if p.efficiency_interval:
            plot.segments(
                p.nodes, p.efficiency_interval[0], p.nodes, p.efficiency_interval[1], f"{svg.SERIES[2]} bar"
            )
    plot.line(nodes, [p.efficiency for p in series.points], svg.SERIES[2])
    for box, words in efficiency_labels(plot, series, each):
        plot.text(box[0], box[3] - 2.5, words, "value")
    return plot.svg()


def efficiency_labels(
    plot: svg.Plot, series: Series, each: Sequence[Sequence[float]]
) -> list[tuple[labels.Box, str]]:
    """The value of each point and where it stands beside it, where there is room; ends first, for they tell most."""
    points = series.points
    lines = [labels.along([(plot.x.at(p.nodes), plot.y.at(p.efficiency)) for p in points])]
    lines.append(labels.along([(plot.left, plot.y.at(1)), (plot.right, plot.y.at(1))]))
    for p, values in zip(points, each, strict=True):
        x = plot.x.at(p.nodes)
        lines.append(labels.around([(x, plot.y.at(v)) for v in values], 5))
        lines.append(labels.along([(x, plot.y.at(v)) for v in p.efficiency_interval or ()], 2))
    taken = list(itertools.chain.from_iterable(lines))
    bounds = (plot.left + 2, plot.top - 4, plot.right + 14, plot.bottom - 1)
    found = []
    for p in sorted(points, key=lambda p: p not in (points[0], points[-1])):
        words = text.fine_percent(p.efficiency)
        mark = (plot.x.at(p.nodes), plot.y.at(p.efficiency))
        box = labels.place(mark, svg.width(words, labels.HEIGHT), taken, bounds)
        if box is not None:
            taken.append(box)
            found.append((box, words))
    return found


def parts(series: Series) -> str:
    """Where the time of a step goes, a bar for each node count, as HTML, for a bar may be as wide as its page.

    Empty where it was not recorded.
    """
    told = [p for p in series.points if p.shares]
    if not told:
        return ""
    names = list(dict.fromkeys(name for p in told for name in p.shares or ()))
    colours = {n: svg.MUTED if n == "rest" else svg.series_colour(i) for i, n in enumerate(names)}
    keys = "".join(f'<li class="{colours[n]}"><i></i>{svg.escape(n)}</li>' for n in names)
    rows = "".join(
        f"<div><span>{text.count(p.nodes, 'node')}</span><p>{_bar(p.shares or {}, colours)}</p></div>"
        for p in told
    )
    caption = "<figcaption>where the time of the median step goes, a bar for each node count</figcaption>"
    return f'{caption}<div class="shares">{rows}<ul class="keys">{keys}</ul></div>'


def _bar(shares: Mapping[str, float], colours: Mapping[str, str]) -> str:
    """Shares beside each other, each with its figure where there is room for it."""
    return "".join(
        f'<i class="{colours[name]}" style="flex:{share:.4f}" title="{svg.escape(name)}: {text.percent(share)}">'
        f"{_percent(share) if share >= _SAID else ''}</i>"
        for name, share in shares.items()
        if share > 0
    )
