"""A comparison as one offline HTML page: what is worse first, the changes with their intervals, every line."""

from __future__ import annotations

from markupsafe import Markup

from analysis import change_figures
from analysis.compare import ORDER, VERDICTS, Comparison
from analysis.compare_words import HEADER, QUIET, figures, headline, method
from analysis.judged_page import CSS, Figure, Section, TableRow, html, tiles

SHOWN = 500  # lines of each status; the JSON has all

_HEADER = ("status", *HEADER)


def _table(found: Comparison, title: str, statuses: tuple[str, ...]) -> Section | None:
    rows = [
        TableRow((x.status, x.label, x.name, *figures(x), x.why), CSS[x.verdict])
        for x in found.lines(statuses, SHOWN)
    ]
    counts = found.counts()
    hidden = sum(counts[s] for s in statuses) - len(rows)
    notes = [f"{hidden} more lines are in the JSON"] if hidden else []
    return Section(title, header=_HEADER, rows=rows, notes=notes) if rows else None


def page(found: Comparison) -> str:
    """The page."""
    loud = tuple(s for s in ORDER if s not in QUIET)
    drawn = change_figures.drawable(list(found.lines(limit=change_figures.MAXIMUM_ROWS)))
    sections = [_table(found, "What needs a look", loud)]
    if drawn:
        svg = Markup(change_figures.changes(drawn, found.asked.smallest))
        full = len(drawn) == change_figures.MAXIMUM_ROWS
        words = f"the first {len(drawn)} series, worst first" if full else ""
        sections.append(Section("Changes", figures=[Figure(svg, words)]))
    sections.append(_table(found, "What did not get worse", QUIET))
    notes = [*found.notes, *(f"neither higher nor lower is better: {c}" for c in found.not_compared)]
    sections.append(Section("Circumstances", notes=notes or ["nothing else differs between the files"]))
    return html(
        "Comparison", headline(found), method(found), (f"A (baseline): {found.a}", f"B: {found.b}"), found.stamp,
        tiles(found.counts(), VERDICTS), [s for s in sections if s is not None],
    )  # fmt: skip
