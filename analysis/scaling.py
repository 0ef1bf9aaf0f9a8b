"""Strong and weak scaling: times over node counts, efficiencies, and the law that describes them best.

The figure of one case is the median over judged steps of the slowest rank's step time. Repeats of a case are
independent and stay single points. Cases that did not complete, gave a wrong answer or had a fault injected
are left out by name. On an emulated cluster, or with more ranks than cores, the figures are stamped and judge
nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis import collectives, text
from analysis.commandline import main as run
from analysis.load import CampaignResults, Row, samples_of
from analysis.models import LAWS, MINIMUM_REPEATS, RESAMPLES, STRONG, WEAK, Fit, fit, karp_flatt
from analysis.series import slowest_rank

POOR_FIT = 0.25  # a law whose residuals are larger than this, root mean square, relative, explains nothing


@dataclass(frozen=True)
class Point:
    """One node count of a series. Times in s; ``efficiency`` is relative to the base."""

    nodes: int
    ranks: int
    times_s: tuple[float, ...]  # one for each repeat
    steps: int  # judged steps behind them, all repeats together
    median_s: float
    interval_s: tuple[float, float] | None  # 95 % bootstrap of the median of repeats; None below 6 repeats
    speed_up: float
    efficiency: float
    karp_flatt: float | None  # serial fraction; None at the base

    @property
    def range_s(self) -> tuple[float, float]:
        """Shortest and longest of the repeats."""
        return min(self.times_s), max(self.times_s)


@dataclass(frozen=True)
class Series:
    """One question, "how does this scale": the same work over node counts."""

    group: str
    workload: str
    mode: str  # strong or weak
    ranks_per_node: int
    base_nodes: int
    points: tuple[Point, ...]
    fits: tuple[Fit, ...]
    best: str  # law with the lowest AICc, or empty
    why_no_fit: str
    left_out: tuple[str, ...]  # "label: reason"
    stamp: str

    def fit_named(self, law: str) -> Fit:
        """The fit of that law."""
        return next(f for f in self.fits if f.law == law)


def strong_efficiency(base_s: float, base_nodes: int, time_s: float, nodes: int) -> float:
    """S/p in units of the base: (T_base p_base) / (T_p p)."""
    return base_s * base_nodes / (time_s * nodes)


def weak_efficiency(base_s: float, time_s: float) -> float:
    """T_base / T_p, at constant work per rank."""
    return base_s / time_s


def step_times_s(results: CampaignResults, case: Row) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Time of each judged step in s, that of its slowest rank, shape (n,); empty if nothing was recorded."""
    if not results.has_samples(samples_of(case), "steps"):
        return np.array([])
    steps = slowest_rank(results.judged(case["case_id"], "steps"), "step_time_ns", case["ranks"])
    return np.asarray(steps.slowest / 1e9)


def times_s(results: CampaignResults, case: Row) -> np.ndarray[Any, np.dtype[np.float64]]:
    """As ``step_times_s``; a user's program that says nothing of its steps is one step."""
    times = step_times_s(results, case)
    if len(times) or not results.has_samples(samples_of(case), "program"):
        return times
    ran_ns = results.judged(case["case_id"], "program")["program_time_ns"]
    return np.array([np.max(ran_ns) / 1e9]) if len(ran_ns) == case["ranks"] else times


def _unusable(results: CampaignResults, case: Row) -> str:
    """Why a case says nothing of scaling, or empty."""
    if results.completed(case["case_id"]) is None:
        return f"did not complete ({case['outcome']})"
    if results.of_case("faults", case["case_id"]):
        return "a fault was injected"
    if any(not check["passed"] for check in results.of_case("checks", case["case_id"])):
        return "its answer was wrong"
    times = times_s(results, case)
    if not len(times):
        return "no step that every rank reported"
    return "" if float(np.median(times)) > 0 else "its median step time is not above zero"


def _question(case: Row) -> tuple[str, str, str, int, str]:
    """Cases with an equal key are one series. Weak scaling grows the size with the nodes: not in it."""
    params = case["params"] if case["scaling_mode"] == STRONG else ""
    return case["group"], case["workload"], case["scaling_mode"], case["ranks_per_node"], params


