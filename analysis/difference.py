"""Whether two sets of repeats differ by as much as matters: better, worse, within noise, or not to be told.

A value is one repeat's figure (its median); repeats are independent, raw steps are not, so nothing here takes steps.
The change of B against the baseline A is a ratio where all values are positive, else a difference; its estimate and
95 % interval come from a rank test (``analysis.ranks``). With s the smallest effect that matters:

- within noise: the interval lies inside -s to s, whatever the test says: a change too small to matter;
- worse: the change is significant, in the bad direction, and the interval reaches s (so its middle is beyond s/2);
- better: likewise in the good direction; not worse: worse by s is excluded, better is not shown;
- unknown: anything else, with the number of repeats that would probably tell.

So without a change "worse" is said in at most 2.5 % of single comparisons, and with a change of s as often as the
repeats allow (``tests/bench/power.py`` measures both). Below 6 repeats there is a range and no interval, and nothing
is concluded.

Of many comparisons at once, at most 5 % of those called better or worse are to be wrong: p-values are corrected by
Benjamini and Hochberg (1995). Holm's correction, of the chance of a single false alarm, would ask of each of 500
series what is asked of 1 in 10,000 events, and miss what matters; a wrong alarm among many right ones is cheap.
A rank test of few repeats cannot give so small a p-value as one alarm among many needs (6 and 6: 0.0022). There,
by the counts alone and never by the data, the corrected p-value is Welch's on logarithms (pairs: Student's), which
assumes that logarithms of repeats are about normal, and the rank test must agree on its own. Where repeats have two
modes instead, more than 5 % of alarms are false: all six of A come from one mode and all six of B from the other once
in 4,096 series, and those twelve figures are the same as after a change, so no test of them can tell. Make ten repeats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from analysis import ranks, text
from analysis.series import Floats
from harness.model.metrics import HIGHER, NEITHER

MINIMUM_REPEATS = 6  # METRICS.md
LEVEL = 0.95
RANK, WELCH = "rank test", "Welch's t on logarithms"
SIGNED, STUDENT = "signed-rank test", "Student's t on pairs"


class Change(str, Enum):
    """What is concluded of one comparison."""

    WORSE = "worse"
    BETTER = "better"
    DIFFERS = "differs"  # of a metric of which neither higher nor lower is better
    UNKNOWN = "unknown"
    NOT_WORSE = "not worse"
    WITHIN_NOISE = "within noise"


_CODES = tuple(Change)
Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Smallest:
    """The smallest effect that matters: a fraction of the baseline, or a difference in the metric's own unit."""

    value: float = 0.05
    relative: bool = True

    @classmethod
    def parse(cls, given: str) -> Smallest:
        """``5%`` is of the baseline, ``0.2`` in the metric's own unit.

        Raises:
            ValueError: it is neither, or not above zero, or 100 % or more.
        """
        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*", given)
        if found is None or not float(found[1]) > 0:
            raise ValueError(
                f"{given!r} is no effect; write 5% of the baseline, or a number above 0 in the metric's own unit"
            )
        relative = bool(found[2])
        value = float(found[1]) / 100 if relative else float(found[1])
        if relative and value >= 1:
            raise ValueError(f"{given!r} is all of the baseline or more; write less than 100%")
        return cls(value, relative)

    def words(self, unit: str = "") -> str:
        """``5 %``, or a quantity of the unit."""
        return f"{self.value * 100:.4g} %" if self.relative else text.quantity(self.value, unit)


DEFAULT = Smallest()


@dataclass(frozen=True)
class Difference:
    """One comparison. ``change`` and ``interval`` are B/A - 1 where ``relative``, else B - A in the metric's unit."""

    verdict: Change
    relative: bool
    change: float | None  # Hodges and Lehmann's estimate; of the medians where there is no interval
    interval: tuple[float, float] | None  # 95 %; None below 6 repeats
    p: float | None  # of no change, corrected when it was one of many
    test: str
    median_a: float
    median_b: float
    range_a: tuple[float, float]
    range_b: tuple[float, float]
    n_a: int
    n_b: int
    needed: int | None  # repeats of each that would probably tell; None where it is told
    why: str  # what stands in the way, empty where it is told

    @property
    def ratio(self) -> float | None:
        """B over A; None where the change is no ratio."""
        return 1 + self.change if self.relative and self.change is not None else None

    def said(self, unit: str = "") -> str:
        """The change with its interval: ``+12.1 % (+9.8 % to +14.0 %)``."""
        if self.change is None:
            return "no figure"
        if self.interval is None:
            return f"{amount(self.change, self.relative, unit)} (no interval)"
        low, high = (amount(x, self.relative, unit) for x in self.interval)
        return f"{amount(self.change, self.relative, unit)} ({low} to {high})"


