"""Intervals of figures from few independent repeats, that hold the truth as often as they say.

The percentile bootstrap does not: from seven values its nominal 95 % interval of a median holds it 87 times in 100,
since resampling n values shrinks their variance by (n-1)/n and knows no Student's t (T. Hesterberg, "What teachers
should know about the bootstrap", The American Statistician 69(4), 2015); BCa mends skewness and not that. So here:

- a median has the interval between two order statistics, exact whatever the distribution, interpolated to the level
  (T. P. Hettmansperger and S. J. Sheather, Statistics & Probability Letters 4, 1986). Six values are the fewest that
  have one of 95 %, which is METRICS.md's limit;
- a ratio of medians joins the two intervals of their logarithms (G. Y. Zou and A. Donner, "Construction of confidence
  limits about effect measures", Statistics in Medicine 27, 2008);
- a mean has Student's t by bootstrap (P. Hall, Annals of Statistics 16(3), 1988), any other statistic BCa of scipy.
  Six values that are late as an exponential is hold their mean 92 to 93 times in 100, ten 94 times; where one repeat in
  ten is far off, six hold it 65 times. No method knows the tail from six values that did not come from it (Hall's
  transformation gains one in 100, for intervals a quarter wider): take the median;
- a statistic of one series, whose values follow one another, resamples blocks (D. N. Politis and J. P. Romano, 1992).

What they hold is measured by ``python -m tests.bench.truth``. Nothing here knows of files or verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr, stdtrit

Floats = NDArray[np.float64]
Interval = tuple[float, float]

MINIMUM = 6  # independent values below which there is a range and no interval (METRICS.md)
LEVEL = 0.95
RESAMPLES = 2000
SEED = 20_260_101
_MOST = 4_000_000  # values that a block bootstrap holds at once
_FEWEST_BLOCKS = 10


def finite(values: Sequence[float] | NDArray[Any]) -> Floats:
    """The values as floats.

    Raises:
        ValueError: some are NaN or infinite; it says how many. They are not left out in silence.
    """
    data = np.asarray(values, dtype=np.float64)
    bad = int(np.sum(~np.isfinite(data)))
    if bad:
        raise ValueError(f"{bad} of {data.size} values are not finite numbers")
    return data


def interval(
    values: Sequence[float] | NDArray[Any],
    statistic: Callable[..., Any] = np.median,
    level: float = LEVEL,
    seed: int = SEED,
) -> Interval | None:
    """Interval of a statistic of independent values, one for each repeat; None below ``MINIMUM`` of them.

    Args:
        values: shape (n,). Steps of one run are not independent: see ``of_series``.
        statistic: ``np.median`` and ``np.mean`` have methods of their own; any other takes ``axis``, or is slow.
        level: how often it holds the truth.
        seed: of the resampling; the same seed gives the same interval. A median needs none.

    Raises:
        ValueError: a value is not finite.
    """
    data = finite(values)
    if data.ndim != 1:
        raise ValueError(f"one series of values is wanted, not shape {data.shape}")
    if len(data) < MINIMUM:
        return None
    if statistic is np.median:
        low, high = of_median(data, level)
        return float(low), float(high)
    if float(np.ptp(data)) == 0:
        value = float(statistic(data))
        return value, value
    generator = np.random.default_rng(seed)
    if statistic is np.mean:
        return _of_mean(data, level, generator)
    # scipy 1.15 renamed the argument
    seeded: dict[str, Any] = {
        "rng" if "rng" in signature(stats.bootstrap).parameters else "random_state": generator
    }
    found = stats.bootstrap(
        (data,), statistic, n_resamples=RESAMPLES, confidence_level=level, method="BCa", **seeded
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def of_median(values: NDArray[Any], level: float = LEVEL) -> tuple[Floats, Floats]:
    """Interval of the median over the last axis, shape (..., n) -> two of shape (...).

    The widest that n values have is their range; below six it does not reach 95 %.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    n = ordered.shape[-1]
    # Coverage of the interval from the k-th smallest to the k-th largest value.
    depths = np.arange(1, n // 2 + 1)
    coverage = 1 - 2 * stats.binom.cdf(depths - 1, n, 0.5)
    k = max(1, int(np.sum(coverage >= level)))
    low, high = ordered[..., k - 1], ordered[..., n - k]
    if k < n // 2 and coverage[k - 1] > level:
        share = (coverage[k - 1] - level) / (coverage[k - 1] - coverage[k])
        weight = (n - k) * share / (k + (n - 2 * k) * share)
        low = (1 - weight) * low + weight * ordered[..., k]
        high = (1 - weight) * high + weight * ordered[..., n - k - 1]
    return np.asarray(low), np.asarray(high)


def ratio_of_medians(
    top: Sequence[float] | NDArray[Any], bottom: Sequence[float] | NDArray[Any], level: float = LEVEL
) -> Interval | None:
    """Interval of median(top) / median(bottom), of independent positive values; None below ``MINIMUM`` of either."""
    if min(len(top), len(bottom)) < MINIMUM:
        return None
    a, b = np.log(finite(top)), np.log(finite(bottom))
    middle_a, middle_b = float(np.median(a)), float(np.median(b))
    (low_a, high_a), (low_b, high_b) = of_median(a, level), of_median(b, level)
    low = middle_a - middle_b - math.hypot(middle_a - float(low_a), float(high_b) - middle_b)
    high = middle_a - middle_b + math.hypot(float(high_a) - middle_a, middle_b - float(low_b))
    return math.exp(low), math.exp(high)


def _of_mean(data: Floats, level: float, generator: np.random.Generator) -> Interval:
    """Bootstrap-t: quantiles of Student's t as the data themselves have it, also where they are skewed."""
    n, mean = len(data), float(np.mean(data))
    draws = data[generator.integers(n, size=(RESAMPLES, n))]
    spread = np.std(draws, axis=1, ddof=1)
    use = spread > 0
    t = (np.mean(draws[use], axis=1) - mean) / (spread[use] / math.sqrt(n))
    low_t, high_t = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    error = float(np.std(data, ddof=1)) / math.sqrt(n)
    return mean - float(high_t) * error, mean - float(low_t) * error


def tails(level: float, df: float) -> tuple[float, float]:
    """Percentiles (as shares) that widen a bootstrap interval as Student's t with ``df`` widens the normal one.

    The "expanded percentile" of Hesterberg 2015: what a bootstrap leaves out because it takes the variance as known.
    """
    tail = float(ndtr(stdtrit(max(df, 1.0), (1 - level) / 2)))
    return tail, 1 - tail


# --- one series, whose values follow one another -----------------------------------------------------------


def correlation_time(values: NDArray[Any]) -> float:
    """Integrated autocorrelation time of a series in samples, 1 where they are independent.

    1 + 2 times the sum of autocorrelations over the first positive pairs (C. J. Geyer, Statistical Science 7(4), 1992).
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    centred = data - np.mean(data)
    power = float(np.dot(centred, centred))
    if n < 4 or power <= 0:
        return 1.0
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(centred, size)) ** 2
    rho = np.fft.irfft(spectrum, size)[: n // 2] / power
    pairs = rho[: len(rho) // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = pairs > 0
    count = len(pairs) if bool(np.all(positive)) else int(np.argmin(positive))
    return max(1.0, float(2 * np.sum(np.minimum.accumulate(pairs[:count])) - 1)) if count else 1.0


def of_series(
    values: Sequence[float] | NDArray[Any],
    statistic: Callable[..., Any] = np.median,
    level: float = LEVEL,
    seed: int = SEED,
    resamples: int = 400,
) -> Interval | None:
    """Interval of a statistic of one series by a circular block bootstrap; None where it has too few blocks.

    It says how well this run is known and nothing of the next one: for that, repeats are resampled.

    Args:
        values: in their order, shape (n,).
        statistic: takes ``axis``.

    Raises:
        ValueError: a value is not finite.
    """
    data = finite(values)
    n = len(data)
    length = max(1, math.ceil(correlation_time(data) * 2)) if n else 1
    blocks = n // length
    if blocks < _FEWEST_BLOCKS:
        return None
    generator = np.random.default_rng(seed)
    wrapped = np.concatenate([data, data[: length - 1]])
    windows = np.lib.stride_tricks.sliding_window_view(wrapped, length)
    found: list[Floats] = []
    at_once = max(1, _MOST // (blocks * length))
    for begin in range(0, resamples, at_once):
        starts = generator.integers(n, size=(min(at_once, resamples - begin), blocks))
        draws = windows[starts].reshape(len(starts), -1)
        found.append(np.asarray(statistic(draws, axis=1), dtype=np.float64))
    low, high = np.quantile(np.concatenate(found), tails(level, blocks - 1))
    return float(low), float(high)
