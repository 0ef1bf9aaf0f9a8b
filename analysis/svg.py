"""Drawing figures as SVG that lives inside a page: small, themed by the page, the same bytes every time.

A figure is strings put together here, without a plotting library: a report of thousands of cases is written in
seconds. Colours are CSS classes of the page, so one figure is legible in light, in dark and in print. Words come from
results files and are hostile: each is cleaned and escaped where it is drawn.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.text import one_line

Floats = NDArray[np.float64]

INK, MUTED, LINE, PANEL = "c-ink", "c-muted", "c-line", "c-panel"
PASS, FAIL, WARN = "c-pass", "c-fail", "c-warn"
SERIES = ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8")
FONT = 12.0  # px of labels, in the figure's own units

_GAP = 8.0  # between words and what they belong to


def series_colour(number: int) -> str:
    """The colour of the nth series; they repeat after eight."""
    return SERIES[number % len(SERIES)]


def escape(words: object, limit: int = 200) -> str:
    """Words from a file as the content of an element or the value of an attribute."""
    return html.escape(one_line(words, limit), quote=True)


def width(words: str, size: float = FONT) -> float:
    """About how wide words are drawn, in px; fonts differ, so a little more than most need."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in words)
    return size * (0.57 * (len(words) - wide) + 1.02 * wide)


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    words = f"{value:.1f}"
    return words[:-2] if words.endswith(".0") else words


