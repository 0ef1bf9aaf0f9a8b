"""Figures of collectives: bus bandwidth and time over message size, a line a series, and what the site expects."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis import svg, text
from analysis.collectives import bus_factor
from analysis.curves import Curve
from analysis.expected import Compared
from analysis.figures import MARGINS, SMALL, ticks
from analysis.resample import Interval

MAXIMUM_LINES = 16  # curves in one figure
_LABELLED = 4  # expected figures that have words beside them
_ROW = 17.0  # px, of the legend
_SHAPES = ("line", "dash")  # of the first eight curves, and of the next


@dataclass(frozen=True)
class _Place:
    """One size of a curve: its value, that of each repeat, and its interval."""

    message_bytes: int
    value: float
    repeats: tuple[float, ...]
    interval: Interval | None


@dataclass(frozen=True)
class _Mark:
    """An expected figure: at one size, or at the smallest or largest ones."""

    series: int
    value: float
    size: int | None
    large: bool  # without a size: whether it is of the largest


Marks = Callable[[Compared], "tuple[float, bool] | None"]


def bandwidth(curves: Sequence[Curve], operation: str, expected: Sequence[Compared] = ()) -> str:
    """Bus bandwidth over size; empty where nothing is sent."""
    drawn: list[list[_Place]] = []
    for curve in curves[:MAXIMUM_LINES]:
        drawn.append([])
        for place in curve.places:
            bus = place.bus_bandwidth_bytes_per_s
            if bus is not None:
                each = tuple(bus * place.median_s / t for t in place.times_s)
                drawn[-1].append(_Place(place.message_bytes, bus, each, place.bus_bandwidth_interval))

    def mark(c: Compared) -> tuple[float, bool] | None:
        if c.figure == "bus_bandwidth_bytes_per_s":
            return c.expected, False
        if c.figure in ("algorithm_bandwidth_bytes_per_s", "asymptotic_bandwidth_bytes_per_s"):
            return c.expected * bus_factor(c.operation, c.ranks), c.message_bytes is None
        return None

    return _sized(f"{operation}: bus bandwidth", curves, drawn, _marks(curves, expected, mark), "B/s")


def time(curves: Sequence[Curve], operation: str, expected: Sequence[Compared] = ()) -> str:
    """Time of an iteration over size, one rank included."""
    drawn = [
        [
            _Place(p.message_bytes, p.median_s, p.times_s, p.interval_s)
            for p in c.places
            if p.message_bytes > 0
        ]
        for c in curves[:MAXIMUM_LINES]
    ]

    def mark(c: Compared) -> tuple[float, bool] | None:
        if c.figure == "time_s":
            return c.expected / 1e9, False
        return (c.expected, False) if c.figure == "latency_s" else None

    return _sized(f"{operation}: time, slowest rank", curves, drawn, _marks(curves, expected, mark), "s")


def names(curves: Sequence[Curve]) -> list[str]:
    """What tells the curves of one operation apart: workload and nodes, and where that is not enough group and axes."""
    found = [f"{c.workload}, {text.count(c.nodes, 'node')}" for c in curves]
    for more in (lambda c: c.group, lambda c: text.count(c.ranks, "rank"), _axes):
        known = Counter(found)
        found = [
            f"{name}, {words}" if known[name] > 1 and (words := more(curve)) else name
            for name, curve in zip(found, curves, strict=True)
        ]
    return [text.one_line(name, 60) for name in found]


def _axes(curve: Curve) -> str:
    try:
        cell = json.loads(curve.cell)
        return ", ".join(str(v) for k, v in sorted(cell.items()) if k not in ("nodes", "operation"))
    except (ValueError, AttributeError):
        return ""


def _marks(curves: Sequence[Curve], expected: Sequence[Compared], mark: Marks) -> list[_Mark]:
    """Expected figures of curves that are drawn, once each."""
    keys = [(c.group, c.workload, c.nodes, c.ranks, c.params) for c in curves[:MAXIMUM_LINES]]
    found = []
    for c in expected:
        key, said = (c.group, c.workload, c.nodes, c.ranks, c.params), mark(c)
        if said is not None and key in keys:
            found.append(_Mark(keys.index(key), said[0], c.message_bytes, said[1]))
    return list(dict.fromkeys(found))


def _colour(number: int) -> str:
    return svg.series_colour(number)


def _shape(number: int) -> str:
    return _SHAPES[number // len(svg.SERIES) % len(_SHAPES)]


def _sized(
    label: str, curves: Sequence[Curve], drawn: Sequence[list[_Place]], marks: Sequence[_Mark], unit: str
) -> str:
    """Values over message size, both logarithmic: rings are repeats, bars intervals; empty where there are none."""
    everything = [p for places in drawn for p in places if p.message_bytes > 0]
    if not everything:
        return ""
    sizes = sorted({p.message_bytes for p in everything})
    values = [v for p in everything for v in (p.value, *p.repeats, *(p.interval or ())) if v > 0]
    values += [m.value for m in marks]
    keys = [
        (name, _colour(n), _shape(n))
        for n, (name, places) in enumerate(zip(names(curves), drawn, strict=False))
        if places
    ]
    rows = _rows([*keys, *([("expected", svg.INK, "dash")] if marks else [])])
    left, top, right, bottom = MARGINS
    more = _ROW * len(rows)  # above the words of the axis
    size = (SMALL[0], SMALL[1] + more)
    plot = svg.Plot(f"{label}, over message size", size, (left, top + more, right, bottom))
    room = (sizes[-1] / sizes[0]) ** 0.04 * 1.1
    plot.x_axis(
        sizes[0] / room, sizes[-1] * room, ticks("B"), _some(sizes, 7), log=True, label="message size"
    )
    plot.y_axis(min(values) / 1.15, max(values) * 1.15, ticks(unit), log=True, label=label)
    for number, places in enumerate(drawn):
        _draw(plot, places, _colour(number), "" if _shape(number) == "line" else " dash")
    for number, mark in enumerate(marks):
        _draw_mark(plot, mark, (sizes[0], sizes[-1]), unit if number < _LABELLED else "")
    for number, row in enumerate(reversed(rows)):
        plot.legend(row, up=_ROW * (number + 1) - 4)
    return plot.svg()


def _draw(plot: svg.Plot, places: Sequence[_Place], css: str, style: str) -> None:
    bars = [p for p in places if p.interval]
    plot.segments(
        [p.message_bytes for p in bars], [p.interval[0] for p in bars if p.interval],
        [p.message_bytes for p in bars], [p.interval[1] for p in bars if p.interval], f"{css} bar",
    )  # fmt: skip
    plot.line([p.message_bytes for p in places], [p.value for p in places], css + style)
    plot.rings(
        [p.message_bytes for p in places for _ in p.repeats], [v for p in places for v in p.repeats], css, 2.5
    )


def _draw_mark(plot: svg.Plot, mark: _Mark, ends: tuple[int, int], unit: str) -> None:
    """A dashed piece of a line in the colour of its series, where it is to be reached; words with a ``unit``."""
    low, high = plot.x.low, plot.x.high
    span = high / low
    place, kind = "mid", ""
    if mark.size is not None:
        begin, end = max(mark.size / span**0.07, low), min(mark.size * span**0.07, high)
    elif mark.large:
        begin, end, place, kind = ends[1] / span**0.35, high, "end", "for large sizes "
    else:
        begin, end, place, kind = low, ends[0] * span**0.35, "", "latency "
    css = _colour(mark.series)
    plot.segments(begin, mark.value, end, mark.value, f"{css} strong dash")
    if unit:
        words = f"expected {kind}{ticks(unit)(mark.value)}"
        half = svg.width(words, 10.5) / 2
        at = {"mid": (begin * end) ** 0.5, "end": end, "": begin}[place]
        x = plot.x.at(at)
        if place == "mid":
            x = min(max(x, plot.left + half), plot.right - half)
        plot.text(x, plot.y.at(mark.value) + (13 if mark.large else -5), words, f"tick small {place}".strip())


def _rows(keys: Sequence[tuple[str, str, str]]) -> list[list[tuple[str, str, str]]]:
    """Keys in as many rows as they need."""
    rows: list[list[tuple[str, str, str]]] = [[]]
    used = 0.0
    for key in keys:
        wide = svg.width(key[0], 11.5) + 36
        if rows[-1] and used + wide > SMALL[0] - 8:
            rows.append([])
            used = 0.0
        rows[-1].append(key)
        used += wide
    return rows


def _some(values: Sequence[int], most: int) -> list[float]:
    """At most ``most`` of ascending values, evenly."""
    step = max(1, math.ceil((len(values) - 1) / max(1, most - 1)))
    return [float(v) for v in values[::-1][::step][::-1]]
