"""Whether a series goes somewhere: Theil-Sen's slope with an interval that allows for values that follow one another.

Theil-Sen takes the median of the slopes of all pairs, and Sen's interval (P. K. Sen, Journal of the American
Statistical Association 63, 1968) needs independent values. Steps of one run are not, so the series is first cut into
stretches, each reduced to its median, several times as long as the correlation reaches; what has too few such
stretches has no slope. Where a series changed level at once, Pettitt's rank test (A. N. Pettitt, Applied Statistics
28(2), 1979) says where.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from analysis.resample import LEVEL, Interval, correlation_time
from analysis.series import Floats

MOST = 60  # stretches: enough for a narrow interval, few enough for all their pairs
FEWEST = 10
_WORTH_A_LOOK = 0.05  # a level that changes by chance alone more often than this did not change
_TIMES = 3  # correlation times that a stretch is long


@dataclass(frozen=True)
class Slope:
    """Theil-Sen's slope in units of y for each unit of x, with its 95 % interval."""

    value: float
    interval: Interval
    at_start: float  # of the line, at the first x
    span: float  # last x less first
    stretches: int
    length: int  # values in each stretch
    starts: Interval  # at the first x, of the lines with the slopes of the interval

    @property
    def change(self) -> float:
        """What the line gains from the first to the last x."""
        return self.value * self.span

    @property
    def share(self) -> tuple[float, Interval] | None:
        """What the line gains as a share of its level at the first x, with the interval of just that.

        None where one of its lines reaches zero within the span: then there is no level that a share could be of.
        """
        lines = (self.value, self.at_start), *zip(self.interval, self.starts, strict=True)
        if any(start <= 0 or start + slope * self.span <= 0 for slope, start in lines):
            return None
        of_line, low, high = (slope * self.span / start for slope, start in lines)
        return of_line, (low, high)


@dataclass(frozen=True)
class Shift:
    """A change of level: the first index after it, medians before and after, and how likely chance alone gives it."""

    index: int
    before: float
    after: float
    p: float


def stretches(x: Floats, y: Floats, length: int) -> tuple[Floats, Floats]:
    """Middles of x and medians of y over stretches of ``length``; what is left over at the start is dropped."""
    count = len(y) // length
    cut = len(y) - count * length
    return (
        x[cut:].reshape(count, length).mean(axis=1),
        np.median(y[cut:].reshape(count, length), axis=1),
    )


def _pairs(x: Floats, y: Floats) -> Floats:
    i, j = np.triu_indices(len(x), 1)
    run = x[j] - x[i]
    return np.asarray((y[j] - y[i])[run > 0] / run[run > 0])


def _alike(values: Floats) -> float:
    """Autocorrelation of neighbours; 0 for a constant."""
    centred = values - np.mean(values)
    power = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / power if power > 0 else 0.0


def _length(rest: Floats) -> int:
    """How long stretches must be for their medians to be nearly independent, from what a trend or a shift leaves."""
    return max(math.ceil(len(rest) / MOST), 1 + math.ceil(_TIMES * (correlation_time(rest) - 1)))


def theil_sen(x: Floats, y: Floats, level: float = LEVEL) -> Slope | None:
    """The slope of a series; None where it has fewer than ``FEWEST`` independent stretches.

    Args:
        x: ascending, shape (n,).
        y: finite, shape (n,).
    """
    first = max(1, math.ceil(len(y) / MOST))
    if len(y) // first < FEWEST:
        return None
    rough = _pairs(*stretches(x, y, first))
    if not len(rough):
        return None
    length = _length(y - float(np.median(rough)) * x)
    if len(y) // length < FEWEST:
        return None
    middles, medians = stretches(x, y, length)
    slopes = np.sort(_pairs(middles, medians))
    slope, n = float(np.median(slopes)), len(medians)
    rest = medians - slope * middles
    low, high = _sen(slopes, medians, max(0.0, _alike(rest) + 2 / n), level)
    start, *starts = (float(np.median(medians - b * middles)) + b * float(x[0]) for b in (slope, low, high))
    return Slope(slope, (low, high), start, float(x[-1] - x[0]), n, length, (starts[0], starts[1]))


def _sen(slopes: Floats, values: Floats, alike: float, level: float) -> Interval:
    """Sen's interval: the slopes that Kendall's test of no trend would not reject; ``slopes`` ascending.

    Its variance is made larger by (1 + r) / (1 - r), r what correlation neighbours still have.
    """
    n = len(values)
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18
    variance *= (1 + min(alike, 0.9)) / (1 - min(alike, 0.9))
    half = float(ndtri((1 + level) / 2)) * math.sqrt(max(variance, 0.0))
    low = max(0, math.floor((len(slopes) - half) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + half) / 2))
    return float(slopes[low]), float(slopes[high])


def _split(medians: Floats) -> tuple[int, float]:
    """Where a level most likely changed, and Pettitt's probability of that by chance."""
    n = len(medians)
    u = np.abs(2 * np.cumsum(rankdata(medians)) - np.arange(1, n + 1) * (n + 1))[:-1]
    at = int(np.argmax(u)) + 1
    return at, min(1.0, 2 * math.exp(-6 * float(u[at - 1]) ** 2 / (n**3 + n**2)))


def shift(y: Floats) -> Shift | None:
    """Where a series changed level, by Pettitt's test on its stretches; None where it did not, or has too few of them.

    Args:
        y: finite, shape (n,).
    """
    length, x = max(1, math.ceil(len(y) / MOST)), np.arange(len(y), dtype=np.float64)
    if len(y) // length < FEWEST:
        return None
    at, p = _split(stretches(x, y, length)[1])
    if p > _WORTH_A_LOOK:
        return None
    index = len(y) % length + at * length
    levels = np.where(x < index, np.median(y[:index]), np.median(y[index:]))
    length = _length(y - levels)
    if len(y) // length < FEWEST:
        return None
    medians = stretches(x, y, length)[1]
    at, p = _split(medians)
    return Shift(
        len(y) % length + at * length, float(np.median(medians[:at])), float(np.median(medians[at:])), p
    )
