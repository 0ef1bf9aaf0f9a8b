"""Drawing a matplotlib figure as SVG that lives inside a page: themed by the page, the same bytes every time.

Colours are drawn as sentinels and become CSS variables, so one figure is legible in light and in dark. Text
stays text. Ids are prefixed, so that figures do not meet; metadata, dates and namespaces are dropped.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.text import one_line

INK, MUTED, LINE, PANEL = "#010101", "#010102", "#010103", "#010104"
PASS, FAIL, WARN = "#010105", "#010106", "#010107"
SERIES = ("#020201", "#020202", "#020203", "#020204", "#020205", "#020206", "#020207", "#020208")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    PANEL: "panel",
    PASS: "pass",
    FAIL: "fail",
    WARN: "warn",
    **{colour: f"s{number + 1}" for number, colour in enumerate(SERIES)},
}
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hpc-harness",
    "text.parse_math": False,  # a label that holds $ is text, not mathematics
    "font.family": "DejaVu Sans",  # comes with matplotlib; the page shows its own
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


def series_colour(number: int) -> str:
    """The colour of the nth series; they repeat after eight."""
    return SERIES[number % len(SERIES)]


def draw(title: str, width_in: float, height_in: float, plot: Callable[[Figure], None]) -> str:
    """Draw ``plot`` on a new figure and return an ``<svg>`` element for a page.

    Args:
        title: what the figure shows, for those who cannot see it; may be hostile, is escaped here.
        plot: draws on the figure; may use the colours of this module only.
    """
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the measuring font lacks: the page's font has them
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        plot(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), title)


class Segments:
    """Many line segments as one path; a segment of no length is a dot when its ends are round."""

    def __init__(self) -> None:
        self._x: list[float] = []
        self._y: list[float] = []

    def add(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Append a segment."""
        self._x += [x0, x1, math.nan]
        self._y += [y0, y1, math.nan]

    def plot(self, axes: Axes, **style: Any) -> None:
        """Draw all of them with one style; the path is kept as it is, since dots have no length."""
        (line,) = axes.plot(self._x, self._y, **style)
        line.get_path().should_simplify = False


def axes(figure: Figure) -> Axes:
    """The only axes of a figure."""
    return figure.add_subplot()


def _inline(document: str, title: str) -> str:
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<style type="text/css">.*?</style>', "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    size = box.group(1).split() if box else ["0", "0", "100", "100"]
    prefix = "f" + hashlib.sha256(body.encode("utf-8", "replace")).hexdigest()[:8]
    rest = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', rest)
    rest = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", rest)
    rest = re.sub(r'xlink:href="#([^"]*)"', rf'href="#{prefix}-\1"', rest)
    rest = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--sans)", rest)
    for colour, name in _VARIABLES.items():
        rest = rest.replace(colour, f"var(--{name})")
    rest = re.sub(r"\n\s*", "\n", rest)
    width_px = float(size[2]) * 4 / 3
    label = html.escape(one_line(title, 200), quote=True)
    return (
        f'<svg role="img" aria-label="{label}" viewBox="{" ".join(size)}" '
        f'style="max-width:{width_px:.0f}px">{rest.strip()}'
    )