def amount(change: float, relative: bool, unit: str = "") -> str:
    """A change with its sign."""
    if not math.isfinite(change):
        return "unknown"
    sign = "\u2212" if change < 0 else "+"
    if relative:
        size = abs(change) * 100
        return f"{sign}{size:.1f} %" if size < 1000 else f"{sign}{size:.3g} %"
    return sign + text.quantity(abs(change), unit)


@dataclass(frozen=True)
class Tested:
    """Many comparisons before they are judged, columns of shape (k,); change, low and high as in ``Difference``."""

    relative: NDArray[np.bool_]
    change: Floats
    low: Floats
    high: Floats
    p_rank: Floats
    p_t: Floats
    floor: float  # of p_rank
    margin: Floats  # the smallest effect, in the measure of change; NaN where it cannot be said
    paired: bool

    def p(self, comparisons: int, level: float = LEVEL) -> Floats:
        """The p-values to correct: the rank test's, or Student's where so many comparisons are beyond its floor."""
        return self.p_rank if self.by_ranks(comparisons, level) else self.p_t

    def by_ranks(self, comparisons: int, level: float = LEVEL) -> bool:
        """Whether one alarm among so many comparisons could be raised by ranks alone."""
        return self.floor * max(1, comparisons) <= 1 - level

    def test(self, comparisons: int, level: float = LEVEL) -> str:
        """Name of the test behind ``p``."""
        ranked, other = (SIGNED, STUDENT) if self.paired else (RANK, WELCH)
        return ranked if self.by_ranks(comparisons, level) else other


# --- testing -------------------------------------------------------------------------------------------


def _student(a: Floats, b: Floats, paired: bool) -> Floats:
    """Two-sided p of Welch's test, or of Student's on pairs; NaN where nothing varies."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if paired:
            d = b - a
            n = d.shape[1]
            spread, freedom = np.var(d, axis=1, ddof=1) / n, np.full(len(d), n - 1.0)
            mean = np.mean(d, axis=1)
        else:
            one, two = (np.var(x, axis=1, ddof=1) / x.shape[1] for x in (a, b))
            spread = one + two
            freedom = spread**2 / (one**2 / (a.shape[1] - 1) + two**2 / (b.shape[1] - 1))
            mean = np.mean(b, axis=1) - np.mean(a, axis=1)
        return np.asarray(2 * stdtr(freedom, -np.abs(mean) / np.sqrt(spread)))


def _measure(a: Floats, b: Floats, paired: bool, level: float) -> tuple[ranks.Shift, Floats]:
    """The rank test, and Student's p where that can matter: where the rank test is significant and something varies."""
    found = ranks.paired_shift(b - a, level) if paired else ranks.shift(a, b, level)
    p, asked = found.p.copy(), np.flatnonzero(found.p <= 1 - level + 1e-12)
    if len(asked):
        student = _student(a[asked], b[asked], paired)
        p[asked] = np.where(np.isnan(student), p[asked], student)
    return found, p


def measure_many(
    a: Floats, b: Floats, smallest: Smallest = DEFAULT, *, paired: bool = False, level: float = LEVEL
) -> Tested:
    """Test k comparisons at once.

    Args:
        a: baseline, one row a comparison, one column a repeat, all finite; shape (k, n), n of 6 or more.
        b: likewise (k, m); with ``paired`` column i belongs to column i of ``a``.
    """
    ratio = np.all(a > 0, axis=1) & np.all(b > 0, axis=1) & smallest.relative
    columns = {name: np.full(len(a), np.nan) for name in ("change", "low", "high", "p_rank", "p_t")}
    floor = 1.0
    for rows, logarithm in ((ratio, True), (~ratio, False)):
        if not np.any(rows):
            continue
        every = bool(np.all(rows))
        x, y = (a, b) if every else (a[rows], b[rows])
        found, p_t = (
            _measure(np.log(x), np.log(y), paired, level) if logarithm else _measure(x, y, paired, level)
        )
        floor = found.floor
        shown = (np.expm1(v) if logarithm else v for v in (found.estimate, found.low, found.high))
        for name, values in zip(columns, (*shown, found.p, p_t), strict=True):
            columns[name][rows] = values
    margin = np.full(len(a), smallest.value)
    if smallest.relative and not np.all(ratio):
        of = np.abs(np.median(a[~ratio], axis=1)) * smallest.value
        margin[~ratio] = np.where(of > 0, of, np.nan)
    return Tested(ratio, **columns, floor=floor, margin=margin, paired=paired)


