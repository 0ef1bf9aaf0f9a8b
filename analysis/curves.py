"""Collectives over sizes: time and bandwidth of each operation, repeats put together; latency and bandwidth fitted.

A repeat's time at a size is the median over its judged iterations. Cases that did not complete, gave a wrong answer or
had a fault injected are left out by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis import latency, resample, text
from analysis.collectives import all_iterations, bus_factor, is_collective, operation
from analysis.resample import Interval
from analysis.results import CampaignResults, Row
from analysis.series import Floats
from harness.model.event import RESULT
from harness.model.metrics import BARRIER


@dataclass(frozen=True)
class Place:
    """One size. Bandwidths are None where nothing is sent."""

    message_bytes: int
    times_s: tuple[float, ...]  # one for each repeat
    iterations: int  # all repeats together
    median_s: float
    interval_s: Interval | None  # 95 % of the median over repeats; None below 6 repeats
    algorithm_bandwidth_bytes_per_s: float | None
    bus_bandwidth_bytes_per_s: float | None
    bus_bandwidth_interval: Interval | None


@dataclass(frozen=True)
class Curve:
    """One operation on so many ranks, over sizes; a barrier has one size, 0."""

    group: str
    workload: str
    operation: str
    nodes: int
    ranks: int
    params: str  # JSON
    cell: str  # JSON: what the campaign's axes say
    places: tuple[Place, ...]
    line: latency.Line | None  # None where nothing is sent
    latency_s: latency.Estimate | None  # of the fit; of a barrier, its time
    why_no_fit: str
    same_bits: str  # determinism over repeats, in words
    notes: tuple[str, ...]
    left_out: tuple[str, ...]  # "label: reason"
    stamp: str

    @property
    def name(self) -> str:
        """For people."""
        ranks, nodes = text.count(self.ranks, "rank"), text.count(self.nodes, "node")
        return text.one_line(f"{self.group}: {self.workload} {self.operation}, {ranks} on {nodes}")

    @property
    def title(self) -> str:
        """Its name with the stamp."""
        return self.name + (f" [{self.stamp}]" if self.stamp else "")

    @property
    def lines(self) -> tuple[str, ...]:
        """What was fitted, or why nothing was, and what to beware of."""
        lines = []
        if self.operation == BARRIER and self.latency_s is not None:
            lines.append(f"latency {latency.estimate_words(self.latency_s, 's')}")
        if self.why_no_fit:
            lines.append(f"no latency and bandwidth: {self.why_no_fit}")
        elif self.line is not None:
            lines += self.line.words.split("\n")
        lines += [f"same bits: {self.same_bits}"] if self.same_bits else []
        lines += [text.one_line(f"note: {note}") for note in self.notes]
        lines += [text.one_line(f"left out: {reason}") for reason in self.left_out]
        return tuple(lines)

    @property
    def words(self) -> str:
        """In a few lines, its name first."""
        return "\n".join([self.title, *self.lines])


def told(curves: Sequence[Curve]) -> tuple[list[str], list[tuple[str, ...]]]:
    """What several curves say alike, once, with how many say it; and of each that says more, its name and that."""
    number: dict[str, list[Curve]] = {}
    for curve in curves:
        for line in dict.fromkeys(curve.lines):
            number.setdefault(line, []).append(curve)
    alike = {line: mine for line, mine in number.items() if len(mine) > 1}
    shared = [f"{_which(mine, len(curves))}: {line}" for line, mine in alike.items()]
    own = [(curve.title, *(line for line in curve.lines if line not in alike)) for curve in curves]
    return shared, [lines for lines in own if len(lines) > 1]


def _which(mine: Sequence[Curve], number: int) -> str:
    """Curves for people: all, or how many and of which operations and groups."""
    if len(mine) == number:
        return f"all {number} series" if number > 2 else "both series"
    groups = list(dict.fromkeys(curve.group for curve in mine))
    named = "group" if len(groups) == 1 else "groups"
    return text.one_line(
        f"{len(mine)} of {number} series ({named} {', '.join(groups[:4])}{', …' if len(groups) > 4 else ''})",
        160,
    )


def _unusable(results: CampaignResults, case: Row) -> str:
    """Why a case says nothing of a curve, or empty."""
    if results.completed(case["case_id"]) is None:
        return f"did not complete ({case['outcome']})"
    if results.of_case("faults", case["case_id"]):
        return "a fault was injected"
    if any(not check["passed"] for check in results.of_case("checks", case["case_id"])):
        return "its answer was wrong"
    return ""


_Question = tuple[str, str, str, int, int, str, str, str]


def _question(case: Row) -> _Question:
    return (
        case["group"], case["workload"], operation(case), case["nodes"], case["ranks"], case["params"], case["axes"],
        case["partition"],
    )  # fmt: skip


def _place(size: int, repeats: Sequence[Floats], name: str, ranks: int) -> Place:
    times_s = tuple(float(np.median(times)) for times in repeats)
    median_s, span = float(np.median(times_s)), resample.interval(times_s)
    algorithm = size / median_s if ranks > 1 and size > 0 else None
    bus, bus_span = None, None
    if algorithm is not None and name != "unknown":
        factor = bus_factor(name, ranks)
        bus = algorithm * factor
        bus_span = (factor * size / span[1], factor * size / span[0]) if span else None
    return Place(size, times_s, sum(map(len, repeats)), median_s, span, algorithm, bus, bus_span)


def _notes(cases: Sequence[Row], found: Sequence[dict[int, tuple[Floats, int]]]) -> list[str]:
    notes = []
    for case, sizes in zip(cases, found, strict=True):
        lost = sum(left_out for _, left_out in sizes.values())
        if lost:
            why = "a rank's sample is missing or not above zero"
            notes.append(f"{case['label']}: {text.count(lost, 'iteration')} left out, {why}")
    every = set().union(*(set(sizes) for sizes in found))
    for size in sorted(every):
        times = [float(np.median(sizes[size][0])) for sizes in found if size in sizes and len(sizes[size][0])]
        if len(times) < len(found):
            notes.append(f"{text.size(size)}: measured in {len(times)} of {text.count(len(found), 'repeat')}")
        if len(times) > 1 and min(times) == max(times):
            notes.append(
                f"{text.size(size)}: all {len(times)} repeats took the same time to the last digit, as no independent "
                "runs do: look at where it comes from"
            )
    return notes


def _fit(places: Sequence[Place], ranks: int, repeats: int) -> tuple[latency.Line | None, str]:
    if ranks < 2:
        return None, "one rank sends nothing"
    whole = [p for p in places if p.message_bytes > 0 and len(p.times_s) == repeats]
    if not whole:
        return None, "no size above zero that every repeat measured"
    times_s = np.array([p.times_s for p in whole]).T
    line = latency.fit(np.array([float(p.message_bytes) for p in whole]), times_s)
    return line, line.refused


def _curve(results: CampaignResults, key: _Question, rows: Sequence[Row]) -> Curve:
    group, workload, name, nodes, ranks, params, cell, _ = key
    left_out = {case["case_id"]: why for case in rows if (why := _unusable(results, case))}
    cases, found = [], []
    for case in rows:
        if case["case_id"] in left_out:
            continue
        sizes = all_iterations(results, case)
        if any(len(times) for times, _ in sizes.values()):
            cases.append(case)
            found.append(sizes)
        else:
            left_out[case["case_id"]] = "no iteration that every rank reported"
    by_size: dict[int, list[Floats]] = {}
    for sizes in found:
        for size, (times, _) in sizes.items():
            if len(times):
                by_size.setdefault(size, []).append(times)
    places = tuple(_place(size, by_size[size], name, ranks) for size in sorted(by_size))
    line, why, known = None, "no case of it can be used", None
    if places and name == BARRIER:
        why, known = "", latency.estimate(np.array(places[0].times_s))
    elif places:
        line, why = _fit(places, ranks, len(cases))
        known = line.latency_s if line is not None else None
    notes = _notes(cases, found) if cases else []
    if len(cases) == 1:
        notes.append("one repeat only: how it varies from run to run is not known")
    return Curve(
        group,
        workload,
        name,
        nodes,
        ranks,
        params,
        cell or "{}",
        places,
        line,
        known,
        why,
        _same_bits(results, cases),
        tuple(notes),
        tuple(
            f"{case['label']}: {left_out[case['case_id']]}" for case in rows if case["case_id"] in left_out
        ),
        results.stamp,
    )


def _digests(results: CampaignResults, case: Row) -> dict[tuple[str, int], str]:
    """Digests of results that a completed case recorded: (name, rank) -> digest."""
    completed = results.completed(case["case_id"])
    found = {}
    for event in results.of_case("events", case["case_id"]):
        if event["kind"] == RESULT and completed is not None and event["attempt"] == completed["index"]:
            said = json.loads(event["data"] or "{}")
            if isinstance(said, dict) and str(said.get("name", "")).startswith("digest"):
                found[str(said["name"]), int(event["rank"])] = str(said.get("value"))
    return found


def _same_bits(results: CampaignResults, cases: Sequence[Row]) -> str:
    """Whether repeats with the same input had the same bits, in words; empty where no digest was recorded."""
    by_input: dict[tuple[int, int], list[Row]] = {}
    for case in cases:
        by_input.setdefault((case["seed"], case["steps"]), []).append(case)
    digests = {case["case_id"]: _digests(results, case) for case in cases}
    if not any(digests.values()):
        return ""
    compared, places = 0, set()
    for same in by_input.values():
        first = same[0]
        for other in same[1:]:
            a, b = digests[first["case_id"]], digests[other["case_id"]]
            differ = [where for where in a.keys() & b.keys() if a[where] != b[where]]
            if differ:
                name, rank = min(differ)
                return text.one_line(
                    f"no: {name} on rank {rank} differs between {first['label']} and {other['label']}"
                )
            compared += bool(a.keys() & b.keys())
            places |= {(results.completed(c["case_id"]) or {}).get("rank_nodes", "") for c in (first, other)}
    if not compared:
        return (
            "not known: each repeat has an input of its own; each result was compared with one computed apart"
        )
    where = f", on {len(places)} placements of ranks" if len(places) > 1 else ""
    return f"yes, over {compared + 1} repeats with the same input{where}"


def of(results: CampaignResults) -> tuple[Curve, ...]:
    """Every curve of the file, in the order of its cases."""
    grouped: dict[_Question, list[Row]] = {}
    for case in results.cases:
        if is_collective(case):
            grouped.setdefault(_question(case), []).append(case)
    return tuple(_curve(results, key, cases) for key, cases in grouped.items())
