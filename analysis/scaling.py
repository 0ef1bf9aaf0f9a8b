"""Strong and weak scaling: times over node counts, efficiencies, and the law that describes them best.

The figure of one case is the median over judged steps of the slowest rank's step time. Repeats of a case are
independent and stay single points. Cases that did not complete, gave a wrong answer or had a fault injected
are left out by name, and whatever else was not used is said in ``notes``. On an emulated cluster, or with more ranks
than cores, the figures are stamped and judge nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from analysis import collectives, parts, text
from analysis.commandline import dump, guarded, parser
from analysis.efficiency import Point, overhead, points, strong_efficiency, weak_efficiency
from analysis.models import (
    LAWS,
    STRONG,
    WEAK,
    Fit,
    Prediction,
    fit,
    predict,
    supported,
)
from analysis.results import CampaignResults, Row, load, samples_of
from analysis.scaling_words import parameter_words, words
from analysis.series import Floats, slowest_rank

__all__ = [
    "Point", "Series", "analyse", "extrapolate", "parameter_words", "step_times_s", "strong_efficiency", "times_s",
    "weak_efficiency", "words",
]  # fmt: skip

POOR_FIT = 0.25  # a law whose residuals are larger than this, root mean square, relative, explains nothing


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
    cell: str = "{}"  # JSON: what the campaign's axes say of it
    notes: tuple[str, ...] = ()  # what a reader must know before they believe it
    supported: tuple[str, ...] = ()  # laws that the runs cannot tell from the best, that one first
    predictions: tuple[Prediction, ...] = ()  # at twice and four times the largest node count
    overhead: str = ""  # what Karp-Flatt says, in words
    lost: tuple[parts.Lost, ...] = ()
    communication: str = ""  # where communication eats the gain, or that it was not recorded
    differs: str = ""  # from the other series of its group with the same heading, such as "rows 512"

    def fit_named(self, law: str) -> Fit:
        """The fit of that law."""
        return next(f for f in self.fits if f.law == law)

    @property
    def runs(self) -> dict[int, tuple[float, ...]]:
        """Node count -> times in s, one for each repeat."""
        return {p.nodes: p.times_s for p in self.points}


def step_times_s(results: CampaignResults, case: Row) -> Floats:
    """Time of each judged step in s, that of its slowest rank, shape (n,); empty if nothing was recorded."""
    if not results.has_samples(samples_of(case), "steps"):
        return np.array([])
    steps = slowest_rank(results.judged(case["case_id"], "steps"), "step_time_ns", case["ranks"])
    return np.asarray(steps.slowest / 1e9)


def times_s(results: CampaignResults, case: Row) -> Floats:
    """As ``step_times_s``; a user's program that says nothing of its steps is one step."""
    times = step_times_s(results, case)
    if len(times) or not results.has_samples(samples_of(case), "program"):
        return times
    ran_ns = results.judged(case["case_id"], "program")["program_time_ns"]
    return np.array([np.max(ran_ns) / 1e9]) if len(ran_ns) == case["ranks"] else times


@dataclass(frozen=True)
class _Case:
    """What one case says of scaling; ``unusable`` is why it says nothing, or empty."""

    row: Row
    unusable: str
    median_s: float = 0.0
    steps: int = 0
    incomplete: int = 0  # steps left out because a rank's sample is missing
    shares: dict[str, float] | None = None


def _measured(results: CampaignResults, case: Row) -> _Case:
    if results.completed(case["case_id"]) is None:
        return _Case(case, f"did not complete ({case['outcome']})")
    if results.of_case("faults", case["case_id"]):
        return _Case(case, "a fault was injected")
    if any(not check["passed"] for check in results.of_case("checks", case["case_id"])):
        return _Case(case, "its answer was wrong")
    incomplete, shares = 0, None
    times = np.array([])
    if results.has_samples(samples_of(case), "steps"):
        wanted = parts.columns(results, case)
        samples = results.judged(case["case_id"], "steps", ["step", "step_time_ns", *wanted])
        found = slowest_rank(samples, "step_time_ns", case["ranks"])
        times, incomplete = np.asarray(found.slowest / 1e9), found.incomplete
        bad = int(np.sum(~np.isfinite(times)))
        if bad:
            return _Case(case, f"{bad} of {len(times)} step times are not finite numbers")
        if wanted and len(times) and float(np.median(times)) > 0:
            shares = parts.shares(samples, found.step, found.slowest, case["ranks"])
    if not len(times):
        times = times_s(results, case)
    if not len(times):
        return _Case(case, "no step that every rank reported")
    median_s = float(np.median(times))
    if not (median_s > 0 and np.isfinite(median_s)):
        return _Case(case, "its median step time is not above zero")
    return _Case(case, "", median_s, len(times), incomplete, shares)


