"""Figures of what happened when and where: recoveries, nodes by cases, counters over the campaign.

The same conventions as in ``analysis.figures``; labels are hostile here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

from analysis import svg
from analysis.figures import byte_ticks, label, ticks
from analysis.load import CampaignResults, Row, names, samples_of
from analysis.recovery import Recovery
from analysis.series import Floats
from analysis.stamps import clock_offsets
from harness.model.attempt import COMPLETED
from harness.store import Table

MAXIMUM_NODES = 128
FEW_ATTEMPTS = 4
MAXIMUM_COLUMNS = 200  # cases in the heat map

# --- recovery ---------------------------------------------------------------------------------------------

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


def recovery_timeline(results: CampaignResults, recovery: Recovery) -> str:
    """Steps over time around one fault, a line each rank and attempt; below, the nodes of each attempt."""
    case = results.case(recovery.case_id)
    origin = recovery.stamp(recovery.origin).wall_ns
    if case is None or origin <= 0:
        return ""
    attempts = around(results, recovery)
    used = list(dict.fromkeys(n for a in attempts for n in names(a["rank_nodes"]) or names(a["nodes"])))
    used = used[:MAXIMUM_NODES]

    def plot(figure: Figure) -> None:
        lanes = max(0.55, 0.28 * len(used) + 0.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, lanes])
        last_seen = _progress(upper, results, case, origin, attempts)
        _lanes(lower, attempts, used, recovery, origin, last_seen)
        recovered = recovery.stamp("t8").after_s
        for axes in (upper, lower):
            if recovered is not None:
                axes.axvspan(0, recovered, color=svg.FAIL, alpha=0.07, linewidth=0)
            for name, _, colour in _MARKS:
                after = recovery.stamp(name).after_s
                if after is not None:
                    axes.axvline(after, color=colour, linewidth=1.1, linestyle="-" if name == "t1" else "--")
        _name_marks(upper, recovery)
        did = "injected" if recovery.origin == "t1" else "requested"
        lower.set_xlabel(f"seconds after the fault was {did}")

    marks = sum(recovery.stamp(name).after_s is not None for name, _, _ in _MARKS)
    height = 2.2 + 0.28 * len(used) + 0.16 * marks  # their words may stand above each other
    return svg.draw(f"{recovery.label}: steps over time around {recovery.fault_id}", 11.0, height, plot)


def _progress(
    axes: Axes, results: CampaignResults, case: Row, origin: int, attempts: Sequence[Row]
) -> dict[int, float]:
    """Steps over time, a line for each rank of each attempt; returns when each attempt finished its last step."""
    last_seen: dict[int, float] = {}
    axes.set_ylabel("step")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    shown = [a["index"] for a in attempts]
    if len(shown) == len(results.of_case("attempts", case["case_id"])):
        axes.axhline(case["steps"] - 1, color=svg.MUTED, linewidth=0.9, linestyle=":")
    if not results.has_samples(samples_of(case), "steps"):
        return last_seen
    samples = results.case_samples(case["case_id"], "steps", all_attempts=True)
    offsets = clock_offsets(results)
    index = results.attempt_index(samples["attempt"])
    for attempt in shown:
        for rank in np.unique(samples["rank"]):
            mine = (index == attempt) & (samples["rank"] == rank)
            node = int(samples["node"][mine][0]) if np.any(mine) else -1
            host = results.nodes[node] if 0 <= node < len(results.nodes) else ""
            if host not in offsets:
                continue  # without its host's clock there is no place on the time line
            ends = samples["start_mono_ns"][mine] + samples["step_time_ns"][mine] + offsets[host]
            order = np.argsort(ends)
            after = (ends[order] - origin) / 1e9
            last_seen[int(attempt)] = max(last_seen.get(int(attempt), -np.inf), float(after[-1]))
            axes.step(
                after,
                samples["step"][mine][order],
                where="post",
                linewidth=1.3,
                color=svg.series_colour(int(attempt)),
                alpha=0.75,
            )
    return last_seen


def _lanes(
    axes: Axes,
    attempts: Sequence[Row],
    used: Sequence[str],
    recovery: Recovery,
    origin: int,
    last_seen: Mapping[int, float],
) -> None:
    """A bar on each node for each attempt that had ranks on it; paler where nobody wrote when it ended."""
    for attempt in attempts:
        start = (attempt["start_wall_ns"] - origin) / 1e9
        end_ns = attempt["end_wall_ns"]
        end = (end_ns - origin) / 1e9 if end_ns > 0 else max(start, last_seen.get(attempt["index"], start))
        colour = svg.series_colour(attempt["index"])
        for node in dict.fromkeys(names(attempt["rank_nodes"]) or names(attempt["nodes"])):
            if node not in used:
                continue
            hit = node in recovery.nodes and attempt["index"] == recovery.hit_attempt
            stop = min(end, 0.0) if hit and end > 0 > start else end
            row = used.index(node)
            shade = 0.8 if end_ns > 0 else 0.45
            axes.barh(row, stop - start, left=start, height=0.5, color=colour, alpha=shade, linewidth=0)
            axes.annotate(
                f"attempt {attempt['index']}",
                (start, row),
                xytext=(4, 0),
                va="center",
                fontsize=7.5,
                textcoords="offset points",
                color=svg.PANEL,
                annotation_clip=True,
            )
            if hit:
                axes.plot([stop], [row], "x", color=svg.FAIL, markersize=8, markeredgewidth=2)
    axes.set_yticks(range(len(used)), [label(n, 24) for n in used])
    axes.set_ylim(len(used) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def _name_marks(axes: Axes, recovery: Recovery) -> None:
    """Words above the marks; one that would stand on another's words goes a line higher."""
    placed: list[tuple[float, int]] = []
    low, high = axes.get_xlim()
    room = (high - low) * 0.075
    found = [(recovery.stamp(name).after_s, words, colour) for name, words, colour in _MARKS]
    for after, words, colour in sorted((f for f in found if f[0] is not None), key=lambda f: f[0] or 0.0):
        assert after is not None
        level = 0
        while any(lv == level and abs(after - x) < room for x, lv in placed):
            level += 1
        placed.append((after, level))
        axes.annotate(
            words,
            (after, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3 + 11 * level),
            ha="center",
            textcoords="offset points",
            fontsize=8,
            color=colour,
            annotation_clip=False,
        )


