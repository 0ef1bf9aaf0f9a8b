"""Figures of what happened when: the steps around one fault, and the whole campaign, node by node.

Labels are hostile here too; ``analysis.svg`` cleans and escapes them. What there is no room for is left out, and the
page says how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import svg, text
from analysis.recovery import Recovery
from analysis.results import CampaignResults, Row, names, samples_of
from analysis.stamps import clock_offsets
from harness.model.attempt import COMPLETED

MAXIMUM_NODES = 48  # lanes in one figure
MAXIMUM_BARS = 3000  # attempts times nodes in the figure of the campaign
MAXIMUM_LINES = 16  # ranks of an attempt whose steps are drawn
MAXIMUM_POINTS = 240  # of one line
FEW_ATTEMPTS = 4
WIDE = 1080.0  # px

_LANE = 24.0
_MARKS = (
    ("t0", "commanded", svg.MUTED),
    ("t1", "effect", svg.FAIL),
    ("t1v", "observed", svg.FAIL),
    ("t2", "detected", svg.WARN),
    ("t3", "blamed", svg.WARN),
    ("t4", "left", svg.MUTED),
    ("t5", "restarted", svg.SERIES[0]),
    ("t6", "loaded", svg.SERIES[0]),
    ("t7", "first step", svg.SERIES[0]),
    ("t8", "recovered", svg.PASS),
    ("t9", "as before", svg.PASS),
    ("healed", "healed", svg.MUTED),
)


def natural(name: str) -> tuple[str, int]:
    """Sorting key of a host name: n9 before n10."""
    digits = len(name) - len(name.rstrip("0123456789"))
    number = name[len(name) - digits :] if digits else ""
    return name[: len(name) - digits], int(number) if number.isascii() and len(number) < 18 and number else -1


def gutter(labels: Sequence[str], limit: int = 24) -> float:
    """Room for names at the left of rows, in px."""
    return max((svg.width(text.one_line(n, limit), 11.5) for n in labels), default=20.0) + 20


def _hosts(attempt: Row) -> list[str]:
    """Nodes on which an attempt had ranks, or those of its allocation where nobody said."""
    return list(dict.fromkeys(names(attempt["rank_nodes"]) or names(attempt["nodes"])))


# --- one fault --------------------------------------------------------------------------------------------


def around(results: CampaignResults, recovery: Recovery) -> list[Row]:
    """The attempts that tell a fault: the one it hit, and those until it had recovered, or the next where it never did.

    All of a case's, where they are few.
    """
    attempts = results.of_case("attempts", recovery.case_id)
    if len(attempts) <= FEW_ATTEMPTS:
        return attempts
    until = recovery.stamp("t8").wall_ns
    later = [a for a in attempts if a["index"] > recovery.hit_attempt]
    told = [a for a in later if a["start_wall_ns"] <= until] if until > 0 else later[:1]
    return [a for a in attempts if a["index"] == recovery.hit_attempt] + told[:FEW_ATTEMPTS]


@dataclass(frozen=True)
class _Line:
    """Steps of one rank in one attempt, at seconds after the fault."""

    attempt: int
    after_s: svg.Floats
    step: svg.Floats


def recovery_timeline(results: CampaignResults, recovery: Recovery) -> str:
    """Steps over time around one fault, a line each rank and attempt; below, the nodes of each attempt."""
    case = results.case(recovery.case_id)
    origin = recovery.stamp(recovery.origin).wall_ns
    if case is None or origin <= 0:
        return ""
    attempts = around(results, recovery)
    used = list(dict.fromkeys(n for a in attempts for n in _hosts(a)))[:MAXIMUM_NODES]
    lines = _progress(results, case, origin, attempts)
    low, high = _window(recovery, attempts, lines, origin)
    marks = [(after, words, css) for name, words, css in _MARKS
             if (after := recovery.stamp(name).after_s) is not None and low <= after <= high]  # fmt: skip
    left = max(gutter(used), 46.0)
    levels = _levels(marks, svg.Scale(low, high, left, WIDE - 16))
    top = 26 + 14.0 * max(levels, default=0) + 14
    lanes = _LANE * len(used)
    plot = svg.Plot(
        f"{recovery.label}: steps over time around {recovery.fault_id}",
        (WIDE, top + 200 + 14 + lanes + 42),
        (left, top, 16, 14 + lanes + 42),
    )
    _upper(plot, lines, (low, high), recovery, marks, levels)
    plot.area(top + 214, top + 214 + lanes)
    plot.rows(used, 24)
    did = "injected" if recovery.origin == "t1" else "requested"
    plot.x_axis(
        low, high, _seconds, svg.linear_ticks(low, high, 10), label=f"seconds after the fault was {did}"
    )
    _past(plot, recovery, marks)
    _lanes(plot, attempts, used, recovery, origin, lines)
    return plot.svg()


def _seconds(value: float) -> str:
    return f"{value:.4g}".replace("-", "\u2212")


def _upper(
    plot: svg.Plot,
    lines: Sequence[_Line],
    span: tuple[float, float],
    recovery: Recovery,
    marks: Sequence[tuple[float, str, str]],
    levels: Sequence[int],
) -> None:
    """Steps over time, under the names of the marks."""
    plot.x_axis(*span)
    every = np.concatenate([line.step for line in lines]) if lines else np.array([0.0, 1.0])
    low, high = float(every.min()), float(every.max())
    pad = max(1.0, (high - low) * 0.06)
    shown = [t for t in svg.whole_ticks(low, high + pad, 5) if t >= 0]
    plot.y_axis(low - pad, high + pad, lambda v: f"{v:.0f}", shown, label="step")
    _past(plot, recovery, marks)
    for line in lines:
        inside = (line.after_s >= span[0]) & (line.after_s <= span[1])
        if np.any(inside):
            plot.line(
                line.after_s[inside], line.step[inside], f"{svg.series_colour(line.attempt)} soft", steps=True
            )
    for (after, words, css), level in zip(marks, levels, strict=True):
        plot.text(plot.x.at(after), plot.top - 6 - 14 * level, words, f"tick mid {css}")


def _past(plot: svg.Plot, recovery: Recovery, marks: Sequence[tuple[float, str, str]]) -> None:
    """The shade until it had recovered, and a line at each mark."""
    recovered = recovery.stamp("t8").after_s
    if recovered is not None:
        plot.shade(0, recovered, svg.FAIL)
    for after, words, css in marks:
        plot.upright(after, f"{css} thin" if words == "effect" else f"{css} thin dash")


def _levels(marks: Sequence[tuple[float, str, str]], scale: svg.Scale) -> list[int]:
    """For each mark the height of its words, so that none stands on another's."""
    placed: list[tuple[float, float, int]] = []
    found = [0] * len(marks)
    for number in sorted(range(len(marks)), key=lambda n: marks[n][0]):
        after, words, _ = marks[number]
        half = svg.width(words, 11) / 2 + 3
        begin, end = scale.at(after) - half, scale.at(after) + half
        level = 0
        while any(lv == level and begin < e and b < end for b, e, lv in placed):
            level += 1
        placed.append((begin, end, level))
        found[number] = level
    return found