_Question = tuple[str, str, str, int, str, str, str]


def _question(case: Row) -> _Question:
    """Cases with an equal key are one series. Weak scaling grows the size with the nodes: not in it."""
    params = case["params"] if case["scaling_mode"] == STRONG else ""
    return (
        case["group"],
        case["workload"],
        case["scaling_mode"],
        case["ranks_per_node"],
        params,
        _cell(case),
        case["partition"],
    )


def _cell(case: Row) -> str:
    """What the campaign's axes say of a case, its node count left out."""
    try:
        said = json.loads(case["axes"] or "{}")
    except ValueError:
        return str(case["axes"])
    return json.dumps({k: v for k, v in said.items() if k != "nodes"}, sort_keys=True)


def _mixed(cases: Sequence[Row]) -> str:
    """Why cases of a weak series cannot be one series, or empty: one node count, two sizes."""
    sizes: dict[int, set[str]] = {}
    for case in cases:
        sizes.setdefault(case["nodes"], set()).add(case["params"])
    mixed = sorted(nodes for nodes, found in sizes.items() if len(found) > 1)
    return f"cases on {mixed[0]} nodes differ in their parameters, so they are not repeats" if mixed else ""


def _notes(cases: Sequence[_Case], runs: Mapping[int, Sequence[float]]) -> tuple[str, ...]:
    """What the figures do not rest on, or rest on too lightly."""
    found = []
    smallest = min(c.row["nodes"] for c in cases)
    if runs and min(runs) > smallest:
        found.append(
            f"no run on {text.count(smallest, 'node')} can be used, the smallest that was asked for: efficiencies are "
            f"relative to {text.count(min(runs), 'node')}"
        )
    missing = sorted({c.row["nodes"] for c in cases} - set(runs) - {smallest if runs else 0})
    if runs and missing:
        found.append(f"no run on {text.spans(missing)} nodes can be used")
    single = [p for p, times in runs.items() if len(times) == 1]
    if single:
        found.append(
            f"one repeat only on {text.spans(single)} nodes: how it varies from run to run is not known"
        )
    for p, times in runs.items():
        if len(times) > 1 and min(times) == max(times):
            found.append(
                f"all {len(times)} repeats on {text.count(p, 'node')} took the same time to the last digit, as no "
                "independent runs do: look at where it comes from"
            )
    for c in cases:
        if c.incomplete and not c.unusable:
            found.append(
                f"{c.row['label']}: {text.count(c.incomplete, 'step')} left out, a rank's sample is missing"
            )
    return tuple(found)


def _fits(
    mode: str, runs: Mapping[int, Sequence[float]], why: str
) -> tuple[tuple[Fit, ...], tuple[str, ...], str]:
    """Every law fitted, those that the runs support (best first, perhaps none), and why there is none."""
    fits = () if why else tuple(fit(law.name, mode, runs) for law in LAWS[mode])
    if not fits:
        return (), (), why
    if sum(f.aicc is not None for f in fits) < 2:
        # One law alone cannot be compared with another, so none is named.
        return fits, (), "; ".join(f"{f.law}: {f.why}" for f in fits if f.why)
    able = supported(fits)
    nearest = next(f for f in fits if f.law == able[0])
    if nearest.relative_error > POOR_FIT:
        # The least bad of bad laws would be read as an explanation.
        off = f"{nearest.relative_error * 100:.0f} %"
        return fits, (), f"none describes these times: the nearest, {nearest.law}, is off by {off}"
    return fits, able, ""


def _median_shares(cases: Sequence[_Case]) -> dict[str, float] | None:
    """Over the repeats of one node count; None unless all of them recorded the same parts."""
    known = [c.shares for c in cases if c.shares is not None]
    if len(known) < len(cases) or len({tuple(shares) for shares in known}) != 1:
        return None
    return parts.of_repeats(known, [c.median_s for c in cases])