# --- what ran where ---------------------------------------------------------------------------------------


def where_it_ran(results: CampaignResults) -> str:
    """Nodes by cases: the darker a cell, the more ranks of the last attempt; a cross where one was lost."""
    cases = [c for c in results.cases if results.of_case("attempts", c["case_id"])][:MAXIMUM_COLUMNS]
    placed: dict[tuple[str, int], int] = {}
    lost: set[tuple[str, int]] = set()
    for column, case in enumerate(cases):
        attempts = results.of_case("attempts", case["case_id"])
        for node in names(attempts[-1]["rank_nodes"]):
            placed[node, column] = placed.get((node, column), 0) + 1
        for attempt in attempts:
            if attempt["outcome"] != COMPLETED:
                lost |= {(node, column) for node in names(attempt["rank_nodes"])}
    used = sorted({node for node, _ in (*placed, *lost)}, key=natural)[:MAXIMUM_NODES]
    if not used:
        return ""
    rows = {node: row for row, node in enumerate(used)}
    most = max(placed.values(), default=1)

    def plot(figure: Figure) -> None:
        axes = svg.axes(figure)
        for ranks in sorted(set(placed.values())):  # one path for each shade
            cells = [
                Path.unit_rectangle().transformed(
                    Affine2D().scale(0.92, 0.84).translate(c - 0.46, rows[n] - 0.42)
                )
                for (n, c), found in placed.items()
                if found == ranks and n in rows
            ]
            if cells:
                shape = Path.make_compound_path(*cells)
                shade = 0.25 + 0.65 * ranks / most
                axes.add_patch(PathPatch(shape, linewidth=0, facecolor=svg.SERIES[0], alpha=shade))
        crosses = sorted((column, rows[node]) for node, column in lost if node in rows)
        for column, row in crosses:
            axes.plot([column], [row], "x", color=svg.FAIL, markersize=7, markeredgewidth=1.8)
        axes.set_xticks(range(len(cases)), [label(c["label"], 28) for c in cases])
        axes.tick_params(axis="x", labelrotation=60)
        for words in axes.get_xticklabels():
            words.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(used)), [label(n, 24) for n in used])
        axes.set_xlim(-0.6, len(cases) - 0.4)
        axes.set_ylim(len(used) - 0.4, -0.6)
        axes.grid(visible=False)
        axes.tick_params(length=0)

    width = max(4.7, 1.2 + 0.26 * len(cases))
    return svg.draw("Which node ran ranks of which case", width, 1.7 + 0.27 * len(used), plot)


