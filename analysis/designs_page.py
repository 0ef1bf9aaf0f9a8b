"""The report's section on designs: settings compared by pairs, and figures repeated until they were known."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from analysis import designs, paired, precision, svg, text
from analysis.results import CampaignResults

Words = dict[str, Any]

SIZE = (470.0, 230.0)
MAXIMUM_DRAWN = 12
WIDE = 4.0  # ratios that lie further apart are drawn on a logarithmic axis

_CSS = {"better": "pass", "worse": "fail"}


def pairs_figure(found: paired.Pairing) -> str:
    """b over a in each pair, in the order of the repeats, and behind them all pairs together with their interval.

    The band is what does not matter. Ratios that lie far apart need a logarithmic axis, and are told as factors.
    """
    pairs = [pair for pair in found.pairs if pair.a > 0 and pair.b > 0]
    number = len(pairs)
    if number < 2:
        return ""
    difference = found.difference
    interval = [1 + x for x in difference.interval] if difference.interval and difference.relative else []
    ratios = [pair.ratio for pair in pairs]
    drawn = [*ratios, 1 - found.smallest, 1 + found.smallest, *interval]
    log = min(drawn) > 0 and max(drawn) > WIDE * min(drawn)
    low, high = min(drawn), max(drawn)
    plot = svg.Plot(f"{found.name}: b against a, pair by pair", SIZE, (60, 30, 18, 42))
    numbers = svg.whole_ticks(0, number - 1, 8)
    plot.x_axis(
        -0.6, number + 0.4, lambda v: "all" if v == number else f"{v:.0f}", [*numbers, float(number)], label="repeat"
    )  # fmt: skip
    pad = (high / low) ** 0.08 if log else (high - low) * 0.1
    ends = (low / pad, high * pad) if log else (low - pad, high + pad)
    plot.y_axis(*ends, _factor if log else _change, log=log, label="b over a" if log else "b against a")
    whole = [-0.6, number + 0.4]
    plot.band(whole, [1 - found.smallest] * 2, [1 + found.smallest] * 2, f"{svg.MUTED} wash")
    plot.line(whole, [1, 1], f"{svg.MUTED} thin")
    first = [i for i, pair in enumerate(pairs) if pair.a_first]
    second = [i for i, pair in enumerate(pairs) if not pair.a_first]
    plot.dots(first, [ratios[i] for i in first], svg.SERIES[0], 7)
    plot.rings(second, [ratios[i] for i in second], svg.SERIES[0], 3)
    keys = [("a first", svg.SERIES[0], "dot"), ("b first", svg.SERIES[0], "ring")]
    if interval and difference.change is not None:
        plot.segments(number, interval[0], number, interval[1], f"{svg.INK} strong")
        plot.dots([number], [1 + difference.change], svg.INK, 7)
        keys.append(("all, 95 % interval", svg.INK, "bar"))
    plot.legend(keys)
    return plot.svg()


def _factor(ratio: float) -> str:
    return f"\u00d7 {ratio:.4g}"


def _change(ratio: float) -> str:
    """A ratio near 1 as what it changes."""
    change = round(100 * (ratio - 1), 9)
    return f"{change:+.3g} %".replace("-", "\u2212") if change else "0"


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
