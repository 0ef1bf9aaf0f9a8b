"""The report's section on stability: cases whose steps are uneven, with what to try, and who keeps others waiting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from analysis import stability, stragglers, svg, text
from analysis.figures import ticks
from analysis.results import CampaignResults, Row
from analysis.series import Floats, slowest_rank
from analysis.stability import CaseStability

Words = dict[str, Any]

TOLD = 12  # unstable cases
DRAWN = 6  # of them
STRAGGLERS = 20
SIZE = (470.0, 200.0)

_BINS = 200


def series_figure(found: CaseStability, steps: Floats, times_s: Floats, warmup_steps: int) -> str:
    """Step times over steps: each one, or lowest to highest and median of neighbours; grey is the declared warm-up."""
    plot = svg.Plot(f"{found.label}: time of a step over steps", SIZE, (66, 34, 18, 42))
    low, high = float(times_s.min()), float(times_s.max())
    pad = (high - low) * 0.06 or high * 0.1
    plot.x_axis(float(steps[0]), float(steps[-1]), lambda v: f"{v:.0f}", label="step")
    plot.y_axis(max(0.0, low - pad), high + pad, ticks("s"), label="time of a step, slowest rank")
    if warmup_steps > steps[0]:
        plot.shade(float(steps[0]), float(warmup_steps), svg.MUTED)
    if len(steps) <= 2 * _BINS:
        plot.line(steps, times_s, f"{svg.SERIES[0]} fine")
    else:
        pieces = np.array_split(np.arange(len(steps)), _BINS)
        at = [float(steps[p].mean()) for p in pieces]
        lowest, highest = [float(times_s[p].min()) for p in pieces], [float(times_s[p].max()) for p in pieces]
        plot.band(at, lowest, highest, f"{svg.SERIES[0]} faint")
        plot.line(at, [float(np.median(times_s[p])) for p in pieces], f"{svg.SERIES[0]} fine")
    if found.shift is not None and any(f.kind == "shift" for f in found.findings):
        since = re.search(r"since step (\d+)", " ".join(f.words for f in found.findings))
        if since:
            plot.upright(float(since.group(1)), f"{svg.FAIL} dash")
    return plot.svg()


def _figure(results: CampaignResults, case: Row, found: CaseStability) -> str:
    samples = results.effective(case["case_id"], "steps", ["step", "step_time_ns"])
    series = slowest_rank(samples, "step_time_ns", case["ranks"])
    times_s = np.asarray(series.slowest / 1e9, dtype=np.float64)
    return series_figure(found, np.asarray(series.step, dtype=np.float64), times_s, case["warmup_steps"])


def figures_words(found: CaseStability) -> str:
    """Figures of a series in words."""
    f = found.figures
    if f is None:
        return ""
    words = f"{text.seconds(f.median_s)} a step, CoV {text.percent(f.cov)} (robust {text.percent(f.robust_cov)}), "
    words += f"p99/p50 {f.p99_over_p50:.2f}"
    words += f", p99.9 {text.seconds(f.p999_s)}" if f.p999_s is not None else ""
    unknown = found.warmup is not None and found.warmup.found is None
    return f"{words}; {found.warmup.words}" if unknown and found.warmup is not None else words


def contents(results: CampaignResults) -> Words:
    """Everything the section shows.

    Raises:
        StoreError: samples of the file are damaged.
    """
    found: Sequence[CaseStability] = stability.analyse(results)
    known = [(n, c) for n, c in enumerate(found) if c.stable is not None]
    unstable = sorted((x for x in known if not x[1].stable), key=lambda x: -len(x[1].findings))
    reasons: dict[str, int] = {}
    for one in found:
        if one.stable is None:
            reasons[one.why] = reasons.get(one.why, 0) + 1
    slow = stragglers.analyse(results)
    return {
        "steady": len(known) - len(unstable),
        "unstable": len(unstable),
        "unknown": sorted(reasons.items(), key=lambda item: -item[1])[:6],
        "all_unknown": sum(reasons.values()),
        "cases": [
            {
                "c": one,
                "anchor": f"case-{row}",
                "figures": figures_words(one),
                "figure": Markup(_figure(results, results.cases[row], one)) if number < DRAWN else "",
            }
            for number, (row, one) in enumerate(unstable[:TOLD])
        ],
        "more": max(0, len(unstable) - TOLD),
        "stragglers": slow[:STRAGGLERS],
        "all_stragglers": len(slow),
    }