def natural(name: str) -> tuple[str, int]:
    """Sorting key of a host name: n9 before n10."""
    digits = len(name) - len(name.rstrip("0123456789"))
    number = name[len(name) - digits :] if digits else ""
    return name[: len(name) - digits], int(number) if number.isascii() and len(number) < 18 and number else -1


# --- telemetry --------------------------------------------------------------------------------------------

_HOST = (
    ("cpu_percent", "processor", "%", False),
    ("memory_used_bytes", "memory used", "B", False),
    ("network_sent_bytes", "network, sent", "B/s", True),
    ("network_received_bytes", "network, received", "B/s", True),
)
_GPU = (
    ("gpu_utilisation_percent", "GPU", "%", False),
    ("gpu_memory_used_bytes", "GPU memory used", "B", False),
    ("gpu_power_w", "GPU power", "W", False),
    ("gpu_temperature_c", "GPU temperature", "degC", False),
)


def telemetry(results: CampaignResults) -> list[tuple[str, str]]:
    """Small plots of host and GPU counters over the campaign, a line each node: ``(what, svg)``."""
    found = []
    for table, kinds in (("host", _HOST), ("gpu", _GPU)):
        if not results.has_samples("telemetry", table):
            continue
        samples = results.samples("telemetry", table)
        for column, words, unit, counter in kinds:
            if column in samples and len(samples[column]):
                found.append((words, _counter(results, samples, column, words, unit, counter)))
    return found


def _counter(
    results: CampaignResults,
    samples: Table,
    column: str,
    words: str,
    unit: str,
    counter: bool,
) -> str:
    """One counter over time in minutes since its first sample; a running counter is drawn as its rate."""

    def plot(figure: Figure) -> None:
        axes = svg.axes(figure)
        begin = samples["wall_ns"].min()
        gpu = samples.get("gpu", np.zeros(len(samples["node"]), dtype=np.int64))
        pairs = np.unique(np.stack([samples["node"], gpu], axis=1), axis=0).tolist()
        shown = [(results.nodes[n] if 0 <= n < len(results.nodes) else "?", n, device) for n, device in pairs]
        for number, (name, node, device) in enumerate(sorted(shown, key=lambda x: (*natural(x[0]), x[2]))):
            mine = (samples["node"] == node) & (gpu == device)
            order = np.argsort(samples["wall_ns"][mine])
            minutes = (samples["wall_ns"][mine][order] - begin) / 60e9
            values = samples[column][mine][order].astype(np.float64)
            axes.plot(
                *_line(minutes, values, counter),
                linewidth=1.1,
                color=svg.series_colour(number),
                label=label(name, 16) if len(shown) <= 8 else None,
            )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(ticks(unit))
        if unit == "B":
            byte_ticks(axes.yaxis, float(samples[column].max()))
        axes.set_xlabel("minutes")
        if len(shown) <= 8:
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1),
                ncols=4,
                fontsize=7.5,
                handlelength=1.2,
                columnspacing=1,
            )

    return svg.draw(f"{words} over time", 3.6, 2.1, plot)


def _line(minutes: Floats, values: Floats, counter: bool) -> tuple[Floats, Floats]:
    """A counter as a line: a running one as its rate in 1/s, broken where nobody measured, thinned to 600 points."""
    if len(minutes) < 2:
        return minutes, values
    gaps = np.diff(minutes) * 60
    if counter:
        rates = np.divide(np.diff(values), gaps, out=np.full(len(gaps), np.nan), where=gaps > 0)
        rates[rates < 0] = np.nan  # a host that was powered on again counts from zero
        values = np.append(np.nan, rates)
    silent = np.flatnonzero(gaps > 5 * np.median(gaps)) + 1
    every = max(1, len(values) // 600)
    keep = np.zeros(len(values), dtype=bool)
    keep[::every] = True
    minutes, values = np.insert(minutes, silent, minutes[silent]), np.insert(values, silent, np.nan)
    keep = np.insert(keep, silent, True)
    return minutes[keep], values[keep]
