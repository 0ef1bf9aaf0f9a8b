"""A comparison for people and programs: plain columns, Markdown for a pull request, JSON, JUnit.

The worst comes first, and what is shortened says what it left out; the JSON leaves out nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from analysis import junit, text
from analysis.compare import NEW, ORDER, Comparison, Line
from analysis.difference import Change
from harness.model.verdict import Verdict

SCHEMA = (
    1  # of the JSON: schema, a, b, smallest, despite, stamp, counts, verdicts, exit_code, notes, lines ...
)
QUIET = (Change.BETTER.value, Change.NOT_WORSE.value, Change.WITHIN_NOISE.value, NEW)
SHOWN, SHOWN_QUIET = 60, 20  # of each status, on a terminal
IN_REQUEST = 12  # of each status, in a pull request

HEADER = ("series", "metric", "A, median", "B, median", "estimated shift (95 %)", "why")
SHIFT = (
    "the shift is Hodges and Lehmann's estimate (the median of the ratios, or differences, of each repeat of B to each "
    "of A) and not that of the two medians, which is shown where an interval cannot be, below 6 repeats"
)

# Verdicts of a whole comparison in a few words, by exit code.
HEADLINES = {0: "nothing is worse", 1: "something is worse", 3: "not everything could be told"}


def headline(found: Comparison) -> str:
    """The comparison in one line."""
    counts = found.counts()
    if not any(counts.values()):
        return "nothing to compare: no series in either file"
    if found.stamp and not sum(found.verdicts().values()):
        return f"for information ({found.stamp}): {counted(counts)}"
    information = found.for_information()
    if not information:
        return f"{HEADLINES[found.exit_status()]}: {counted(counts)}"
    judged = {status: number - information.get(status, 0) for status, number in counts.items()}
    words = f"{HEADLINES[found.exit_status()]} of what is judged: {counted(judged)}"
    return f"{words}; for information ({found.stamp}), judging nothing: {counted(information)}"


def counted(counts: Mapping[str, int]) -> str:
    """How many lines have each status: ``1 worse, 2 within noise``."""
    return ", ".join(f"{number} {status}" for status, number in counts.items() if number)


def figures(line: Line) -> tuple[str, str, str]:
    """A, B (median and repeats) and the change with its interval; empty where there is none."""
    d = line.difference
    if d is None:
        return "", "", ""
    a, b = (
        f"{text.quantity(m, line.unit)} (n={n})" if n else "none"
        for m, n in ((d.median_a, d.n_a), (d.median_b, d.n_b))
    )
    return a, b, d.said(line.unit)


def method(found: Comparison) -> str:
    """What the verdicts rest on."""
    words = f"smallest effect that matters: {found.asked.smallest.words()} "
    words += "of the baseline" if found.asked.smallest.relative else "(in each metric's unit)"
    words += f"; {SHIFT}; its 95 % interval by rank test"
    if found.series > 1:
        words += f"; p-values of {found.series} series corrected (Benjamini-Hochberg, 5 %)"
    return words


def _information(line: Line, stamp: str) -> str:
    return f" ({stamp}: for information)" if line.verdict is None and line.status != NEW and stamp else ""


def words(found: Comparison) -> str:
    """For the terminal."""
    lines = [f"A  {text.one_line(found.a, 300)}", f"B  {text.one_line(found.b, 300)}", headline(found), ""]
    rows, hidden = [], 0
    counts = found.counts()
    for status in ORDER:
        limit = SHOWN_QUIET if status in QUIET else SHOWN
        hidden += max(0, counts[status] - limit)
        for line in found.lines((status,), limit):
            why = line.why + _information(line, found.stamp)
            rows.append((status.upper(), line.label, line.name, *figures(line), why))
    if rows:
        header = ("status", *HEADER)
        lines.append(text.columns(header, rows, left=(0, 1, 2, 6), limit=240))
    if hidden:
        lines.append(f"... and {text.count(hidden, 'line')} more; --json has all")
    lines += ["", method(found)]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"not compared, neither higher nor lower is better: {c}" for c in found.not_compared]
    return "\n".join(lines)


# --- Markdown ----------------------------------------------------------------------------------------


def escape(value: object, limit: int = 200) -> str:
    """Text that Markdown and the HTML in it take for text, and that mentions nobody and refers to nothing.

    Each sign is replaced once, by itself. Names and numbers of issues are looked for in what was rendered, where an
    escaped sign is the sign again: only something between (a space of no width, as Renovate writes it) parts them.
    """
    return _SPECIAL.sub(_literal, text.one_line(value, limit))


_SPECIAL = re.compile(
    r"""(?P<html>[<>&])
    | (?P<mark>^[-+](?!\d) | [\\`*_\[\]|~] | \#(?!\d))
    | (?P<reference>@ | [\#!](?=\d) | GH(?=-\d) | :(?=//) | www(?=\.))""",
    re.VERBOSE | re.IGNORECASE,
)
_NO_WIDTH = "&#8203;"


def _literal(found: re.Match[str]) -> str:
    sign = found[0]
    if found["html"]:
        return {"<": "&lt;", ">": "&gt;", "&": "&amp;"}[sign]
    if found["mark"]:
        return f"\\{sign}"
    return f"\\#{_NO_WIDTH}" if sign == "#" else f"{sign}{_NO_WIDTH}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(" --- " for _ in header) + "|"]
    lines += ["| " + " | ".join(escape(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def _request_rows(found: Comparison, statuses: Iterable[str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for line in found.lines(statuses, IN_REQUEST):
        said = f"{line.status}{_information(line, found.stamp)}"
        rows.append((said, line.label, line.name, *figures(line), line.why))
    return rows


def markdown(found: Comparison) -> str:
    """For a pull request: short, worst first, what is quiet folded away."""
    header = ("", *HEADER)
    loud = _request_rows(found, [s for s in ORDER if s not in QUIET])
    quiet = _request_rows(found, QUIET)
    parts = [f"### Performance: {escape(headline(found), 400)}"]
    parts.append(f"A (baseline): `{_code(found.a)}`, B: `{_code(found.b)}`")
    if loud:
        parts.append(table(header, loud))
    if quiet:
        folded = table(header, quiet)
        parts.append(f"<details><summary>{_quiet_words(found)}</summary>\n\n{folded}\n\n</details>")
    hidden = sum(found.counts().values()) - len(loud) - len(quiet)
    if hidden > 0:
        parts.append(f"{text.count(hidden, 'line')} more in the JSON.")
    notes = [method(found), *found.notes]
    parts.append("\n".join(f"- {escape(note, 400)}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _code(value: str) -> str:
    return text.one_line(value, 200).replace("`", "'")


def _quiet_words(found: Comparison) -> str:
    counts = found.counts()
    return ", ".join(f"{counts[s]} {s}" for s in QUIET if counts[s])


# --- for programs ------------------------------------------------------------------------------------


def line_data(line: Line) -> dict[str, Any]:
    """One line, ready for JSON."""
    data: dict[str, Any] = {
        name: text.clean(getattr(line, name))
        for name in (
            "status",
            "label",
            "group",
            "workload",
            "metric",
            "unit",
            "direction",
            "place",
            "node",
            "why",
        )
    }
    data |= {"nodes": line.nodes, "ranks": line.ranks}
    data["verdict"] = None if line.verdict is None else line.verdict.value
    data["difference"] = None
    if line.difference is not None:
        data["difference"] = {**asdict(line.difference), "verdict": line.difference.verdict.value}
    return data


def data(found: Comparison) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "schema": SCHEMA,
        "a": text.clean(found.a),
        "b": text.clean(found.b),
        "smallest": {"value": found.asked.smallest.value, "relative": found.asked.smallest.relative},
        "despite": sorted(found.asked.despite),
        "stamp": found.stamp,
        "counts": found.counts(),
        "verdicts": {v.value: number for v, number in found.verdicts().items()},
        "exit_code": found.exit_status(),
        "headline": headline(found),
        "method": method(found),
        "compared": found.series,
        "notes": found.notes,
        "not_compared": found.not_compared,
        "lines": [line_data(line) for line in found.lines()],
    }


def xml(found: Comparison) -> str:
    """JUnit: one test case a line."""
    tests = []
    for line in found.lines():
        a, b, change = figures(line)
        out = "\n".join(
            f"{name} {value}"
            for name, value in (("A", a), ("B", b), ("change", change), ("why", line.why))
            if value
        )
        message = f"{line.status}: {change or line.why}"
        if line.verdict is Verdict.UNKNOWN and change:
            message = f"{line.status}: {line.why}"
        if line.verdict is None:
            message = found.stamp if line.status != NEW else line.status
        name = f"{line.label} {line.name}".strip()
        tests.append(junit.Entry(f"compare.{line.group}", name, line.verdict, message, out, out))
    return junit.document("harness compare", tests)
