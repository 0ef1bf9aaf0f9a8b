"""Figures of measurements, each an ``<svg>`` element: raw points first, summaries on top of them.

Labels come from the results file and are hostile: ``analysis.svg`` cleans and escapes them. A figure that would be
too large shows its first rows; the report says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import svg, text
from analysis.results import CampaignResults, Row
from analysis.scaling import step_times_s
from analysis.series import Floats

SMALL = (470.0, 280.0)  # px; two beside each other on a desk, one on a phone
MARGINS = (66.0, 30.0, 18.0, 42.0)
MAXIMUM_ROWS = 40  # of step times in one figure
MAXIMUM_DOTS = 1200  # in one figure of step times


def _short(words: str) -> str:
    """A tick's words without zeros that say nothing: ``1.50 ms`` is ``1.5 ms``."""
    return re.sub(r"\.0+(?= )|(?<=\.\d)0+(?= )", "", words)


def ticks(unit: str) -> Callable[[float], str]:
    """Words of ticks for values of a metric's unit."""
    return lambda value: "0" if value == 0 else _short(text.quantity(value, unit))


# --- step times ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A figure, and how many rows of it there was no room for."""

    figure: str
    left_out: int
    pooled: bool  # rows are cases with their repeats together


def step_times(results: CampaignResults, cases: Sequence[Row]) -> Drawn | None:
    """Judged step times: dots, 5 to 95 % thin, quartiles thick, the median a tick; a row for each case.

    Where there are more cases than rows, repeats are put together first. None where no case recorded a step.
    """
    pooled = len(cases) > MAXIMUM_ROWS
    rows: dict[str, tuple[int, list[Row]]] = {}
    for case in cases:
        name = _without_repeat(case) if pooled else case["label"]
        rows.setdefault(name, (case["nodes"], []))[1].append(case)
    shown: list[tuple[str, int, Floats]] = []
    left = 0
    for name, (nodes, mine) in rows.items():
        if len(shown) == MAXIMUM_ROWS:
            left += 1
            continue
        times = [t for t in (step_times_s(results, case) for case in mine) if len(t)]
        if times:
            shown.append((name, nodes, np.concatenate(times)))
    return Drawn(_distributions(shown), left, pooled) if shown else None


def _without_repeat(case: Row) -> str:
    """A case's label without its repeat: ``train/n2/r1/fault`` is ``train/n2/fault``."""
    return str(case["label"]).replace(f"/r{case['repeat']}", "", 1)


def _distributions(shown: Sequence[tuple[str, int, Floats]]) -> str:
    """Rows of (name, nodes, times); colours tell node counts apart."""
    counts = sorted({nodes for _, nodes, _ in shown})
    left = min(210.0, max(svg.width(text.one_line(name, 32), 11) for name, _, _ in shown) + 16)
    high = 40 + 22.0 * len(shown)
    plot = svg.Plot("Step times of each case", (560, high + 26), (left, 14, 18, 40))
    low, top = min(float(t.min()) for _, _, t in shown), max(float(t.max()) for _, _, t in shown)
    log = low > 0 and top / low > 8
    pad = 1.04 if log else (top - low) * 0.03
    ends = (low / pad, top * pad) if log else (low - pad, top + pad)
    plot.rows([name for name, _, _ in shown])
    plot.x_axis(*ends, ticks("s"), log=log, label="time of a step, slowest rank, warm-up left out", grid=True)
    room = max(1, MAXIMUM_DOTS // len(shown))
    for row, (_, nodes, times) in enumerate(shown):
        css = svg.series_colour(counts.index(nodes))
        some = times[:: max(1, math.ceil(len(times) / room))]
        spread = np.random.default_rng(row).uniform(-0.28, 0.28, len(some))
        plot.dots(some, row + spread, f"{css} faint", 2.6)
        p5, first, median, third, p95 = np.percentile(times, [5, 25, 50, 75, 95])
        plot.segments(p5, row, p95, row, css)
        plot.segments(first, row, third, row, f"{css} thick")
        plot.segments(median, row - 0.34, median, row + 0.34, f"{svg.INK} strong")
    return plot.svg()
