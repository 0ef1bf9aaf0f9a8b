"""A comparison or a trend as one offline page without any script, in the report's looks; what is given is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis import text
from harness.model.verdict import Verdict

CSS = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "fail",
    Verdict.WITHIN_NOISE: "noise",
    Verdict.INVALID: "invalid",
    Verdict.UNKNOWN: "unknown",
    None: "info",
}


@dataclass(frozen=True)
class Figure:
    """An ``<svg>`` element, whose labels are escaped already, and its caption."""

    svg: Markup
    words: str


@dataclass(frozen=True)
class TableRow:
    """Cells of a table; the first has the colour of the verdict."""

    cells: Sequence[str]
    css: str


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    words: str = ""
    figures: Sequence[Figure] = ()
    header: Sequence[str] = ()
    rows: Sequence[TableRow] = ()
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Tile:
    """A number with its name."""

    name: str
    count: int
    css: str


def tiles(counts: Mapping[str, int], verdicts: Mapping[str, Verdict | None]) -> list[Tile]:
    """A tile for each status."""
    return [Tile(name, number, CSS[verdicts[name]]) for name, number in counts.items()]


def html(
    title: str,
    headline: str,
    method: str,
    eyebrow: Sequence[str],
    stamp: str,
    counted: Sequence[Tile],
    sections: Sequence[Section],
) -> str:
    """The page."""
    loader = PackageLoader("analysis", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: text.clean(value) if type(value) is str else value,
    )
    style = loader.get_source(environment, "report.css")[0]
    return environment.get_template("judged.html.j2").render(
        title=title, headline=headline, method=method, eyebrow=eyebrow, stamp=stamp, tiles=counted,
        sections=sections, style=Markup(style),
    )  # fmt: skip