def _interval(times: Sequence[float]) -> tuple[float, float] | None:
    if len(times) < MINIMUM_REPEATS:
        return None
    draws = np.random.default_rng(0).choice(np.asarray(times), size=(RESAMPLES, len(times)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def points(
    mode: str, runs: dict[int, list[float]], ranks_per_node: int, steps: dict[int, int]
) -> tuple[Point, ...]:
    """Efficiencies of every node count against the smallest.

    Args:
        runs: node count -> times in s, one for each repeat; not empty.
        steps: node count -> judged steps behind them.
    """
    base = min(runs)
    base_s = float(np.median(runs[base]))
    found = []
    for nodes in sorted(runs):
        median_s = float(np.median(runs[nodes]))
        if mode == STRONG:
            efficiency = strong_efficiency(base_s, base, median_s, nodes)
        else:
            efficiency = weak_efficiency(base_s, median_s)
        p = nodes / base
        speed_up = efficiency * p
        found.append(
            Point(
                nodes,
                nodes * ranks_per_node,
                tuple(runs[nodes]),
                steps[nodes],
                median_s,
                _interval(runs[nodes]),
                speed_up,
                efficiency,
                karp_flatt(speed_up, p) if nodes != base else None,
            )
        )
    return tuple(found)


def _mixed(cases: Sequence[Row]) -> str:
    """Why cases of a weak series cannot be one series, or empty: one node count, two sizes."""
    sizes: dict[int, set[str]] = {}
    for case in cases:
        sizes.setdefault(case["nodes"], set()).add(case["params"])
    mixed = sorted(nodes for nodes, found in sizes.items() if len(found) > 1)
    return f"cases on {mixed[0]} nodes differ in their parameters, so they are not repeats" if mixed else ""


def _series(results: CampaignResults, key: tuple[str, str, str, int, str], cases: Sequence[Row]) -> Series:
    group, workload, mode, ranks_per_node, _ = key
    runs: dict[int, list[float]] = {}
    steps: dict[int, int] = {}
    left_out = []
    for case in cases:
        reason = _unusable(results, case)
        if reason:
            left_out.append(f"{case['label']}: {reason}")
            continue
        times = times_s(results, case)
        runs.setdefault(case["nodes"], []).append(float(np.median(times)))
        steps[case["nodes"]] = steps.get(case["nodes"], 0) + len(times)
    runs = dict(sorted(runs.items()))
    found = points(mode, runs, ranks_per_node, steps) if runs else ()
    why = ""
    if not runs:
        why = "no case of it can be used"
    elif len(runs) == 1:
        why = f"one node count only ({next(iter(runs))}): nothing to fit"
    else:
        why = _mixed(cases)
    fits = () if why else tuple(fit(law.name, mode, runs) for law in LAWS[mode])
    scored = [(f.aicc, f.law) for f in fits if f.aicc is not None]
    if fits and len(scored) < 2:
        # One law alone cannot be compared with another, so none is named.
        why = "; ".join(f"{f.law}: {f.why}" for f in fits if f.why)
        scored = []
    best = min(scored)[1] if scored else ""
    nearest = next((f for f in fits if f.law == best), None)
    if nearest is not None and nearest.relative_error > POOR_FIT:
        # The least bad of bad laws would be read as an explanation.
        why = (
            f"none describes these times: the nearest, {best}, is off by {nearest.relative_error * 100:.0f} %"
        )
        best = ""
    return Series(
        group,
        workload,
        mode,
        ranks_per_node,
        min(runs) if runs else 0,
        found,
        fits,
        best,
        why,
        tuple(left_out),
        results.stamp,
    )


def analyse(results: CampaignResults) -> tuple[Series, ...]:
    """Every strong or weak series of the file, in the order of its cases.

    A collective shares no work out over nodes, so its group is told by ``analysis.collectives`` and not here.
    """
    grouped: dict[tuple[str, str, str, int, str], list[Row]] = {}
    for case in results.cases:
        if case["scaling_mode"] in (STRONG, WEAK) and case["workload"] not in collectives.OPERATIONS:
            grouped.setdefault(_question(case), []).append(case)
    return tuple(_series(results, key, cases) for key, cases in grouped.items())


# --- in words ----------------------------------------------------------------------------------------------


def parameter_words(series_fit: Fit) -> str:
    """Parameters of a fit with their intervals, for people."""
    words = []
    for q in series_fit.parameters:
        shown = text.seconds if q.unit == "s" else lambda v: f"{v:.4g}"
        span = f" ({shown(q.interval[0])} to {shown(q.interval[1])})" if q.interval else ""
        words.append(f"{q.name} = {shown(q.value)}{span}")
    if series_fit.peak_p is not None:
        gain = (
            f"peak at {series_fit.peak_p:.1f} nodes"
            if series_fit.peak_p > 1
            else "no gain from a second node"
        )
        words.append(gain)
    return ", ".join(words)


def table(series: Series) -> str:
    """One series as plain columns."""
    rows = []
    for p in series.points:
        low, high = p.interval_s or p.range_s
        rows.append(
            (
                p.nodes,
                p.ranks,
                len(p.times_s),
                p.steps,
                text.seconds(p.median_s),
                f"{text.seconds(low)} to {text.seconds(high)}",
                f"{p.speed_up:.2f}",
                text.percent(p.efficiency),
                "-" if p.karp_flatt is None else f"{p.karp_flatt:.3f}",
            )
        )
    kind = "95 % interval" if any(p.interval_s for p in series.points) else "range of repeats"
    return text.columns(
        ("nodes", "ranks", "repeats", "steps", "step time", kind, "speed-up", "efficiency", "Karp-Flatt"),
        rows,
        (),
    )


def words(series: Series) -> str:
    """One series for the terminal: table, fits or why there is none, and what was left out."""
    lines = [
        text.one_line(
            f"{series.group}: {series.workload}, {series.mode} scaling, "
            f"{text.count(series.ranks_per_node, 'rank')} a node; base: "
            f"{text.count(series.base_nodes, 'node')}" + (f" [{series.stamp}]" if series.stamp else "")
        )
    ]
    if series.points:
        lines.append(table(series))
    for f in series.fits:
        mark = "*" if f.law == series.best else " "
        score = f"AICc {f.aicc:.1f}" if f.aicc is not None else f"AICc unknown: {f.why}"
        lines.append(f"{mark} {f.law}: {parameter_words(f)}; off by {f.relative_error * 100:.2f} %, {score}")
    if series.why_no_fit:
        lines.append(f"no law chosen: {series.why_no_fit}")
    elif not any(q.interval for f in series.fits for q in f.parameters):
        lines.append(f"no intervals: fewer than {MINIMUM_REPEATS} repeats at some node count")
    lines += [text.one_line(f"left out: {reason}") for reason in series.left_out]
    return "\n".join(lines)


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    found = analyse(results)
    data = {"stamp": results.stamp, "series": [asdict(s) for s in found]}
    if not found:
        return data, "no scaling: no group of the campaign has scaling_mode strong or weak", 0
    head = [f"{results.stamp}: for information, these figures judge nothing\n"] if results.stamp else []
    return data, "\n".join(head) + "\n\n".join(words(s) for s in found), 0


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.scaling results.h5 [--json]``."""
    return run("scaling", "Strong and weak scaling, with the laws that were fitted.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