def corrected(p: Floats) -> Floats:
    """P-values of a family of comparisons after Benjamini and Hochberg, as ``scipy.stats.false_discovery_control``.

    Own code, since that module takes longer to import than a million comparisons take; a test compares the two.
    """
    order = np.argsort(p)
    scaled = p[order] * (len(p) / np.arange(1, len(p) + 1))
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return out


def conclude(tested: Tested, p: Floats, direction: str, level: float = LEVEL) -> Codes:
    """What follows for each comparison, as an index into ``Change``.

    Args:
        p: corrected p-values.
        direction: HIGHER, LOWER or NEITHER of ``harness.model.metrics``.
    """
    low, high, s = tested.low, tested.high, tested.margin
    alpha = 1 - level + 1e-12
    real = (p <= alpha) & (tested.p_rank <= alpha)
    up, down = real & (low > 0), real & (high < 0)
    known = ~np.isnan(s)  # of NaN every comparison is false
    inside = (low >= -s) & (high <= s) | ~known & (low == 0) & (high == 0)
    worse, better = (down, up) if direction == HIGHER else (up, down)
    excluded = low >= -s if direction == HIGHER else high <= s
    codes = np.full(len(low), _CODES.index(Change.UNKNOWN), dtype=np.int8)
    if direction == NEITHER:
        codes[known & (up | down)] = _CODES.index(Change.DIFFERS)
    else:
        codes[excluded] = _CODES.index(Change.NOT_WORSE)
        codes[known & worse] = _CODES.index(Change.WORSE)
        codes[known & better] = _CODES.index(Change.BETTER)
    codes[inside] = _CODES.index(Change.WITHIN_NOISE)
    return codes


def change_of(code: int) -> Change:
    """The meaning of one of ``conclude``'s codes."""
    return _CODES[code]


def repeats_needed(
    a: Floats, b: Floats, change: float, margin: float, relative: bool, z: float, paired: bool
) -> int:
    """Repeats of each side with which a change like the one seen would probably be told, at least 6.

    The interval must be narrower than the distance of the change from zero or from the smallest effect, whichever is
    more; 5 % more repeats than normal theory asks, since ranks need them (relative efficiency 3/pi).
    """
    x, y = (np.log(a), np.log(b)) if relative else (a, b)
    variance = float(np.var(y - x, ddof=1)) if paired else float(np.var(x, ddof=1) + np.var(y, ddof=1))
    far = max(abs(change), margin - abs(change))
    far = math.log1p(far) if relative else far
    if not (math.isfinite(variance) and far > 0):
        return MINIMUM_REPEATS
    return max(MINIMUM_REPEATS, math.ceil(1.05 * variance * (z / far) ** 2) + 1)


def power(
    noise: float, repeats: int, change: float, smallest: Smallest = DEFAULT, level: float = LEVEL
) -> float:
    """About how often a change for the worse is told, by itself, with so much noise.

    Normal theory on logarithms for the rank test: the estimate varies by noise x sqrt(2/n x pi/3), and it must lie
    beyond its interval's half width, which must reach the smallest effect. ``tests/bench/power.py`` compares.

    Args:
        noise: standard deviation of the logarithm of a repeat's figure, about its coefficient of variation.
        repeats: of each side.
        change: relative, above 0.
    """
    below = ranks.rank_sum(repeats, repeats)
    depth = int(np.searchsorted(below, (1 - level) / 2, side="right"))
    if repeats < MINIMUM_REPEATS or not depth:
        return 0.0
    spread = noise * math.sqrt(2 / repeats * math.pi / 3)
    half = float(stdtrit(2 * repeats - 2, 1 - float(below[depth - 1]))) * spread
    reach = max(half, math.log1p(smallest.value) - half)
    return (
        float(ndtr((math.log1p(change) - reach) / spread)) if spread > 0 else float(change >= smallest.value)
    )


# --- one comparison ------------------------------------------------------------------------------------


def _range(values: Floats) -> tuple[float, float]:
    return (float(np.min(values)), float(np.max(values))) if len(values) else (math.nan, math.nan)


