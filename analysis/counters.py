"""Small plots of host and GPU counters over the campaign: a line a node, or their spread where there are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis import svg
from analysis.figures import ticks
from analysis.results import CampaignResults
from analysis.series import Floats
from analysis.timelines import natural
from harness.store import Table

MAXIMUM_LINES = len(svg.SERIES)  # nodes or GPUs drawn as lines of their own: each colour is one of them
POINTS = 300  # of one line
BINS = 160  # of a spread over many
SIZE = (470.0, 176.0)

_HOST = (
    ("cpu_percent", "processor", "%", False),
    ("memory_used_bytes", "memory used", "B", False),
    ("network_sent_bytes", "network, sent", "B/s", True),
    ("network_received_bytes", "network, received", "B/s", True),
)
_GPU = (
    ("gpu_utilisation_percent", "GPU", "%", False),
    ("gpu_memory_used_bytes", "GPU memory used", "B", False),
    ("gpu_power_w", "GPU power", "W", False),
    ("gpu_temperature_c", "GPU temperature", "degC", False),
)
_Line = tuple[str, Floats, Floats]  # of whom, minutes, values


@dataclass(frozen=True)
class Counted:
    """Plots of what hosts counted, or GPUs, and what the colours of all of them mean."""

    keys: tuple[tuple[str, str], ...]  # words, css class
    plots: tuple[tuple[str, str], ...]  # what, svg


def telemetry(results: CampaignResults) -> list[Counted]:
    """A plot for each counter that was recorded.

    Raises:
        StoreError: the samples are damaged.
    """
    found = []
    for table, kinds in (("host", _HOST), ("gpu", _GPU)):
        if not results.has_samples("telemetry", table):
            continue
        samples = results.samples("telemetry", table)
        places = _places(results, samples)
        plots = [
            (words, _counter(_lines(samples, places, column, counter), words, unit))
            for column, words, unit, counter in kinds
            if column in samples and len(samples[column])
        ]
        if plots:
            found.append(Counted(_keys([name for name, _ in places]), tuple(plots)))
    return found


def _keys(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """What the colours of a plot mean."""
    if len(names) <= MAXIMUM_LINES:
        return tuple((name, svg.series_colour(number)) for number, name in enumerate(names))
    median = (f"median of {len(names)}", svg.SERIES[0])
    return median, ("lowest to highest", f"{svg.SERIES[0]} faint")


def _places(results: CampaignResults, samples: Table) -> list[tuple[str, np.ndarray]]:
    """Rows of each node, or of each of its GPUs, by time; by name."""
    gpu = samples.get("gpu", np.zeros(len(samples["node"]), dtype=np.int64))
    order = np.lexsort((samples["wall_ns"], gpu, samples["node"]))
    node, device = samples["node"][order], gpu[order]
    edges = np.flatnonzero((np.diff(node) != 0) | (np.diff(device) != 0)) + 1
    found = []
    for rows in np.split(order, edges) if len(order) else ():
        n, d = int(samples["node"][rows[0]]), int(gpu[rows[0]])
        name = results.nodes[n] if 0 <= n < len(results.nodes) else "?"
        found.append((f"{name} GPU {d}" if "gpu" in samples else name, rows))
    return sorted(found, key=lambda f: natural(f[0]))


def _lines(
    samples: Table, places: Sequence[tuple[str, np.ndarray]], column: str, counter: bool
) -> list[_Line]:
    begin = samples["wall_ns"].min() if len(samples["wall_ns"]) else 0
    found = []
    for name, rows in places:
        minutes = (samples["wall_ns"][rows] - begin) / 60e9
        found.append((name, *_line(minutes, samples[column][rows].astype(np.float64), counter)))
    return found


def _line(minutes: Floats, values: Floats, counter: bool) -> tuple[Floats, Floats]:
    """A counter as a line: a running one as its rate in 1/s, broken where nobody measured, thinned."""
    if len(minutes) < 2:
        return minutes, np.full(len(values), np.nan) if counter else values
    gaps = np.diff(minutes) * 60
    if counter:
        rates = np.divide(np.diff(values), gaps, out=np.full(len(gaps), np.nan), where=gaps > 0)
        rates[rates < 0] = np.nan  # a host that was powered on again counts from zero
        values = np.append(np.nan, rates)
    silent = np.flatnonzero(gaps > 5 * np.median(gaps)) + 1
    keep = np.zeros(len(values), dtype=bool)
    keep[:: max(1, -(-len(values) // POINTS))] = True
    minutes, values = np.insert(minutes, silent, minutes[silent]), np.insert(values, silent, np.nan)
    keep = np.insert(keep, silent, True)
    return minutes[keep], values[keep]


def _counter(lines: Sequence[_Line], words: str, unit: str) -> str:
    """One counter over the minutes since its first sample."""
    everything = np.concatenate([values for _, _, values in lines])
    everything = everything[np.isfinite(everything)]
    most = float(everything.max()) if len(everything) else 1.0
    end = max(float(minutes[-1]) for _, minutes, _ in lines if len(minutes))
    plot = svg.Plot(f"{words} over time", SIZE, (66, 10, 18, 40))
    plot.x_axis(0, end or 1.0, lambda v: f"{v:.4g}", label="minutes")
    high = 100.0 if unit == "%" and most <= 100 else (most or 1.0) * 1.05
    shown = svg.byte_ticks(0, high, 4) if unit == "B" else svg.linear_ticks(0, high, 4)
    plot.y_axis(0, high, ticks(unit), shown)
    if len(lines) <= MAXIMUM_LINES:
        for number, (_, minutes, values) in enumerate(lines):
            plot.line(minutes, values, f"{svg.series_colour(number)} fine")
    else:
        _spread(plot, lines, end or 1.0)
    return plot.svg()


def _spread(plot: svg.Plot, lines: Sequence[_Line], end: float) -> None:
    """Lowest, median and highest over everybody, in bins of time."""
    minutes = np.concatenate([m for _, m, _ in lines])
    values = np.concatenate([v for _, _, v in lines])
    known = np.isfinite(values)
    place = np.minimum((minutes[known] / end * BINS).astype(int), BINS - 1)
    order = np.lexsort((values[known], place))
    place, values = place[order], values[known][order]
    bins, first, number = np.unique(place, return_index=True, return_counts=True)
    at = (bins + 0.5) / BINS * end
    plot.band(at, values[first], values[first + number - 1], f"{svg.SERIES[0]} faint")
    plot.line(at, values[first + number // 2], f"{svg.SERIES[0]} fine")
