"""The report's section on designs: settings compared by pairs, and figures repeated until they were known."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from analysis import designs, paired, precision, svg, text
from analysis.results import CampaignResults

Words = dict[str, Any]

SIZE = (470.0, 230.0)
MAXIMUM_DRAWN = 12

_CSS = {"better": "pass", "worse": "fail"}


def pairs_figure(found: paired.Pairing) -> str:
    """How much b differs from a in each pair, in the order of the repeats; the band is what does not matter."""
    changes = [100 * (pair.ratio - 1) for pair in found.pairs if pair.a > 0]
    if len(changes) < 2:
        return ""
    difference = found.difference
    interval = [100 * x for x in difference.interval] if difference.interval and difference.relative else []
    smallest = 100 * found.smallest
    low, high = min(*changes, -smallest, *interval), max(*changes, smallest, *interval)
    pad = (high - low) * 0.1
    plot = svg.Plot(f"{found.name}: b against a, pair by pair", SIZE, (60, 36, 18, 42))
    number = len(changes)
    plot.x_axis(-0.6, number + 0.4, lambda v: f"{v:.0f}", svg.whole_ticks(0, number - 1, 8), label="repeat")
    plot.y_axis(low - pad, high + pad, lambda v: f"{v:+.3g} %".replace("-", "\u2212"), label="b against a")
    plot.band([-0.6, number + 0.4], [-smallest] * 2, [smallest] * 2, f"{svg.MUTED} wash")
    plot.line([-0.6, number + 0.4], [0, 0], f"{svg.MUTED} thin")
    first = [i for i, pair in enumerate(p for p in found.pairs if p.a > 0) if pair.a_first]
    second = [i for i in range(number) if i not in set(first)]
    plot.dots(first, [changes[i] for i in first], svg.SERIES[0], 6)
    plot.rings(second, [changes[i] for i in second], svg.SERIES[0], 3)
    if interval and difference.change is not None:
        plot.segments(number, interval[0], number, interval[1], f"{svg.INK} strong")
        plot.dots([number], [100 * difference.change], svg.INK, 7)
    plot.legend([("a first", svg.SERIES[0], "dot"), ("estimate, 95 %", svg.INK, "line")])
    return plot.svg()


def _pairing(found: paired.Pairing, number: int) -> Words:
    verdict = found.verdict.value if found.verdict is not None else ""
    return {
        "p": found,
        "verdict": verdict or "shown for information",
        "css": _CSS.get(verdict, "info"),
        "said": found.difference.said(found.unit),
        "order": paired.order_words(found.order),
        "figure": Markup(pairs_figure(found)) if number < MAXIMUM_DRAWN else "",
    }


def _spared(results: CampaignResults) -> dict[str, int]:
    """For each lot, how many of its planned repeats were not needed."""
    unneeded = {row["case_id"] for row in results.not_needed}
    return {
        lot.name: max((sum(c in unneeded for c in cases) for cases in lot.series.values()), default=0)
        for lot in designs.lots(results)
    }


def _lot(found: precision.Precision, spared: int) -> Words:
    return {
        "p": found,
        "reached": precision.reached(found),
        "spared": spared,
        "rows": [
            {
                "name": one.name,
                "n": one.n,
                "estimate": _estimate(one),
                "half": f"±{text.digits(one.half * 100, 2)} %" if one.half is not None else "none",
                "why": one.why,
            }
            for one in found.series
        ],
    }


def _estimate(one: precision.Series) -> str:
    if one.estimate is None:
        return "none"
    return text.quantity(one.estimate, one.unit) if one.unit else text.digits(one.estimate)


def contents(results: CampaignResults) -> Words:
    """Everything the section shows.

    Raises:
        StoreError: samples of the file are damaged.
    """
    spared = _spared(results)
    return {
        "pairs": [_pairing(found, number) for number, found in enumerate(paired.analyse(results))],
        "lots": [_lot(found, spared.get(found.lot, 0)) for found in precision.analyse(results)],
    }
