"""One run against those before it: the run is the unit, since what changes from day to day shows between runs only.

A run's figure is the median of its repeats. The interval of the change is that of the last figure against the level of
the history, t = (x - median) / (1.4826 MAD), whose quantiles were found by simulation of normal data (4e5 draws a size)
and are those of Student's t with ``FREEDOM`` degrees of freedom, times ``SCALE``. Median and MAD, because one bad night
in the history must not widen it for months. Where the MAD is 0 although the figures differ (more than half are equal),
it says nothing of how far the others lie: the mean absolute deviation takes its place, and the interval reaches at
least as far as 95 % of the figures and one more do, so that what the history holds is no alarm. It is of logarithms
where all figures are positive. Below 6 runs nothing is concluded; verdicts are those of ``analysis.difference``.

The history is the last level that is no worse than the one it followed, or that somebody accepted. A level that is
worse by the smallest effect or more, and that nobody accepted (``analysis.accepted``), is compared with the one before
it however long it lasts: a regression is none the less one for being six nights old, and a history that began anew at
each change would call it the norm as soon as it had enough runs. A level that came back, or is better, begins a new
history by itself. Where the level before has too few runs to judge by, that is unknown, and says how much worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from analysis import changepoints, text
from analysis.changepoints import ChangePoint
from analysis.difference import (
    DEFAULT,
    LEVEL,
    MINIMUM_REPEATS,
    Change,
    Smallest,
    Tested,
    amount,
    change_of,
    conclude,
)
from analysis.series import Floats
from harness.model.metrics import HIGHER, NEITHER

# Number of runs -> degrees of freedom, scale; beyond the table by formula.
_TABLE = {
    6: (2.78, 1.269), 7: (2.72, 1.199), 8: (3.51, 1.170), 9: (3.42, 1.126), 10: (4.29, 1.127), 11: (4.23, 1.103),
    12: (4.87, 1.085), 13: (4.94, 1.081), 14: (5.88, 1.086),
}  # fmt: skip
METHOD = (
    "median and MAD (where it is 0: mean deviation and range) of the last level that is no change for the worse, or "
    "was accepted; 95 % interval for one more run"
)


HOW = "`harness trend FOLDER --accept RUN`"


@dataclass(frozen=True)
class Expected:
    """The last run against its history. ``change``, ``interval`` as in ``analysis.difference``."""

    verdict: Change
    relative: bool
    change: float | None
    interval: tuple[float, float] | None
    p: float | None
    level: float  # median of the history
    span: tuple[float, float] | None  # where the last figure was expected, in the metric's unit
    runs: int  # of the history
    since: int  # index of its first run
    until: int  # index after its last run; a level that is worse and not accepted begins there, or the last run stands
    lasts: bool  # whether there is such a level, and the last run is at it as far as can be told
    why: str

    def said(self, unit: str = "") -> str:
        """The change with its interval."""
        if self.change is None or self.interval is None:
            return "unknown" if self.change is None else amount(self.change, self.relative, unit)
        low, high = (amount(x, self.relative, unit) for x in self.interval)
        return f"{amount(self.change, self.relative, unit)} ({low} to {high})"


def student(n: int) -> tuple[float, float]:
    """Degrees of freedom and scale for a history of n runs."""
    return _TABLE.get(n, (0.4 * (n - 1), 1 + 1 / n))


@dataclass(frozen=True)
class _Scale:
    """How far one more figure may lie from the level: t = away / ``unit``, and never less than ``least``."""

    unit: float
    freedom: float
    least: float

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return max(self.least, self.unit * float(stdtrit(self.freedom, (1 + LEVEL) / 2)))

    def p(self, away: Floats, last: float) -> float:
        """Of a figure as far away as the last, whose history lies ``away``; above 5 % inside the interval."""
        if self.unit == 0:
            return float(last == 0)
        p = 2 * float(stdtr(self.freedom, -abs(last) / self.unit))
        if abs(last) > self.least:
            return p
        return max(p, (1 + int(np.sum(away >= abs(last)))) / (len(away) + 1))


def _scale(away: Floats, size: float) -> _Scale:
    """The scale of a history from its distances to the median.

    Args:
        size: largest figure, to know what is rounding of equal ones.
    """
    n = len(away)
    freedom, scale = student(n)
    spread, rounding = 1.4826 * float(np.median(away)), 1e-13 * size
    if spread > rounding or np.max(away) <= rounding:
        return _Scale(scale * spread, freedom, 0.0)
    spread = math.sqrt(math.pi / 2) * float(
        np.mean(away)
    )  # of normal data the standard deviation, as 1.4826 MAD
    reach = float(np.sort(away)[min(n, math.ceil(LEVEL * (n + 1))) - 1])
    return _Scale(scale * spread, freedom, reach)


def _tested(history: Floats, last: float, smallest: Smallest) -> Tested:
    """The last figure against a history of 6 or more, as one row."""
    ratio = smallest.relative and bool(np.all(history > 0) and last > 0)
    held, x = (np.log(history), np.log(last)) if ratio else (history, last)
    level = float(np.median(held))
    distances, away = np.abs(held - level), float(x - level)
    scale = _scale(distances, float(np.max(np.abs(held))))
    half, p = scale.half, scale.p(distances, away)
    shown = [np.expm1(v) if ratio else v for v in (away, away - half, away + half)]
    margin = smallest.value
    if smallest.relative and not ratio:
        margin = smallest.value * abs(level) or np.nan
    columns = (np.array([v], dtype=np.float64) for v in (*shown, p, p))
    change, low, high, p_rank, p_t = columns
    return Tested(
        np.array([ratio]), change, low, high, p_rank, p_t, 0.0, np.array([margin], dtype=np.float64), False
    )


@dataclass(frozen=True)
class Judged:
    """A series of runs before the last is judged; ``tested`` is None where it cannot be, and ``why`` says so."""

    changes: tuple[ChangePoint, ...]
    history: Floats
    since: int
    until: int
    last: float
    direction: str
    tested: Tested | None
    why: str
    worse: str = ""  # that the newest runs are worse than the history, and nobody accepted it; in words


def _level(
    changes: Sequence[ChangePoint], runs: int, smallest: Smallest, direction: str, accepted: int
) -> range:
    """Runs of the level that is compared with."""
    ends = [*(c.index for c in changes), runs]
    level = range(ends[0])
    before = changes[0].before if changes else 0.0
    for number, change in enumerate(changes):
        # A level may turn out to begin a little later than it seemed to when somebody accepted it.
        taken = change.index < accepted + changepoints.SHORTEST
        if taken or not _worse(before, change.after, smallest, direction):
            level, before = range(change.index, ends[number + 1]), change.after
    return level


def _worse(before: float, after: float, smallest: Smallest, direction: str) -> bool:
    by = before - after if direction == HIGHER else after - before
    return direction != NEITHER and by > 0 and changepoints.matters(before, after, smallest)


def measure(
    figures: Sequence[float] | Floats,
    smallest: Smallest = DEFAULT,
    direction: str = NEITHER,
    *,
    accepted: int = -1,
    names: Sequence[str] = (),
) -> Judged:
    """Test the last of the figures against the level before it.

    Args:
        figures: one a run, in order of time, finite, at least one.
        accepted: index of the last run whose level somebody accepted.
        names: of the runs, for people; their numbers where there are none.
    """
    data = np.asarray(figures, dtype=np.float64)
    last = float(data[-1])
    changes = changepoints.find(data[:-1], smallest) if len(data) > 1 else ()
    level = _level(changes, len(data) - 1, smallest, direction, accepted)
    stop, worse = level.stop, ""
    if stop < len(data) - 1:
        before = float(np.median(data[level.start : stop]))
        # A level of too few runs to be one takes in runs before it.
        stop = next(i for i in range(stop, len(data)) if _worse(before, data[i], smallest, direction))
        worse = _lasting(data, stop, before, names)
    history = data[level.start : stop]
    enough = len(history) >= MINIMUM_REPEATS
    tested = _tested(history, last, smallest) if enough else None
    why = "" if enough else _too_few(len(history), bool(changes), bool(worse))
    return Judged(changes, history, level.start, stop, last, direction, tested, why, worse)


def _too_few(runs: int, changed: bool, worse: bool) -> str:
    if worse:
        return f"that level has {text.count(runs, 'run')}: {MINIMUM_REPEATS} are needed"
    since = " since the last change of level" if changed else ""
    return f"{runs} earlier runs{since}: {MINIMUM_REPEATS} are needed"


def _lasting(data: Floats, begins: int, level: float, names: Sequence[str]) -> str:
    """How much worse than the level before the newest runs are, in words."""
    newest = float(np.median(data[begins:]))
    ratio = level > 0 and newest > 0
    by = amount(newest / level - 1 if ratio else newest - level, ratio)
    name = names[begins] if names else f"run {begins}"
    runs = text.count(len(data) - begins, "run")
    return f"worse than the level before {name}: {runs} since then, {by} in the median, and nobody accepted it ({HOW})"


def expected(judged: Judged, p: float | None = None) -> Expected:
    """What follows for the last run.

    Args:
        p: corrected p; by itself where it is None.
    """
    level = float(np.median(judged.history)) if len(judged.history) else float("nan")
    at = len(judged.history), judged.since, judged.until
    if judged.tested is None:
        why = "; ".join(words for words in (judged.worse, judged.why) if words)
        return Expected(Change.UNKNOWN, False, None, None, None, level, None, *at, bool(judged.worse), why)
    t = judged.tested
    used = float(t.p_rank[0]) if p is None else p
    verdict = change_of(int(conclude(t, np.array([used]), judged.direction)[0]))
    relative, change = bool(t.relative[0]), float(t.change[0])
    interval = (float(t.low[0]), float(t.high[0]))
    if relative:
        centre = judged.last / (1 + change)  # the level on the logarithmic scale
        span = (centre * (1 + change) / (1 + interval[1]), centre * (1 + change) / (1 + interval[0]))
    else:
        span = (judged.last - interval[1], judged.last - interval[0])
    reasons = [judged.worse] if verdict in (Change.WORSE, Change.UNKNOWN) else []
    if verdict is Change.UNKNOWN:
        reasons.append(_why(t, used, interval, relative))
    lasts = bool(judged.worse and reasons)
    why = "; ".join(words for words in reasons if words)
    return Expected(verdict, relative, change, interval, used, level, span, *at, lasts, why)


def _why(t: Tested, p: float, interval: tuple[float, float], relative: bool) -> str:
    if np.isnan(t.margin[0]):
        return "the level of the history is 0, so no fraction of it can matter; give the smallest effect in the unit"
    if float(t.p_rank[0]) <= 1 - LEVEL < p:
        return "outside what the history lets expect, but not beyond chance among so many series"
    half = amount((interval[1] - interval[0]) / 2, relative).lstrip("+")
    return f"runs vary by \u00b1{half}, so one run cannot tell an effect of the smallest size that matters"