def _series(results: CampaignResults, key: _Question, rows: Sequence[Row]) -> Series:
    group, workload, mode, ranks_per_node, _, cell, _ = key
    cases = [_measured(results, case) for case in rows]
    by_nodes: dict[int, list[_Case]] = {}
    for case in cases:
        if not case.unusable:
            by_nodes.setdefault(case.row["nodes"], []).append(case)
    by_nodes = dict(sorted(by_nodes.items()))
    runs = {nodes: [c.median_s for c in found] for nodes, found in by_nodes.items()}
    shares = {nodes: _median_shares(found) for nodes, found in by_nodes.items()}
    found = (
        points(mode, runs, ranks_per_node, {n: sum(c.steps for c in by_nodes[n]) for n in runs}, shares)
        if runs
        else ()
    )
    why = ""
    if not runs:
        why = "no case of it can be used"
    elif len(runs) == 1:
        why = f"one node count only ({next(iter(runs))}): nothing to fit"
    else:
        why = _mixed(rows)
    fits, able, why = _fits(mode, runs, why)
    known = {nodes: share for nodes, share in shares.items() if share is not None}
    lost = (
        parts.lost({p.nodes: p.median_s for p in found}, known, mode == STRONG)
        if known and len(known) == len(runs)
        else ()
    )
    return Series(
        group,
        workload,
        mode,
        ranks_per_node,
        min(runs) if runs else 0,
        found,
        fits,
        able[0] if able else "",
        why,
        tuple(f"{c.row['label']}: {c.unusable}" for c in cases if c.unusable),
        results.stamp,
        cell,
        _notes(cases, runs),
        able,
        predict(able, mode, runs, (2 * max(runs), 4 * max(runs))) if able else (),
        overhead(runs) if mode == STRONG and len(runs) > 1 else "",
        lost,
        (parts.eaten(lost, known) if lost else "" if known else parts.NOT_RECORDED) if len(runs) > 1 else "",
    )


def analyse(results: CampaignResults) -> tuple[Series, ...]:
    """Every strong or weak series of the file, in the order of its cases.

    A collective shares no work out over nodes, so its group is told by ``analysis.collectives`` and not here.
    """
    grouped: dict[_Question, list[Row]] = {}
    for case in results.cases:
        if case["scaling_mode"] in (STRONG, WEAK) and not collectives.is_collective(case):
            grouped.setdefault(_question(case), []).append(case)
    headings: dict[_Question, list[_Question]] = {}
    for key in grouped:
        headings.setdefault(_heading(key), []).append(key)
    return tuple(
        replace(
            _series(results, key, cases), differs=_differs(results, grouped, key, headings[_heading(key)])
        )
        for key, cases in grouped.items()
    )


def _heading(key: _Question) -> _Question:
    group, workload, mode, ranks_per_node, _, cell, _ = key
    return group, workload, mode, ranks_per_node, "", cell, ""


def _differs(
    results: CampaignResults,
    grouped: Mapping[_Question, Sequence[Row]],
    key: _Question,
    alike: Sequence[_Question],
) -> str:
    """In what a series differs from those with the same heading: parameters, partition, and the file it is from."""
    if len(alike) == 1:
        return ""
    said = {k: _said(results, k, grouped[k]) for k in alike}
    names = list(dict.fromkeys(name for found in said.values() for name in found))
    telling = [n for n in names if len({found.get(n) for found in said.values()}) > 1]
    return ", ".join(f"{n} {said[key].get(n, 'not given')}" for n in telling)


def _said(results: CampaignResults, key: _Question, cases: Sequence[Row]) -> dict[str, str]:
    try:
        given = json.loads(key[4] or "{}")
    except ValueError:
        given = key[4]
    found = (
        {n: json.dumps(v) for n, v in given.items()} if isinstance(given, dict) else {"params": str(given)}
    )
    files = {str(results.sources[c["source"]]["file"]) for c in cases if c["source"] < len(results.sources)}
    return {**found, "partition": key[6] or "unknown", "file": " and ".join(sorted(files))}


def extrapolate(series: Series, nodes: Sequence[int]) -> tuple[Prediction, ...]:
    """What the laws that the runs support say of other node counts; empty where no law was chosen."""
    return predict(series.supported, series.mode, series.runs, nodes) if series.supported else ()


def _nodes(value: str) -> list[int]:
    try:
        found = [int(part) for part in value.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no list of node counts; write it as 64,128")
    return found


def report(results: CampaignResults, nodes: Sequence[int] = ()) -> tuple[dict[str, Any], str]:
    """Data and words; with ``nodes``, what the laws say of those node counts."""
    found = analyse(results)
    if nodes:
        found = tuple(replace(s, predictions=extrapolate(s, nodes)) for s in found)
    data = {"stamp": results.stamp, "series": [asdict(s) for s in found]}
    if not found:
        return data, "no scaling: no group of the campaign has scaling_mode strong or weak"
    head = [f"{results.stamp}: for information, these figures judge nothing\n"] if results.stamp else []
    return data, "\n".join(head) + "\n\n".join(words(s) for s in found)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.scaling results.h5 [--nodes 64,128] [--json]``."""
    options = parser("scaling", "Strong and weak scaling, with the laws that were fitted.")
    options.add_argument("--json", action="store_true", help="print data instead of words")
    options.add_argument(
        "--nodes", type=_nodes, default=[], metavar="N,N", help="say what the laws make of these node counts"
    )
    given = options.parse_args(argv)

    def act() -> int:
        with load(given.results) as results:
            data, told = report(results, given.nodes)
        print(dump(data) if given.json else told)
        sys.stdout.flush()
        return 0

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
