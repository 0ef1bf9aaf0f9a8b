"""Efficiencies of node counts against the smallest, with intervals; and what Karp-Flatt's serial fraction does.

An efficiency is a ratio of medians over repeats, and its interval that of such a ratio (``analysis.resample``). The
smallest run need not be one node: everything is relative to the base.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import resample, text
from analysis.fitting import Repeats
from analysis.models import STRONG, karp_flatt
from analysis.resample import MINIMUM, Interval
from analysis.series import Floats

WORTH = 0.01  # of the time on the largest node count: less is told as nothing, and rounding errors are
FLAT = 0.05  # change of the serial fraction for each doubling that may still be called flat


@dataclass(frozen=True)
class Point:
    """One node count of a series. Times in s; ``efficiency`` is relative to the base."""

    nodes: int
    ranks: int
    times_s: tuple[float, ...]  # one for each repeat
    steps: int  # judged steps behind them, all repeats together
    median_s: float
    interval_s: Interval | None  # 95 % of the median over repeats; None below 6 repeats
    speed_up: float
    efficiency: float
    karp_flatt: float | None  # serial fraction; None at the base
    efficiency_interval: Interval | None = None  # 95 %; None at the base, and below 6 repeats here or there
    karp_flatt_interval: Interval | None = None
    shares: dict[str, float] | None = None  # of a step's time, by part; None where they were not recorded

    @property
    def range_s(self) -> tuple[float, float]:
        """Shortest and longest of the repeats."""
        return min(self.times_s), max(self.times_s)


def strong_efficiency(base_s: float, base_nodes: int, time_s: float, nodes: int) -> float:
    """S/p in units of the base: (T_base p_base) / (T_p p)."""
    return base_s * base_nodes / (time_s * nodes)


def weak_efficiency(base_s: float, time_s: float) -> float:
    """T_base / T_p, at constant work per rank."""
    return base_s / time_s


def points(
    mode: str,
    runs: Mapping[int, Sequence[float]],
    ranks_per_node: int,
    steps: Mapping[int, int],
    shares: Mapping[int, dict[str, float] | None] | None = None,
) -> tuple[Point, ...]:
    """Efficiencies of every node count against the smallest.

    Args:
        runs: node count -> times in s, one for each repeat; not empty.
        steps: node count -> judged steps behind them.
        shares: node count -> shares of a step's time.
    """
    base = min(runs)
    base_s = float(np.median(runs[base]))
    found = []
    for nodes in sorted(runs):
        median_s = float(np.median(runs[nodes]))
        if mode == STRONG:
            efficiency = strong_efficiency(base_s, base, median_s, nodes)
        else:
            efficiency = weak_efficiency(base_s, median_s)
        p = nodes / base
        speed_up = efficiency * p
        # efficiency = median of the base / median here, times a number
        span = resample.ratio_of_medians(runs[base], runs[nodes]) if nodes != base else None
        spans = None
        if span is not None:
            factor = efficiency * median_s / base_s
            low, high = span[0] * factor, span[1] * factor
            spans = (low, high), (karp_flatt(high * p, p), karp_flatt(low * p, p))
        found.append(
            Point(
                nodes,
                nodes * ranks_per_node,
                tuple(runs[nodes]),
                steps[nodes],
                median_s,
                resample.interval(runs[nodes]),
                speed_up,
                efficiency,
                karp_flatt(speed_up, p) if nodes != base else None,
                spans[0] if spans else None,
                spans[1] if spans else None,
                shares.get(nodes) if shares else None,
            )
        )
    return tuple(found)


def overhead(runs: Mapping[int, Sequence[float]]) -> str:
    """What Karp-Flatt's serial fraction does with more nodes, in words: flat is serial work, rising is overhead.

    Its slope over log2 of the nodes has an interval from repeats, as a fit has. A serial fraction of e lengthens a run
    on p times the base's nodes by e (p - 1), so what costs less than ``WORTH`` on the largest count is told as nothing.
    """
    if len(runs) < 3:
        return "Karp-Flatt: two node counts beside the base are needed to see whether it rises"
    if min(len(times) for times in runs.values()) < MINIMUM:
        return f"Karp-Flatt: whether it rises is not known with fewer than {MINIMUM} repeats"
    nodes = np.array(sorted(runs), dtype=np.float64)
    repeats, p = Repeats.of([runs[int(n)] for n in nodes]), nodes[1:] / nodes[0]
    ratios = np.exp(repeats.means[1:] - repeats.means[0])

    def ends(weights: Floats, of: Callable[[Floats], Floats]) -> tuple[float, float]:
        """Of what sums the times over the base's with these weights."""
        low, high = of(repeats.ends(np.concatenate([[-np.sum(ratios * weights)], ratios * weights]))).tolist()
        return low, high

    def fractions(means: Floats) -> Floats:
        return np.asarray((np.exp(means[:, 1:] - means[:, :1]) - 1 / p) / (1 - 1 / p))

    def costs(n: int) -> tuple[float, float]:
        only = np.where(np.arange(len(p)) == n, p, 0.0)
        return ends(only, lambda means: fractions(means)[:, n] * (p[n] - 1))

    if all(abs(end) < WORTH for n in range(len(p)) for end in costs(n)):
        return f"Karp-Flatt is 0 as far as can be seen: no node count takes {WORTH * 100:.0f} % longer than if ideal"
    x = np.log2(p) - np.mean(np.log2(p))
    x /= float(x @ x)
    low, high = ends(x / (1 - 1 / p), lambda means: np.asarray(fractions(means) @ x))
    least = WORTH / float((p[-1] - 1) * math.log2(p[-1] / p[0]))
    span = " to ".join(text.together((low, high), sign=True))
    span += f" for each doubling; from {text.digits(least)} on it counts"
    if low > least:
        return f"Karp-Flatt rises ({span}): overhead that grows with the nodes, and not serial work alone"
    if high < -least:
        return f"Karp-Flatt falls ({span}): more nodes help more than their number, caches perhaps"
    if max(-low, high) > FLAT:
        return f"Karp-Flatt: whether it rises cannot be told ({span}); more repeats would"
    return f"Karp-Flatt is flat ({span}): serial work"
