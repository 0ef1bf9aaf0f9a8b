"""Figures of collectives: bus bandwidth and time over message size, a line for each group and node count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis import svg, text
from analysis.curves import Curve
from analysis.figures import MARGINS, SMALL, ticks
from analysis.resample import Interval

MAXIMUM_LINES = 16  # curves in one figure


@dataclass(frozen=True)
class _Place:
    """One size of a curve: its value, that of each repeat, and its interval."""

    message_bytes: int
    value: float
    repeats: tuple[float, ...]
    interval: Interval | None


def bandwidth(curves: Sequence[Curve], operation: str) -> str:
    """Bus bandwidth over size; empty where nothing is sent."""
    drawn = []
    for curve in curves:
        places = []
        for place in curve.places:
            bus = place.bus_bandwidth_bytes_per_s
            if bus is not None:
                each = tuple(bus * place.median_s / t for t in place.times_s)
                places.append(_Place(place.message_bytes, bus, each, place.bus_bandwidth_interval))
        if places:
            drawn.append((curve, places))
    return _sized(f"{operation}: bus bandwidth", drawn, _counts(curves), "B/s") if drawn else ""


def time(curves: Sequence[Curve], operation: str) -> str:
    """Time of an iteration over size, one rank included."""
    drawn = [
        (curve, [_Place(p.message_bytes, p.median_s, p.times_s, p.interval_s) for p in curve.places])
        for curve in curves
        if any(p.message_bytes > 0 for p in curve.places)
    ]
    return _sized(f"{operation}: time, slowest rank", drawn, _counts(curves), "s") if drawn else ""


def _counts(curves: Sequence[Curve]) -> list[int]:
    """Node counts of all curves: one has the same colour in every figure."""
    return sorted({curve.nodes for curve in curves})


def _sized(label: str, drawn: Sequence[tuple[Curve, list[_Place]]], counts: Sequence[int], unit: str) -> str:
    """Values over message size, both logarithmic: rings are repeats, bars intervals, a colour for each node count."""
    everything = [p for _, places in drawn for p in places if p.message_bytes > 0]
    sizes = sorted({p.message_bytes for p in everything})
    values = [v for p in everything for v in (p.value, *p.repeats, *(p.interval or ())) if v > 0]
    plot = svg.Plot(f"{label}, over message size", SMALL, MARGINS)
    room = (sizes[-1] / sizes[0]) ** 0.04 * 1.1
    shown = _some(sizes, 7)
    plot.x_axis(sizes[0] / room, sizes[-1] * room, ticks("B"), shown, log=True, label="message size")
    plot.y_axis(min(values) / 1.15, max(values) * 1.15, ticks(unit), log=True, label=label)
    for curve, places in drawn[:MAXIMUM_LINES]:
        css = svg.series_colour(counts.index(curve.nodes))
        x = [p.message_bytes for p in places]
        bars = [p for p in places if p.interval]
        plot.segments(
            [p.message_bytes for p in bars], [p.interval[0] for p in bars if p.interval],
            [p.message_bytes for p in bars], [p.interval[1] for p in bars if p.interval], f"{css} bar",
        )  # fmt: skip
        plot.line(x, [p.value for p in places], css)
        plot.rings(
            [p.message_bytes for p in places for _ in p.repeats],
            [v for p in places for v in p.repeats],
            css,
            2.5,
        )
    there = {curve.nodes for curve, _ in drawn}
    keys = [(text.count(n, "node"), svg.series_colour(i), "line") for i, n in enumerate(counts) if n in there]
    plot.legend(keys if len(keys) <= 3 else [keys[0], keys[-1]])
    return plot.svg()


def _some(values: Sequence[int], most: int) -> list[float]:
    """At most ``most`` of ascending values, evenly."""
    step = max(1, math.ceil((len(values) - 1) / max(1, most - 1)))
    return [float(v) for v in values[::-1][::step][::-1]]