def _median(values: Floats) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _plain(a: Floats, b: Floats, verdict: Change, why: str, needed: int | None) -> Difference:
    """What can be said without a test."""
    return Difference(
        verdict, False, None, None, None, "", _median(a), _median(b), _range(a), _range(b), len(a), len(b), needed, why
    )  # fmt: skip


def _not_finite(a: Floats, b: Floats) -> str:
    wrong = [
        f"{int(np.sum(~np.isfinite(x)))} of {text.count(len(x), 'repeat')} of {name}"
        for name, x in (("A", a), ("B", b))
        if not np.all(np.isfinite(x))
    ]
    return f"not finite: {' and '.join(wrong)}" if wrong else ""


def short_of_repeats(a: Floats, b: Floats, smallest: Smallest, paired: bool = False) -> Difference:
    """The comparison of fewer repeats than an interval needs: ranges, and how many would be needed."""
    ratio = smallest.relative and bool(np.all(a > 0) and np.all(b > 0))
    change, needed = None, MINIMUM_REPEATS
    if len(a) and len(b):
        one, two = float(np.median(a)), float(np.median(b))
        change = two / one - 1 if ratio else two - one
        if min(len(a), len(b)) >= 3 and (not paired or len(a) == len(b)):
            margin = smallest.value if ratio or not smallest.relative else smallest.value * abs(one)
            needed = repeats_needed(a, b, change, margin, ratio, -float(ndtri((1 - LEVEL) / 2)), paired)
    why = (
        f"{len(a)} and {len(b)} repeats: below {MINIMUM_REPEATS} of each there is no interval; "
        f"about {needed} of each would tell"
    )
    return replace(_plain(a, b, Change.UNKNOWN, why, needed), relative=ratio, change=change)


def difference(
    a: Floats, b: Floats, tested: Tested, row: int, p: float, verdict: Change, comparisons: int = 1
) -> Difference:
    """One row of ``measure_many`` after ``conclude``, with words; ``a`` and ``b`` are its repeats."""
    relative, change = bool(tested.relative[row]), float(tested.change[row])
    margin = float(tested.margin[row])
    interval = (float(tested.low[row]), float(tested.high[row]))
    why, needed = "", None
    if verdict is Change.UNKNOWN and math.isnan(margin):
        why = "the baseline's median is 0, so no fraction of it can matter; give the smallest effect in the unit"
    elif verdict is Change.UNKNOWN:
        alone = float(tested.p_rank[row]) <= 1 - LEVEL
        z = -float(ndtri((1 - LEVEL) / 2 / (comparisons if alone else 1)))
        needed = repeats_needed(a, b, change, margin, relative, z, tested.paired)
        needed = max(needed, min(len(a), len(b)) + 1)
        why = "the interval is too wide to tell"
        if alone:
            why = f"significant by itself, but not as one of {comparisons} comparisons"
        why += f"; about {needed} repeats of each would"
    plain = _plain(a, b, verdict, why, needed)
    return replace(
        plain, relative=relative, change=change, interval=interval, p=p, test=tested.test(comparisons)
    )


def compare(
    a: Sequence[float] | Floats,
    b: Sequence[float] | Floats,
    *,
    smallest: Smallest | float = DEFAULT,
    direction: str,
    paired: bool = False,
    level: float = LEVEL,
) -> Difference:
    """Compare B with the baseline A, by itself.

    Args:
        a: figures of independent repeats, in the metric's unit.
        b: likewise; with ``paired`` b[i] was measured beside a[i].
        smallest: the smallest effect that matters; a plain number is a fraction of the baseline.
        direction: HIGHER, LOWER or NEITHER of ``harness.model.metrics``.

    Raises:
        ValueError: ``paired``, and the two differ in length.
    """
    one, two = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    least = smallest if isinstance(smallest, Smallest) else Smallest(smallest)
    if paired and len(one) != len(two):
        raise ValueError(f"{len(one)} and {len(two)} values cannot be pairs")
    if wrong := _not_finite(one, two):
        return _plain(one, two, Change.UNKNOWN, wrong, None)
    if min(len(one), len(two)) < MINIMUM_REPEATS:
        return short_of_repeats(one, two, least, paired)
    tested = measure_many(one[None, :], two[None, :], least, paired=paired, level=level)
    p = tested.p(1, level)
    verdict = change_of(int(conclude(tested, p, direction, level)[0]))
    return difference(one, two, tested, 0, float(p[0]), verdict)
