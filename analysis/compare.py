"""Two results files, series by series: better, worse, the same within noise, not to be told, or not to be compared.

A is the baseline. A series is one metric of one setting (at one size, on one node): its repeats in A against those
in B, by ``analysis.difference``, corrected over all series that are judged. Nothing is dropped: what is missing, new,
failed, or not comparable is a line of its own. Lines are made when they are asked for, so that a million series stay
arrays. On an emulated cluster, or with more ranks than cores, figures of performance are shown and judge nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis import matching, repeats, surroundings, text
from analysis.compare_failures import Rate, rates
from analysis.difference import (
    DEFAULT,
    LEVEL,
    MINIMUM_REPEATS,
    Change,
    Difference,
    Smallest,
    Tested,
    change_of,
    conclude,
    corrected,
    difference,
    measure_many,
)
from analysis.difference import compare as compare_two
from analysis.matching import Pair
from analysis.near import meant
from analysis.repeats import Block, Repeats
from analysis.results import CampaignResults, samples_of
from analysis.series import Floats
from analysis.units import is_performance
from harness.model.metrics import HIGHER
from harness.model.verdict import Verdict, exit_code

FAILED_B, MORE_FAILED, FAILED_A = "failed in B", "more failed in B", "failed in A"
REFUSED = "refused"
MISSING, NEW = "missing in B", "new in B"

# A change that is no harm -> what it means for the verdict; the worst first.
HARMLESS: dict[str, Verdict | None] = {
    Change.UNKNOWN.value: Verdict.UNKNOWN,
    Change.DIFFERS.value: Verdict.UNKNOWN,
    Change.BETTER.value: Verdict.PASS,
    Change.NOT_WORSE.value: Verdict.PASS,
    Change.WITHIN_NOISE.value: Verdict.WITHIN_NOISE,
}

# Status of a line -> what it means for the verdict; the worst first.
VERDICTS: dict[str, Verdict | None] = {
    Change.WORSE.value: Verdict.FAIL,
    FAILED_B: Verdict.FAIL,
    REFUSED: Verdict.INVALID,
    MORE_FAILED: Verdict.UNKNOWN,
    MISSING: Verdict.UNKNOWN,
    FAILED_A: Verdict.UNKNOWN,
    **HARMLESS,
    NEW: None,
}
ORDER = tuple(VERDICTS)


@dataclass(frozen=True)
class Asked:
    """What is compared, and what may differ."""

    smallest: Smallest = DEFAULT
    metric: str = ""  # only this one
    by_node: bool = False
    despite: frozenset[str] = frozenset()  # of surroundings.KINDS


@dataclass(frozen=True)
class Line:
    """One series, or one setting where ``metric`` is empty. Texts may be hostile."""

    status: str
    verdict: Verdict | None  # None: for information
    label: str
    group: str
    workload: str
    nodes: int
    ranks: int
    metric: str
    unit: str
    direction: str
    place: str
    node: str
    difference: Difference | None
    why: str

    @property
    def name(self) -> str:
        """Metric with place and node."""
        return ", ".join(p for p in (self.metric, self.place, self.node) if p)

    @property
    def harm(self) -> float:
        """By how much it is worse, negative where it is better; 0 where that is not known."""
        if self.difference is None or self.difference.change is None:
            return 0.0
        return -self.difference.change if self.direction == HIGHER else self.difference.change


@dataclass
class _Group:
    """Rows of a part with equally many repeats, tested together."""

    rows: NDArray[np.int64]
    a: Floats
    b: Floats
    tested: Tested
    p: Floats  # corrected
    codes: NDArray[np.int8]


@dataclass
class Part:
    """One metric of a pair of settings: a series for each unit."""

    pair: Pair
    block: Block
    units: tuple[str, ...]
    a: Floats
    b: Floats
    judged: bool
    note: str
    statuses: NDArray[np.int8]
    smallest: Smallest
    comparisons: int = 1
    groups: list[_Group] = field(default_factory=list)

    def line(self, row: int) -> Line:
        """One series in words."""
        status = ORDER[self.statuses[row]]
        found, why = self._difference(row), self.note
        constant = _constant(self.block.unit, self.a[row], self.b[row])
        why = "; ".join(words for words in (found.why, constant, why) if words)
        verdict = VERDICTS[status] if self.judged else None
        return _line(status, verdict, self.pair, self.block, self.units[row], found, why)

    def _difference(self, row: int) -> Difference:
        for group in self.groups:
            at = np.searchsorted(group.rows, row)
            if at < len(group.rows) and group.rows[at] == row:
                verdict = change_of(int(group.codes[at]))
                return difference(
                    group.a[at],
                    group.b[at],
                    group.tested,
                    int(at),
                    float(group.p[at]),
                    verdict,
                    self.comparisons,
                )
        a, b = (x[row][~np.isnan(x[row])] for x in (self.a, self.b))
        return compare_two(a, b, smallest=self.smallest, direction=self.block.direction)


@dataclass
class Comparison:
    """Two files compared. ``parts`` hold the series, ``said`` what is no series."""

    a: str
    b: str
    asked: Asked
    parts: list[Part]
    said: list[Line]
    notes: list[str]
    stamp: str
    series: int  # that were tested and judged, over which p-values are corrected
    not_compared: list[str]

    def counts(self) -> dict[str, int]:
        """How many lines have each status, the worst first."""
        found = Counter(line.status for line in self.said)
        for part in self.parts:
            for code, number in zip(*np.unique(part.statuses, return_counts=True), strict=True):
                found[ORDER[code]] += int(number)
        return {status: found[status] for status in ORDER}

    def for_information(self) -> dict[str, int]:
        """How many lines judge nothing because of a stamp, by status, the worst first."""
        found = Counter(line.status for line in self.said if line.verdict is None and line.status != NEW)
        for part in (part for part in self.parts if not part.judged):
            for code, number in zip(*np.unique(part.statuses, return_counts=True), strict=True):
                found[ORDER[code]] += int(number)
        return {status: found[status] for status in ORDER if found[status]}

    def verdicts(self) -> dict[Verdict, int]:
        """How many judged lines have each verdict."""
        found: Counter[Verdict] = Counter(line.verdict for line in self.said if line.verdict is not None)
        for part in self.parts:
            for code, number in zip(*np.unique(part.statuses, return_counts=True), strict=True):
                verdict = VERDICTS[ORDER[code]]
                if part.judged and verdict is not None:
                    found[verdict] += int(number)
        return {v: found[v] for v in Verdict}

    def exit_status(self) -> int:
        """0 nothing worse, 1 something, 3 unknown: something could not be told, or nothing was judged at all."""
        return exit_code(v for v, number in self.verdicts().items() if number)

    def lines(self, statuses: Iterable[str] = ORDER, limit: int | None = None) -> Iterator[Line]:
        """Lines by status in the order given, at most ``limit`` of each; the most harmful first."""
        for status in statuses:
            rows: list[tuple[float, int, int]] = []
            code = ORDER.index(status)
            for number, part in enumerate(self.parts):
                rows += [(_harm(part, int(r)), number, int(r)) for r in np.flatnonzero(part.statuses == code)]
            rows.sort(key=lambda r: (-r[0], r[1], r[2]))
            told = [line for line in self.said if line.status == status][:limit]
            yield from told
            rest = None if limit is None else limit - len(told)
            yield from (self.parts[number].line(row) for _, number, row in rows[:rest])


def _constant(unit: str, a: Floats, b: Floats) -> str:
    """That repeats of a figure of performance are equal, which no independent ones are, in words; else empty."""
    if not is_performance(unit):  # an answer may well be the same each time
        return ""
    sides = [(name, values[np.isfinite(values)]) for name, values in (("A", a), ("B", b))]
    same = [f"{len(v)} of {name}" for name, v in sides if len(v) > 1 and np.min(v) == np.max(v)]
    if not same:
        return ""
    return f"all {' and all '.join(same)} are the same to the last digit, as no independent repeats are"


def _harm(part: Part, row: int) -> float:
    for group in part.groups:
        at = np.searchsorted(group.rows, row)
        if at < len(group.rows) and group.rows[at] == row:
            change = float(group.tested.change[at])
            return -change if part.block.direction == HIGHER else change
    return 0.0


def _line(
    status: str,
    verdict: Verdict | None,
    pair: Pair,
    block: Block | None = None,
    unit: str = "",
    found: Difference | None = None,
    why: str = "",
) -> Line:
    s = pair.any.setting
    role = f"/{s.role}" if s.role and not pair.any.label.endswith(("/fault", "/twin")) else ""
    names = ("", "", "", "") if block is None else (block.metric, block.unit, block.direction, block.places)
    return Line(
        status, verdict, f"{pair.any.label}{role}", s.group, s.workload, s.nodes, s.ranks, *names, unit, found, why
    )  # fmt: skip


# --- what can be compared -----------------------------------------------------------------------------


def _without_figure(side: Repeats) -> str:
    """Repeats of one file that have none, in words."""
    number = len(side.left_out)
    named = "; ".join(f"{label}: {reason}" for label, reason, _ in side.left_out[:3])
    more = f" (and {number - 3} more)" if number > 3 else ""
    return f"{number} of {text.count(len(side.cases), 'repeat')} without a figure: {named}{more}"


def _left_out(pair: Pair, failed: bool) -> Iterator[Line]:
    """Sides without any figure; that of B only where it is not told already that more ``failed`` there."""
    a, b = pair.a, pair.b
    assert a is not None and b is not None
    if not b.usable and not failed:
        yield _line(MISSING, VERDICTS[MISSING], pair, why=_without_figure(b))
    if not a.usable:
        yield _line(FAILED_A, VERDICTS[FAILED_A], pair, why=_without_figure(a))


def _failed(found: list[tuple[Pair, Rate]]) -> Iterator[Line]:
    """A line for each kind of failure that is more frequent in B; those tested are a family of their own."""
    tested = [rate.p for _, rate in found if not rate.never_in_a]
    p = iter(corrected(np.array(tested)))
    for pair, rate in found:
        assert pair.b is not None
        status, words = FAILED_B, rate.words()
        if not rate.never_in_a:
            chance = float(next(p))
            words += f", by chance with p = {chance:{'.2g' if chance < 0.1 else '.2f'}}"
            if chance > 1 - LEVEL:
                status, words = MORE_FAILED, f"{words}, so not to be told apart"
        yield _line(status, VERDICTS[status], pair, why=f"{words}: {_without_figure(pair.b)}")


def _told(pair: Pair) -> str:
    """That some repeats of a series that is compared have no figure, in words."""
    sides = (("A", pair.a), ("B", pair.b))
    return "; ".join(f"in {name} {_without_figure(x)}" for name, x in sides if x is not None and x.left_out)


def _refusal(pair: Pair, asked: Asked) -> str:
    """Why a pair is not compared, in words; empty where it is."""
    kinds = [k for k in surroundings.KINDS if k in pair.differences and k not in asked.despite]
    if not kinds:
        return ""
    words = "; ".join(pair.differences[k] for k in kinds)
    return f"{words} (--despite {','.join(kinds)} compares all the same)"


def _aligned(one: Block, two: Block) -> tuple[tuple[str, ...], Floats, Floats, list[str], list[str]]:
    """Units of both with their values, and those of one alone."""
    if one.units == two.units:
        return one.units, one.values, two.values, [], []
    at = {unit: row for row, unit in enumerate(two.units)}
    both = [(row, at[unit]) for row, unit in enumerate(one.units) if unit in at]
    mine, theirs = [r for r, _ in both], [r for _, r in both]
    gone = [u for u in one.units if u not in at]
    units = tuple(one.units[r] for r in mine)
    fresh = sorted(set(two.units) - set(one.units))
    return units, one.values[mine], two.values[theirs], gone, fresh


class _Comparing:
    """The way from two files to parts and lines."""

    def __init__(self, a: CampaignResults, b: CampaignResults, asked: Asked) -> None:
        self.a, self.b, self.asked = a, b, asked
        self.stamp = a.stamp or b.stamp
        self.parts: list[Part] = []
        self.said: list[Line] = []
        self.homes: dict[str, list[str]] = {}
        self.failed: list[tuple[Pair, Rate]] = []

    def pair(self, pair: Pair) -> None:
        """Compare one pair of settings, or say why not."""
        if pair.a is None or pair.b is None:
            status = MISSING if pair.b is None else NEW
            words = f"{text.count(len(pair.any.cases), 'repeat')} in {'A' if pair.b is None else 'B'} alone"
            self.said.append(_line(status, VERDICTS[status], pair, why=words))
            return
        more = rates(self.a, self.b, pair.a, pair.b)
        self.failed += [(pair, rate) for rate in more]
        self.said += _left_out(pair, bool(more))
        if not pair.a.usable or not pair.b.usable:
            return
        if refusal := _refusal(pair, self.asked):
            self.said.append(_line(REFUSED, VERDICTS[REFUSED], pair, why=refusal))
            return
        home = samples_of(pair.a.cases[0])
        self.homes.setdefault(home, repeats.not_compared(self.a, home))
        nodes, metric = self.asked.by_node, self.asked.metric
        found = repeats.blocks(self.b, pair.b, by_node=nodes, metric=metric)
        of_b = {(x.table, x.metric, x.place): x for x in found}
        for block in repeats.blocks(self.a, pair.a, by_node=nodes, metric=metric):
            self._blocks(pair, block, of_b.pop((block.table, block.metric, block.place), None))
        for block in of_b.values():
            self._say(NEW, pair, block, "A has no figure of it")

    def _say(self, status: str, pair: Pair, block: Block, why: str, unit: str = "") -> None:
        verdict = VERDICTS[status] if self._judges(block) else None
        self.said.append(_line(status, verdict, pair, block, unit, why=why))

    def _judges(self, block: Block) -> bool:
        return not (self.stamp and is_performance(block.unit))

    def _blocks(self, pair: Pair, one: Block, two: Block | None) -> None:
        if two is None:
            return self._say(MISSING, pair, one, "B has no figure of it")
        overlooked, never = matching.definition(one, two)
        if never:
            return self._say(REFUSED, pair, one, f"{never}: a change would mean nothing")
        if overlooked and surroundings.DEFINITION not in self.asked.despite:
            return self._say(REFUSED, pair, one, f"{overlooked} (--despite definition compares all the same)")
        units, a, b, gone, fresh = _aligned(one, two)
        for names, status in ((gone, MISSING), (fresh, NEW)):
            for unit in names:
                self._say(
                    status, pair, one, f"no figure of this node in {'B' if status == MISSING else 'A'}", unit
                )
        if units:
            despite = [w for w in (*pair.differences.values(), overlooked) if w]
            note = f"compared although {'; '.join(despite)}" if despite else ""
            note = "; ".join(w for w in (note, _told(pair)) if w)
            unknown = np.full(len(units), ORDER.index(Change.UNKNOWN.value), dtype=np.int8)
            judged = self._judges(one)
            self.parts.append(Part(pair, one, units, a, b, judged, note, unknown, self.asked.smallest))


# --- testing and judging ------------------------------------------------------------------------------


def _finite(values: Floats, rows: NDArray[np.int64], count: int) -> Floats:
    """The ``count`` values of each of these rows that there are, in any order; shape (rows, count)."""
    chosen = values if len(rows) == len(values) else values[rows]
    return chosen if count == values.shape[1] else np.sort(chosen, axis=1)[:, :count]


def _test(part: Part) -> None:
    """Test all series of a part that have enough repeats, those with equally many together."""
    if np.isfinite(np.sum(part.a) + np.sum(part.b)):  # nothing is missing or infinite: nearly always
        n_a, n_b = (np.full(len(x), x.shape[1]) for x in (part.a, part.b))
        finite = np.ones(len(part.a), dtype=bool)
    else:
        n_a, n_b = (np.sum(~np.isnan(x), axis=1) for x in (part.a, part.b))
        finite = ~(np.any(np.isinf(part.a), axis=1) | np.any(np.isinf(part.b), axis=1))
    enough = finite & (np.minimum(n_a, n_b) >= MINIMUM_REPEATS)
    if not np.any(enough):
        return
    counts = n_a * 100_000 + n_b
    for both in np.unique(counts[enough]):
        rows = np.flatnonzero(enough & (counts == both))
        a, b = _finite(part.a, rows, int(n_a[rows[0]])), _finite(part.b, rows, int(n_b[rows[0]]))
        tested = measure_many(a, b, part.smallest)
        part.groups.append(_Group(rows, a, b, tested, np.empty(0), np.empty(0, dtype=np.int8)))


_OF_CHANGE = np.array([ORDER.index(c.value) for c in Change], dtype=np.int8)


def _judge(parts: list[Part]) -> int:
    """Conclude for all series of a family; returns how many were tested."""
    groups = [(part, group) for part in parts for group in part.groups]
    number = sum(len(group.rows) for _, group in groups)
    if not number:
        return 0
    p = corrected(np.concatenate([group.tested.p(number) for _, group in groups]))
    at = 0
    for part, group in groups:
        group.p = p[at : at + len(group.rows)]
        at += len(group.rows)
        group.codes = conclude(group.tested, group.p, part.block.direction)
        part.statuses[group.rows] = _OF_CHANGE[group.codes]
        part.comparisons = number
    return number


def judge_parts(parts: list[Part]) -> int:
    """Test and judge; those for information are a family of their own. Returns how many judged ones were tested."""
    for part in parts:
        _test(part)
    _judge([part for part in parts if not part.judged])
    return _judge([part for part in parts if part.judged])


def unknown_metric(asked: str, files: Iterable[CampaignResults]) -> str:
    """Why nothing of these files can be compared in a metric, and which metrics there are; empty where it is there."""
    known: set[str] = set()
    others: set[str] = set()
    for results in files:
        for home in {workload for workload, _ in results.sample_tables}:
            known |= {name for _, name, _ in repeats.metrics(results, home)}
            others |= set(repeats.not_compared(results, home))
    if asked in known:
        return ""
    metrics = f"metrics: {', '.join(sorted(known)) or 'none'}"
    if asked in others:
        return text.one_line(f"{asked}: of it neither higher nor lower is better; {metrics}", 600)
    words = (f"{asked}: no such metric", meant(asked, sorted(known)), metrics)
    return text.one_line("; ".join(w for w in words if w), 600)


def compare(a: CampaignResults, b: CampaignResults, asked: Asked = Asked()) -> Comparison:
    """Compare file B with the baseline A.

    Raises:
        StoreError: samples of one of them are damaged.
    """
    work = _Comparing(a, b, asked)
    changed = matching.one_id_two_cases(a, b)
    for pair in matching.pairs(repeats.settings(a), repeats.settings(b)):
        matching.named(pair, a, b, changed)
        work.pair(pair)
    work.said += _failed(work.failed)
    number = judge_parts(work.parts)
    notes = surroundings.circumstances(a, b)
    if a.text("run_id") == b.text("run_id"):
        notes.insert(0, f"both files are of run {text.one_line(a.text('run_id'), 60)}")
    if asked.metric and not work.parts and not any(line.metric for line in work.said):
        notes.insert(
            0, f"neither file has a figure of {text.one_line(asked.metric, 60)} that could be compared"
        )
    columns = [f"{home}: {', '.join(names)}" for home, names in work.homes.items() if names]
    return Comparison(
        str(a.path), str(b.path), asked, work.parts, work.said, notes, work.stamp, number,
        [text.one_line(c) for c in columns],
    )  # fmt: skip
