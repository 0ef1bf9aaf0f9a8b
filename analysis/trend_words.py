"""A trend for people and programs: plain columns, Markdown, JSON, JUnit, and one offline page with a plot a series."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from analysis import changepoints, history, junit, text
from analysis.compare_words import counted, escape, table
from analysis.difference import amount
from analysis.trend import NEW, ORDER, Line, Trend

# Of the JSON: schema, folder, smallest, despite, stamp, runs, unread, counts, exit_code, method, notes, series.
SCHEMA = 1
SHOWN = 60

_HEADER = ("status", "series", "metric", "runs", "level before", "last run", "change (95 %)", "why")


def headline(trend: Trend) -> str:
    """The trend in one line."""
    lost = sum(one.may_be_last for one in trend.unread)
    unread = f"; {text.count(lost, 'file')} that may hold the last run cannot be read" if lost else ""
    if not trend.lines:
        return f"nothing to show: no series in any results.h5 below this folder{unread}"
    counts = counted(trend.counts())
    words = {0: "the last run is not worse", 1: "the last run is worse", 3: "not everything could be told"}
    if not any(line.verdict for line in trend.lines):
        return f"for information ({trend.stamp or 'nothing judged'}): {counts}{unread}"
    information = trend.for_information()
    if not information:
        return f"{words[trend.exit_status()]}: {counts}{unread}"
    judged = {status: number - information.get(status, 0) for status, number in trend.counts().items()}
    said = f"{words[trend.exit_status()]}, of what is judged: {counted(judged)}"
    return f"{said}; for information, judging nothing: {counted(information)}{unread}"


def method(trend: Trend) -> str:
    """What the verdicts rest on."""
    words = f"the last run against the history: {history.METHOD}; levels by {changepoints.METHOD}"
    words += f"; smallest effect that matters: {trend.asked.smallest.words()}"
    if trend.series > 1:
        words += f"; p-values of {trend.series} series corrected (Benjamini-Hochberg, 5 %)"
    return words


def _median(values: tuple[float, ...], unit: str) -> str:
    return f"{text.quantity(float(np.median(values)), unit)} (n={len(values)})" if values else "none"


def cells(line: Line) -> tuple[str, ...]:
    """One series as the cells of a table."""
    e = line.expected
    level = f"{text.quantity(e.level, line.unit)} ({e.runs} runs)" if e is not None and e.runs else ""
    said = e.said(line.unit) if e is not None else ""
    runs = sum(bool(v) for v in line.values)
    last = _median(line.values[-1], line.unit)
    why = line.why + (" (for information)" if line.verdict is None and line.status != NEW else "")
    return line.status, line.label, line.name, str(runs), level, last, said, why


def changes(trend: Trend) -> list[str]:
    """Every change of level, in words."""
    found = []
    for line in trend.lines:
        for at, (before, after) in zip(line.changed, line.levels, strict=True):
            when = trend.runs[line.runs[at]].name
            ratio = before > 0 and after > 0
            by = amount(after / before - 1 if ratio else after - before, ratio, line.unit)
            found.append(
                f"{line.label} {line.name}: another level since {when}, {text.quantity(before, line.unit)} before, "
                f"{text.quantity(after, line.unit)} after ({by})"
            )
    return found


def to_accept(trend: Trend) -> list[str]:
    """How each lasting change for the worse is accepted, in words."""
    found: dict[str, list[str]] = {}
    for line in trend.lines:
        used = [run for run, fit in zip(line.runs, line.used, strict=True) if fit]
        if line.expected is not None and line.expected.lasts and line.expected.until < len(used) - 1:
            run_id = trend.runs[used[line.expected.until]].run_id
            found.setdefault(run_id, []).append(f"{line.label} {line.name}")
    return [
        text.one_line(
            f"to accept the level of {', '.join(names)}: harness trend {trend.folder} --accept {run_id}"
        )
        for run_id, names in found.items()
    ]


def words(trend: Trend) -> str:
    """For the terminal."""
    lines = [f"{text.one_line(trend.folder, 300)}: {text.count(len(trend.runs), 'run')}", headline(trend), ""]
    if trend.lines:
        rows = [cells(line) for line in trend.lines[:SHOWN]]
        rows = [(row[0].upper(), *row[1:]) for row in rows]
        lines.append(text.columns(_HEADER, rows, left=(0, 1, 2, 7), limit=240))
    if len(trend.lines) > SHOWN:
        lines.append(f"... and {len(trend.lines) - SHOWN} more; --json has all")
    lines += [
        "",
        *changes(trend),
        *to_accept(trend),
        method(trend),
        *(f"note: {note}" for note in trend.notes),
    ]
    return "\n".join(lines)


def markdown(trend: Trend) -> str:
    """Short, worst first."""
    parts = [f"### Trend: {escape(headline(trend), 400)}"]
    if trend.lines:
        parts.append(table(_HEADER, [cells(line) for line in trend.lines[:SHOWN]]))
    if len(trend.lines) > SHOWN:
        parts.append(f"{len(trend.lines) - SHOWN} more in the JSON.")
    notes = [*changes(trend), *to_accept(trend), method(trend), *trend.notes]
    parts.append("\n".join(f"- {escape(note, 400)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def data(trend: Trend) -> dict[str, Any]:
    """Everything, ready for JSON."""
    series = []
    for line in trend.lines:
        one = asdict(line)
        one["verdict"] = None if line.verdict is None else line.verdict.value
        if line.expected is not None:
            one["expected"]["verdict"] = line.expected.verdict.value
        texts = {name: text.clean(v) for name, v in one.items() if isinstance(v, str)}
        series.append({**one, **texts})
    runs = [
        {
            "path": text.clean(run.path),
            "campaign": text.clean(run.campaign),
            "site": text.clean(run.site),
            "run_id": text.clean(run.run_id),
            "wall_ns": run.wall_ns,
            "stamp": run.stamp,
        }
        for run in trend.runs
    ]
    return {
        "schema": SCHEMA,
        "folder": text.clean(trend.folder),
        "smallest": {"value": trend.asked.smallest.value, "relative": trend.asked.smallest.relative},
        "despite": sorted(trend.asked.despite),
        "stamp": trend.stamp,
        "counts": trend.counts(),
        "exit_code": trend.exit_status(),
        "headline": headline(trend),
        "method": method(trend),
        "compared": trend.series,
        "notes": trend.notes,
        "runs": runs,
        "unread": [
            {"path": text.clean(one.path), "why": one.why, "may_be_last": one.may_be_last}
            for one in trend.unread
        ],
        "series": series,
    }


def xml(trend: Trend) -> str:
    """JUnit: one test case a series, and one a file that cannot be read."""
    tests = []
    for line in trend.lines:
        row = cells(line)
        out = "\n".join(f"{name}: {value}" for name, value in zip(_HEADER, row, strict=True) if value)
        message = (
            f"{line.status}: {row[6] or line.why}" if line.verdict is not None else line.why or line.status
        )
        name = f"{line.label} {line.name}"
        tests.append(junit.Entry(f"trend.{line.campaign}", name, line.verdict, message, out, out))
    for one in trend.unread:
        tests.append(
            junit.Entry("trend.unread", one.path, one.verdict, f"cannot be read: {one.why}", one.why, one.why)
        )
    return junit.document("harness trend", tests)


def page(trend: Trend) -> str:
    """One offline page: the table, and a plot of each series."""
    from markupsafe import Markup

    from analysis.change_figures import over_time
    from analysis.judged_page import CSS, Figure, Section, TableRow, html, tiles
    from analysis.trend import VERDICTS

    rows = [TableRow(cells(line), CSS[line.verdict]) for line in trend.lines]
    drawn = []
    for line in trend.lines[:SHOWN]:
        span = line.expected.span if line.expected is not None else None
        names = [trend.runs[i].name[:10] for i in line.runs]
        worse = line.status == ORDER[0]
        svg = over_time(f"{line.label} {line.name}", line.unit, line.values, span, line.changed, names, worse)
        drawn.append(Figure(Markup(svg), f"{line.label} {line.name}: {line.status}"))
    more = len(trend.lines) - len(drawn)
    caption = (
        "Rings: repeats; line: their medians; grey: where the last run was expected; upright: another level."
    )
    sections = [
        Section("Series", header=_HEADER, rows=rows),
        Section("Over time", caption, drawn, notes=[f"{more} more series are not drawn"] if more else []),
        Section("Changes of level", notes=[*changes(trend), *to_accept(trend)] or ["none"]),
        Section("Notes", notes=trend.notes or ["every results.h5 below the folder was read"]),
    ]
    count = text.count(len(trend.runs), "run")
    return html(
        "Trend", headline(trend), method(trend), (f"{trend.folder}: {count}",), trend.stamp,
        tiles(trend.counts(), VERDICTS), sections,
    )  # fmt: skip
