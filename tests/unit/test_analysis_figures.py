"""What is drawn can be read: words cover neither words nor marks, axes fit what is drawn, and keys say all shapes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from analysis import counters, designs_page, labels, paired, report, scaling, scaling_figures, svg
from analysis.difference import compare
from analysis.figures import MARGINS, SMALL
from analysis.labels import Box
from analysis.results import load
from analysis.scaling import Series
from tests.unit import recovery_factory
from tests.unit import results_factory as factory

_TEXT = re.compile(
    r'<text x="([-\d.]+)" y="([-\d.]+)"(?: class="([^"]*)")?( transform="[^"]*")?>(.*?)</text>'
)
_HIGH = 8.0  # px of capital letters


def words_of(drawn: str) -> list[tuple[Box, str]]:
    """Words of a figure and where they stand; turned ones are left out."""
    found = []
    for x, y, css, turned, inner in _TEXT.findall(drawn):
        words = re.sub("<title>.*?</title>", "", inner)
        wide = svg.width(words, 11) * 0.93  # what is reserved is a little more than most fonts need
        shift = {"mid": wide / 2, "end": wide}.get(
            next((c for c in css.split() if c in ("mid", "end")), ""), 0
        )
        left, bottom = float(x) - shift, float(y)
        if words and not turned:
            found.append(((left, bottom - _HIGH, left + wide, bottom), words))
    return found


def collisions(drawn: str) -> list[tuple[str, str]]:
    """Pairs of words that stand on one another."""
    pairs = itertools.combinations(words_of(drawn), 2)
    return [(a, b) for (one, a), (other, b) in pairs if labels.overlap(one, other)]


def outside(drawn: str) -> list[str]:
    """Words that stand outside of their figure, and would be cut off."""
    (wide, high) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)[0]
    return [
        words for (left, top, right, bottom), words in words_of(drawn)
        if left < -1 or top < -1 or right > float(wide) + 1 or bottom > float(high) + 1
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["quickstart", "soak"])
def test_no_words_of_a_report_stand_on_others_or_are_cut_off(kind: str, tmp_path: Path) -> None:
    campaign = factory.quickstart(repeats=6) if kind == "quickstart" else recovery_factory.soak(2)
    page = report.write(campaign.write(tmp_path / "r.h5")).report_html.read_text(encoding="utf-8")
    figures = re.findall("<svg .*?</svg>", page, re.DOTALL)
    assert len(figures) > 5
    assert [found for f in figures for found in (*collisions(f), *outside(f))] == []


def test_words_that_stand_on_others_are_noticed() -> None:
    plot = svg.Plot("", (100, 100), (0, 0, 0, 0))
    plot.text(0, 50, "one")
    plot.text(10, 52, "two")
    plot.text(95, 90, "three")
    assert (collisions(plot.svg()), outside(plot.svg())) == ([("one", "two")], ["three"])


def _series(tmp_path: Path, mode: str, times_s: Sequence[Sequence[float]]) -> Series:
    """A series of quickstart with other times of its repeats, on 1, 2 and 4 nodes."""
    with load(factory.quickstart().write(tmp_path / "r.h5")) as results:
        found = next(s for s in scaling.analyse(results) if s.mode == mode)
    base = sorted(times_s[0])[len(times_s[0]) // 2]
    points = []
    for point, times in zip(found.points, times_s, strict=True):
        median = sorted(times)[len(times) // 2]
        ideal = base / point.nodes if mode == scaling.STRONG else base
        span = (ideal / max(times), ideal / min(times))
        points.append(
            replace(
                point, times_s=tuple(times), median_s=median, interval_s=(min(times), max(times)),
                efficiency=ideal / median, efficiency_interval=span,
            )
        )  # fmt: skip
    return replace(found, points=tuple(points), fits=(), best="", predictions=())


WIDE_APART = ([60e-6, 63e-6, 71e-6], [70e-6, 80e-6, 862e-6], [27e-3, 37e-3, 68e-3])
RISING = ([4.0e-3, 4.1e-3, 4.9e-3], [2.6e-3, 3.1e-3, 3.3e-3], [0.7e-3, 0.8e-3, 1.9e-3])
CLOSE = ([4.0e-3, 4.1e-3, 4.2e-3], [4.2e-3, 4.3e-3, 4.4e-3], [4.6e-3, 4.7e-3, 4.8e-3])


@pytest.mark.parametrize("mode", ["strong", "weak"])
@pytest.mark.parametrize("times_s", [WIDE_APART, CLOSE, RISING], ids=["wide", "close", "rising"])
def test_a_label_of_efficiency_covers_no_ring_no_line_and_no_tick(
    mode: str, times_s: Sequence[Sequence[float]], tmp_path: Path
) -> None:
    series = _series(tmp_path, mode, times_s)
    drawn = scaling_figures.efficiency(series)
    assert collisions(drawn) == outside(drawn) == []
    placed = [(box, words) for box, words in words_of(drawn) if re.fullmatch(r"\d+\.\d+ %", words)]
    assert len(placed) == 3
    rings = [
        (float(x), float(y) - 3.5, float(x) + 7, float(y) + 3.5)
        for path in re.findall('class="ring [^>]* d="([^"]*)"', drawn)
        for x, y in re.findall(r"M([\d.]+) ([\d.]+)", path)
    ]
    line = re.findall(r'class="l c3" d="M([^"]*)"', drawn)[0].split()
    points = [(float(x), float(y)) for x, y in zip(line[::2], line[1::2], strict=True)]
    taken = [*rings, *labels.along(points, 0.5)]
    assert [words for box, words in placed if any(labels.overlap(box, other) for other in taken)] == []


def test_words_without_room_are_left_out() -> None:
    everywhere = [(0.0, 0.0, 100.0, 100.0)]
    assert labels.place((50, 50), 30, everywhere, (0, 0, 100, 100)) is None
    assert labels.place((50, 50), 30, [], (0, 0, 100, 100)) == (56, 31, 86, 44)


@pytest.mark.parametrize(("times_s", "log"), [(WIDE_APART, True), (CLOSE, False)], ids=["wide", "close"])
def test_weak_times_that_lie_far_apart_are_on_a_logarithmic_axis(
    times_s: Sequence[Sequence[float]], log: bool, tmp_path: Path
) -> None:
    drawn = scaling_figures.time(_series(tmp_path, "weak", times_s))
    said = [words for (_, _, right, _), words in words_of(drawn) if right < MARGINS[0] and words[-1:] in "s0"]
    assert (said[0] == "0") is not log
    assert {"1 ms", "10 ms"} <= set(said) or not log
    assert f'viewBox="0 0 {SMALL[0]:.0f}' in drawn


def _pairing(ratios: Sequence[float]) -> paired.Pairing:
    pairs = tuple(paired.Pair(n, 1.0, r, n % 2 == 0) for n, r in enumerate(ratios))
    found = compare([p.a for p in pairs], [p.b for p in pairs], smallest=0.1, direction="lower", paired=True)
    return paired.Pairing(
        "x", "g", "a", "b", "figure", "s", "lower", 0.1, pairs, (), found, paired.order_of(pairs), "", None
    )


@pytest.mark.parametrize(
    ("ratios", "ticks"),
    [
        ([0.01, 0.9, 1.6, 0.1, 41.0, 0.8, 0.01, 4.0], ["\u00d7 0.01", "\u00d7 0.1", "\u00d7 1", "\u00d7 10"]),
        ([1.01, 1.02, 0.99, 1.0, 1.01, 1.02, 0.98, 1.0], ["\u221210 %", "\u22125 %", "0", "+5 %", "+10 %"]),
    ],
    ids=["wide", "close"],
)
def test_a_figure_of_pairs_says_factors_in_figures_and_every_shape(
    ratios: Sequence[float], ticks: list[str]
) -> None:
    drawn = designs_page.pairs_figure(_pairing(ratios))
    said = [words for _, words in words_of(drawn)]
    left = [words for (_, _, right, _), words in words_of(drawn) if right < 60]
    assert [words for words in left if not words.startswith("b ")] == ticks
    assert {"a first", "b first", "all, 95 % interval", "all"} <= set(said)
    assert collisions(drawn) == outside(drawn) == []


def test_each_line_of_telemetry_has_a_key(tmp_path: Path) -> None:
    campaign = factory.quickstart()
    with load(campaign.write(tmp_path / "r.h5")) as results:
        host, *_ = counters.telemetry(results)
    drawn = {css for _, plot in host.plots for css in re.findall(r'class="l (c\d) fine"', plot)}
    assert drawn == {css for _, css in host.keys}
    assert len(host.keys) == len(drawn) > 1