# --- axes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """From values to pixels: ``low`` is drawn at ``begin``, ``high`` at ``end``."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, values: ArrayLike) -> Floats:
        """Pixels of values, of the same shape; what has no place (a zero on a logarithmic scale) is NaN."""
        data = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                data = np.where(data > 0, np.log(data), np.nan)
            low, high = math.log(low), math.log(high)
        return np.asarray(self.begin + (data - low) / ((high - low) or 1.0) * (self.end - self.begin))

    def at(self, value: float) -> float:
        """Pixel of one value."""
        return float(self(value))


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values between two, at most about ``most`` of them."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def whole_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """As ``linear_ticks``, whole numbers only."""
    return sorted({float(round(t)) for t in linear_ticks(low, high, most)})


def byte_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Multiples of a power of two."""
    step = 2.0 ** math.ceil(math.log2(max(high - low, 1.0) / most))
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values on a logarithmic scale, more inside a decade than over several."""
    if not 0 < low < high:
        return [low]
    found: list[float] = []
    for subs in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [s * 10.0**d for d in decades for s in subs if low * 0.999 <= s * 10.0**d <= high * 1.001]
        if len(found) <= most:
            return found if len(found) > 1 else linear_ticks(low, high, most)
    return found[:: math.ceil(len(found) / most)]


# --- a figure ------------------------------------------------------------------------------------------------


class Plot:
    """One figure: areas with axes, and marks in them. Add axes first, then marks, then take ``svg()``.

    Args:
        title: what the figure shows, for those who cannot see it.
        size: width and height in px; a page scales it down, never far up.
        margins: left, top, right and bottom, around the area of the data.
    """

    def __init__(
        self, title: str, size: tuple[float, float], margins: tuple[float, float, float, float]
    ) -> None:
        self.title = title
        self.width, self.height = size
        self.left, self.top = margins[0], margins[1]
        self.right, self.bottom = self.width - margins[2], self.height - margins[3]
        self._parts: list[str] = []
        self.x = Scale(0, 1, self.left, self.right)
        self.y = Scale(0, 1, self.bottom, self.top)

    def area(self, top: float, bottom: float) -> None:
        """Draw from here on into the band between two heights; the scale of x stays."""
        self.top, self.bottom = top, bottom
        self.y = Scale(0, 1, bottom, top)

    # --- axes

    def x_axis(
        self,
        low: float,
        high: float,
        words: Callable[[float], str] | None = None,
        ticks: Sequence[float] | None = None,
        *,
        log: bool = False,
        label: str = "",
        grid: bool = False,
    ) -> None:
        """Set the scale of x, and draw its ticks and label below the area; no ``words``, no ticks."""
        low, high = _span(low, high, log)
        self.x = Scale(low, high, self.left, self.right, log)
        self._add(
            f'<path class="l c-line thin" d="M{number(self.left)} {number(self.bottom)}H{number(self.right)}"/>'
        )
        free = -math.inf
        for value in (ticks if ticks is not None else _ticks(low, high, log)) if words else ():
            assert words is not None
            at = self.x.at(value)
            said = words(value)
            half = width(said, 11) / 2
            if grid:
                self._add(
                    f'<path class="l c-line thin" d="M{number(at)} {number(self.top)}V{number(self.bottom)}"/>'
                )
            if at - half < free:
                continue  # would stand on the words before it
            free = at + half + 4
            self.text(at, self.bottom + 16, said, "tick mid")
        if label:
            self.text((self.left + self.right) / 2, self.bottom + 33, label, "axis mid")

    def y_axis(
        self,
        low: float,
        high: float,
        words: Callable[[float], str],
        ticks: Sequence[float] | None = None,
        *,
        log: bool = False,
        label: str = "",
    ) -> None:
        """Set the scale of y, draw its grid with words at the left, and its label above them."""
        low, high = _span(low, high, log)
        self.y = Scale(low, high, self.bottom, self.top, log)
        lines = []
        for value in ticks if ticks is not None else _ticks(low, high, log):
            at = self.y.at(value)
            lines.append(f"M{number(self.left)} {number(at)}H{number(self.right)}")
            self.text(self.left - _GAP, at + 4, words(value), "tick end")
        self._add(f'<path class="l c-line thin" d="{"".join(lines)}"/>')
        if label:
            self.text(2, self.top - 15, label, "axis")

    def rows(self, names: Sequence[str], limit: int = 32) -> None:
        """The y axis as rows from above, each named at the left; row i is at y = i."""
        self.y = Scale(-0.5, max(len(names), 1) - 0.5, self.top, self.bottom)
        for row, name in enumerate(names):
            self.text(self.left - _GAP, self.y.at(row) + 4, one_line(name, limit), "tick end", full=name)

    # --- marks

    def line(self, x: ArrayLike, y: ArrayLike, css: str, *, steps: bool = False) -> None:
        """A line through points; broken where one has no place."""
        self._path(_polyline(self.x(x), self.y(y), steps), f"l {css}")

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, css: str) -> None:
        """The area between two lines over x, where both are known; broken where they are not."""
        xs, below, above = self.x(x), self.y(low), self.y(high)
        parts = []
        for run in _runs(np.isfinite(xs) & np.isfinite(below) & np.isfinite(above)):
            back = slice(run.stop - 1, run.start - 1 if run.start else None, -1)
            there = _pairs(xs[run], above[run])
            parts.append(f"M{there}L{_pairs(xs[back], below[back])}Z")
        self._path("".join(parts), f"a {css}")

    def histogram(self, edges: ArrayLike, heights: ArrayLike, css: str) -> None:
        """Bars from zero between edges, without gaps, as one shape."""
        px, tops = self.x(edges), self.y(heights)
        base = number(self.y.at(0))
        body = "".join(f"V{number(t)}H{number(e)}" for t, e in zip(tops, px[1:], strict=True))
        self._path(f"M{number(float(px[0]))} {base}{body}V{base}Z", f"a {css}")

    def dots(self, x: ArrayLike, y: ArrayLike, css: str, diameter: float = 3.0) -> None:
        """Dots as one path: a line of no length with round ends each."""
        xs, ys = np.broadcast_arrays(self.x(x), self.y(y))
        known = np.isfinite(xs) & np.isfinite(ys)
        body = "".join(f"M{number(a)} {number(b)}h0" for a, b in zip(xs[known], ys[known], strict=True))
        self._path(body, f"d {css}", f' style="stroke-width:{number(diameter)}px"')

    def rings(self, x: ArrayLike, y: ArrayLike, css: str, radius: float = 3.5) -> None:
        """Open circles."""
        xs, ys = np.broadcast_arrays(self.x(x), self.y(y))
        known = np.isfinite(xs) & np.isfinite(ys)
        r = number(radius)
        turn = f"a{r} {r} 0 1 0 {number(2 * radius)} 0a{r} {r} 0 1 0 {number(-2 * radius)} 0"
        body = "".join(
            f"M{number(a - radius)} {number(b)}{turn}" for a, b in zip(xs[known], ys[known], strict=True)
        )
        self._path(body, f"ring {css}")

    def crosses(self, x: ArrayLike, y: ArrayLike, css: str, radius: float = 4.0) -> None:
        """Crosses."""
        xs, ys = np.broadcast_arrays(self.x(x), self.y(y))
        d = number(2 * radius)
        body = "".join(
            f"M{number(a - radius)} {number(b - radius)}l{d} {d}m0 -{d}l-{d} {d}"
            for a, b in zip(np.ravel(xs), np.ravel(ys), strict=True)
            if math.isfinite(a) and math.isfinite(b)
        )
        self._path(body, f"l strong {css}")

    def segments(self, x0: ArrayLike, y0: ArrayLike, x1: ArrayLike, y1: ArrayLike, css: str) -> None:
        """Straight lines from points to points, as one path."""
        ends = np.broadcast_arrays(self.x(x0), self.y(y0), self.x(x1), self.y(y1))
        table = np.stack([np.ravel(e) for e in ends], axis=1)
        table = table[np.all(np.isfinite(table), axis=1)]
        body = "".join(f"M{number(a)} {number(b)}L{number(c)} {number(d)}" for a, b, c, d in table)
        self._path(body, f"l {css}")

    def box(
        self, x0: float, x1: float, y: float, height: float, css: str, words: str = "", rounded: float = 2
    ) -> None:
        """A bar from x0 to x1, ``height`` px tall around y, at least a hair wide; ``words`` on pointing at it."""
        left, right = sorted((self.x.at(x0), self.x.at(x1)))
        left, right = max(left, self.left), min(right, self.right)
        if right < left:
            return
        self.rect(left, self.y.at(y) - height / 2, max(right - left, 1.0), height, css, words, rounded)

    def shade(self, x0: float, x1: float, css: str) -> None:
        """The whole height of the area between two x."""
        left, right = max(self.x.at(x0), self.left), min(self.x.at(x1), self.right)
        if right >= left:
            self.rect(left, self.top, max(right - left, 0.6), self.bottom - self.top, f"{css} wash", "", 0)

    def upright(self, x: float, css: str) -> None:
        """A line over the whole height of the area."""
        at = self.x.at(x)
        if self.left - 0.5 <= at <= self.right + 0.5:
            self._path(f"M{number(at)} {number(self.top)}V{number(self.bottom)}", f"l {css}")

    def rect(
        self, left: float, top: float, wide: float, high: float, css: str, words: str = "", rounded: float = 2
    ) -> None:
        """A rectangle in px."""
        head = f'<rect class="a {css}" x="{number(left)}" y="{number(top)}" width="{number(wide)}"'
        head += f' height="{number(high)}"'
        head += f' rx="{number(rounded)}"' if rounded else ""
        self._add(f"{head}><title>{escape(words)}</title></rect>" if words else f"{head}/>")

    def cells(self, boxes: Iterable[tuple[float, float, float, float]], css: str) -> None:
        """Many rectangles (left, top, width, height in px) of one colour, as one path."""
        self._path(
            "".join(
                f"M{number(x)} {number(y)}h{number(w)}v{number(h)}h{number(-w)}z" for x, y, w, h in boxes
            ),
            f"a {css}",
        )

    def text(
        self, x: float, y: float, words: object, css: str = "", *, turn: float = 0, full: str = ""
    ) -> None:
        """Words at a place in px; ``full`` is what they are short for, told on pointing at them."""
        said = escape(words)
        turned = f' transform="rotate({number(turn)} {number(x)} {number(y)})"' if turn else ""
        title = f"<title>{escape(full)}</title>" if full and escape(full) != said else ""
        head = f'<text x="{number(x)}" y="{number(y)}"' + (f' class="{css}"' if css else "")
        self._add(f"{head}{turned}>{said}{title}</text>")

    def legend(self, items: Sequence[tuple[str, str, str]], up: float = 0) -> None:
        """Keys above the area, at the right: words, colour, and what they look like.

        That is ``line``, ``dash``, ``dots``, ``dot``, ``ring``, ``bar`` (a dot in its interval) or ``area``.

        Args:
            up: px above their usual place, for further rows of them.
        """
        at, y = self.right, self.top - 19 - up
        for words, css, shape in reversed(items):
            at -= width(words, 11.5)
            self.text(at, y + 4, words, "tick key")
            at -= 6
            left = number(at - 16)
            if shape in ("line", "dash", "dots"):
                style = {"line": "", "dash": " dash", "dots": " dot"}[shape]
                self._path(f"M{left} {number(y)}h16", f"l {css}{style}")
            elif shape in ("dot", "bar"):
                self._path(f"M{number(at - 8)} {number(y)}h0", f"d {css}", ' style="stroke-width:7px"')
                if shape == "bar":
                    self._path(f"M{number(at - 8)} {number(y - 7)}v14", f"l {css}")
            elif shape == "ring":
                self._path(f"M{number(at - 11)} {number(y)}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0", f"ring {css}")
            else:
                self.rect(at - 16, y - 5, 16, 10, css)
            at -= 16 + 14

    # --- the element

    def svg(self) -> str:
        """The ``<svg>`` element."""
        w, h = number(self.width), number(self.height)
        return (
            f'<svg role="img" aria-label="{escape(self.title)}" viewBox="0 0 {w} {h}" '
            f'style="--w:{w}px;max-width:{number(self.width * 1.15)}px">{"".join(self._parts)}</svg>'
        )

    def _add(self, part: str) -> None:
        self._parts.append(part)

    def _path(self, body: str, css: str, more: str = "") -> None:
        if body:
            self._add(f'<path class="{css}"{more} d="{body}"/>')


def _span(low: float, high: float, log: bool) -> tuple[float, float]:
    """Ends of a scale that has a length."""
    if log:
        low = low if low > 0 else 1e-12
        return (low, high) if high > low else (low / 2, low * 2)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    return log_ticks(low, high) if log else linear_ticks(low, high)


def _runs(known: NDArray[np.bool_]) -> list[slice]:
    """Where values are known one after another."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(np.int8), [0]])))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _pairs(xs: Floats, ys: Floats) -> str:
    return " ".join(f"{number(a)} {number(b)}" for a, b in zip(xs, ys, strict=True))


def _polyline(xs: Floats, ys: Floats, steps: bool) -> str:
    """A path through the known points; with ``steps``, flat until the next."""
    parts = []
    for run in _runs(np.isfinite(xs) & np.isfinite(ys)):
        if steps:
            first, *rest = zip(xs[run], ys[run], strict=True)
            body = "".join(f"H{number(a)}V{number(b)}" for a, b in rest)
            parts.append(f"M{number(first[0])} {number(first[1])}{body}")
        elif run.stop - run.start == 1:
            parts.append(f"M{_pairs(xs[run], ys[run])}h0")
        else:
            parts.append(f"M{_pairs(xs[run], ys[run])}")
    return "".join(parts)