def _window(
    recovery: Recovery, attempts: Sequence[Row], lines: Sequence[_Line], origin: int
) -> tuple[float, float]:
    """What is shown, in seconds after the fault: what happened, and no more before and after it than that is long."""
    known = [after for name, _, _ in _MARKS if (after := recovery.stamp(name).after_s) is not None]
    begins = [(a["start_wall_ns"] - origin) / 1e9 for a in attempts if a["start_wall_ns"] > 0]
    ends = [(a["end_wall_ns"] - origin) / 1e9 for a in attempts if a["end_wall_ns"] > 0]
    ends += [float(line.after_s[-1]) for line in lines if len(line.after_s)]
    first, last = min([0.0, *known, *begins]), max([0.0, *known, *ends])
    room = 1.2 * max([*known, 0.0]) or last - first or 1.0
    low, high = max(first, min([*known, 0.0]) - room), min(last, max([*known, 0.0]) + room)
    pad = 0.02 * (high - low) or 0.5
    return low - pad, high + pad


def _progress(results: CampaignResults, case: Row, origin: int, attempts: Sequence[Row]) -> list[_Line]:
    """When each rank of each attempt finished its steps; ranks and points are thinned where there are many."""
    if not results.has_samples(samples_of(case), "steps"):
        return []
    samples = results.case_samples(case["case_id"], "steps", all_attempts=True)
    offsets = clock_offsets(results)
    index = results.attempt_index(samples["attempt"])
    found = []
    for attempt in (a["index"] for a in attempts):
        of_attempt = index == attempt
        ranks = np.unique(samples["rank"][of_attempt])
        for rank in ranks[:: max(1, -(-len(ranks) // MAXIMUM_LINES))]:
            mine = np.flatnonzero(of_attempt & (samples["rank"] == rank))
            node = int(samples["node"][mine[0]])
            host = results.nodes[node] if 0 <= node < len(results.nodes) else ""
            if host not in offsets:
                continue  # without its host's clock there is no place on the time line
            mine = mine[:: max(1, -(-len(mine) // MAXIMUM_POINTS))]
            ends = samples["start_mono_ns"][mine] + samples["step_time_ns"][mine] + offsets[host]
            order = np.argsort(ends)
            found.append(
                _Line(
                    int(attempt),
                    (ends[order] - origin) / 1e9,
                    samples["step"][mine][order].astype(np.float64),
                )
            )
    return found


def _lanes(
    plot: svg.Plot,
    attempts: Sequence[Row],
    used: Sequence[str],
    recovery: Recovery,
    origin: int,
    lines: Sequence[_Line],
) -> None:
    """A bar on each node for each attempt that had ranks on it; paler where nobody wrote when it ended."""
    last_seen: Mapping[int, float] = {
        line.attempt: float(line.after_s[-1]) for line in lines if len(line.after_s)
    }
    for attempt in attempts:
        start = (attempt["start_wall_ns"] - origin) / 1e9
        end_ns = attempt["end_wall_ns"]
        end = (end_ns - origin) / 1e9 if end_ns > 0 else max(start, last_seen.get(attempt["index"], start))
        css = svg.series_colour(attempt["index"]) + ("" if end_ns > 0 else " faint")
        words = f"attempt {attempt['index']}"
        for node in _hosts(attempt):
            if node not in used:
                continue
            hit = node in recovery.nodes and attempt["index"] == recovery.hit_attempt
            stop = min(end, 0.0) if hit and end > 0 > start else end
            row = used.index(node)
            plot.box(start, stop, row, 15, css, f"{words} on {node}")
            left = max(plot.x.at(start), plot.left) + 5
            if left + svg.width(words, 11) < min(plot.x.at(stop), plot.right):
                plot.text(left, plot.y.at(row) + 4, words, "tick on")
            if hit and plot.left <= plot.x.at(stop) <= plot.right:
                plot.crosses([stop], [row], svg.FAIL, 5)


# --- the whole campaign -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lanes:
    """The figure of the campaign, its colours in words, and what is not in it."""

    figure: str
    groups: tuple[tuple[str, str], ...]  # name, colour
    left_out: str


def campaign(results: CampaignResults) -> Lanes | None:
    """Every attempt of this run on every node over time; a cross where one did not complete, a mark for a fault."""
    own = [results.attempts[n] for n in results.own_attempts]
    attempts = sorted((a for a in own if a["start_wall_ns"] > 0), key=lambda a: a["start_wall_ns"])
    placed = [(a, node) for a in attempts for node in _hosts(a)]
    used = sorted({node for _, node in placed}, key=natural)
    if not used:
        return None
    shown = used[:MAXIMUM_NODES]
    bars = [(a, node) for a, node in placed if node in set(shown)]
    left_out = []
    if len(used) > len(shown):
        left_out.append(f"{len(used) - len(shown)} more nodes")
    if len(bars) > MAXIMUM_BARS:
        left_out.append(f"the last {len(bars) - MAXIMUM_BARS} of {len(bars)} bars")
        bars = bars[:MAXIMUM_BARS]
    groups = list(dict.fromkeys(c["group"] for c in results.cases))
    of_case = {c["case_id"]: c for c in results.cases}
    begin = bars[0][0]["start_wall_ns"]
    end_s = max((_end_ns(a) - begin) / 1e9 for a, _ in bars)
    row = {node: number for number, node in enumerate(shown)}
    left = max(gutter(shown), 46.0)
    plot = svg.Plot("What ran when, on which node", (WIDE, 16 + _LANE * len(shown) + 46), (left, 10, 16, 46))
    plot.rows(shown, 24)
    unit, factor = _unit(end_s)
    span = (0.0, (end_s or 1.0) / factor)
    plot.x_axis(
        -span[1] * 0.005, span[1] * 1.01, _seconds, svg.linear_ticks(*span, 10), label=f"{unit} since the first start",
        grid=True,
    )  # fmt: skip
    few = len(bars) <= 600
    broken: list[tuple[float, int]] = []
    for attempt, node in bars:
        case = of_case.get(attempt["case_id"])
        css = svg.series_colour(groups.index(case["group"])) if case else svg.MUTED
        at, until = ((t - begin) / 1e9 / factor for t in (attempt["start_wall_ns"], _end_ns(attempt)))
        words = f"{case['label'] if case else attempt['case_id']}, attempt {attempt['index']}: {attempt['outcome']}"
        plot.box(at, until, row[node], 14, css, words if few else "", 2 if few else 0)
        if attempt["outcome"] != COMPLETED:
            broken.append((until, row[node]))
    _strikes(plot, results, begin, factor)
    plot.crosses([x for x, _ in broken], [float(y) for _, y in broken], svg.FAIL, 3.5)
    named = tuple((name, svg.series_colour(number)) for number, name in enumerate(groups))
    return Lanes(plot.svg(), named[:8], " and ".join(left_out))


def _end_ns(attempt: Row) -> int:
    """When an attempt ended; where nobody wrote it, when it began."""
    return int(max(attempt["end_wall_ns"], attempt["start_wall_ns"]))


def _unit(span_s: float) -> tuple[str, float]:
    """Unit of a time axis, and its length in s."""
    return ("hours", 3600.0) if span_s > 3 * 3600 else ("minutes", 60.0) if span_s > 180 else ("seconds", 1.0)


def _strikes(plot: svg.Plot, results: CampaignResults, begin: int, factor: float) -> None:
    """A line at each fault that struck."""
    for fault in results.faults[:400]:
        at = fault["injected_wall_ns"] or fault["requested_wall_ns"]
        if at > 0:
            plot.upright((at - begin) / 1e9 / factor, f"{svg.FAIL} thin soft")
