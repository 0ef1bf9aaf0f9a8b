"""Latency and bandwidth of an operation from its time over sizes: t = alpha + S / beta on relative error, piecewise.

Libraries change protocol with size, so sizes are cut into stretches, each with an alpha and a beta of its own; how many
and where is found by trying all and comparing by AICc, where a cut that was searched for counts as three parameters
(Y. Ninomiya, Annals of the Institute of Statistical Mathematics 67, 2015). The operation's latency is alpha of the
smallest sizes, its bandwidth beta of the largest. A fit is refused if what it leaves has structure: if sizes miss it
by more than repeats vary (an F test), or if neighbouring sizes miss it alike (a permutation test of the lag-one
product); in both cases only when it is off by more than 5 %, since no machine follows two numbers exactly.

Each repeat measures all sizes, so its errors go together and each repeat is fitted alone; alpha and beta are medians
over repeats, with the interval of a median, which needs no assumption about how they vary (``analysis.resample``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from analysis import text
from analysis.fitting import Repeats, aicc, fit_log
from analysis.resample import SEED, Interval, interval
from analysis.series import Floats

FEWEST_SIZES = 4  # of a stretch: two numbers and something left to see whether they fit
MOST_STRETCHES = 4
TOLERATED = 0.05  # a fit that is off by less, root mean square, is not refused
POOR = 0.25  # one that is off by more explains nothing, with or without structure
SIGNIFICANT = 0.01
_SEEN = 0.05  # alpha, or S / beta, is known where it is at least this share of a time that was measured
_ROUNDING = 1e-9  # a smaller share is what rounding leaves of nothing
_PERMUTATIONS = 2000


@dataclass(frozen=True)
class Estimate:
    """One number from repeats: median, range, and 95 % interval (None below six repeats)."""

    value: float
    low: float  # of the repeats
    high: float
    interval: Interval | None


@dataclass(frozen=True)
class Stretch:
    """Sizes that one alpha and one beta describe; what these sizes do not show is None."""

    first_bytes: int
    last_bytes: int
    sizes: int
    latency_s: Estimate | None
    bandwidth_bytes_per_s: Estimate | None
    alpha_s: float  # of the fit, also where it is too small to be told from nothing
    seconds_per_byte: float

    def time_s(self, size: float) -> float:
        """What the fit gives at a size."""
        return self.alpha_s + size * self.seconds_per_byte


@dataclass(frozen=True)
class Line:
    """A whole fit; ``refused`` says why its numbers are not to be used, or is empty."""

    stretches: tuple[Stretch, ...]
    relative_error: float  # root mean square over sizes, of the mean of repeats
    lack_of_fit: float | None  # F test; None with one repeat
    order: float | None  # permutation test of neighbours; None with too few sizes
    repeats: int
    refused: str

    @property
    def latency_s(self) -> Estimate | None:
        """Alpha of the smallest sizes; None where they do not show it, or the fit is refused."""
        return None if self.refused or not self.stretches else self.stretches[0].latency_s

    @property
    def bandwidth_bytes_per_s(self) -> Estimate | None:
        """Beta of the largest sizes; None where they do not show it, or the fit is refused."""
        return None if self.refused or not self.stretches else self.stretches[-1].bandwidth_bytes_per_s

    @property
    def words(self) -> str:
        """In a few lines."""
        if self.refused:
            return f"no latency and bandwidth: {self.refused}"
        lines = [_words(s) for s in self.stretches]
        tests = f"off by {self.relative_error * 100:.1f} %"
        return "\n".join([*lines, f"{tests}, {text.count(self.repeats, 'repeat')}"])


def estimate_words(e: Estimate, unit: str) -> str:
    """A number with its interval, or with the range of repeats where there is none."""
    value = text.quantity(e.value, unit)
    if e.interval is not None:
        return f"{value} (95 %: {text.quantity(e.interval[0], unit)} to {text.quantity(e.interval[1], unit)})"
    if not math.isfinite(e.high):
        return f"{value} (lowest of repeats {text.quantity(e.low, unit)}, some do not show it)"
    if e.low < e.high:
        return f"{value} (range of repeats {text.quantity(e.low, unit)} to {text.quantity(e.high, unit)})"
    return value


def _words(s: Stretch) -> str:
    where = f"{text.size(s.first_bytes)} to {text.size(s.last_bytes)}"
    latency = "latency not to be seen at these sizes, smaller ones would show it"
    if s.latency_s is not None:
        latency = f"latency {estimate_words(s.latency_s, 's')}"
    bandwidth = "bandwidth not to be seen at these sizes, larger ones would show it"
    if s.bandwidth_bytes_per_s is not None:
        bandwidth = f"bandwidth {estimate_words(s.bandwidth_bytes_per_s, 'B/s')}"
    return f"{where}: {latency}, {bandwidth}"


def fit(sizes: Floats, times_s: Floats) -> Line:
    """Fit repeats of one operation.

    Args:
        sizes: distinct, ascending, in bytes, shape (m,).
        times_s: above zero, shape (repeats, m).
    """
    m, n = len(sizes), len(times_s)
    if m < FEWEST_SIZES:
        words = text.count(m, "size")
        return Line((), math.nan, None, None, n, f"{words}: a fit needs at least {FEWEST_SIZES}")
    repeats = Repeats.of(times_s.T)
    cuts = _cuts(sizes, repeats.means)
    residuals = np.concatenate(
        [_residuals(sizes[a:b], repeats.means[None, a:b])[0] for a, b in pairwise(cuts)]
    )
    off = float(np.sqrt(np.mean(residuals**2)))
    parameters = 2 * (len(cuts) - 1)
    missed = repeats.lack_of_fit(n * float(np.sum(residuals**2)), parameters) if n > 1 else None
    order = _order(residuals) if m >= 6 else None
    stretches = tuple(_stretch(sizes[a:b], times_s[:, a:b]) for a, b in pairwise(cuts))
    return Line(stretches, off, missed, order, n, _refused(off, missed, order))


def _refused(off: float, missed: float | None, order: float | None) -> str:
    if off <= TOLERATED:
        return ""
    shown = f"off by {off * 100:.0f} %"
    if order is not None and order < SIGNIFICANT:
        return f"neighbouring sizes miss the fit alike (permutation test, p = {order:.2g}; {shown})"
    if missed is not None and missed < SIGNIFICANT:
        return f"sizes miss the fit by more than repeats vary (F test, p = {missed:.2g}; {shown})"
    return f"the times are {shown} of any fit" if off > POOR else ""


def _residuals(sizes: Floats, log_times: Floats) -> Floats:
    """Of log times, shape (r, m), around the best alpha and beta of each row."""
    found, basis = _solved(sizes, log_times)
    return np.asarray(log_times - np.log(np.maximum(found @ basis.T, 1e-300)))


def _solved(sizes: Floats, log_times: Floats) -> tuple[Floats, Floats]:
    """Coefficients (r, 2) of ones and of size over its mean, and those two as columns (m, 2)."""
    basis = np.stack([np.ones_like(sizes), sizes / np.mean(sizes)], axis=1)
    return fit_log(basis, np.exp(log_times))[0], basis


def _cuts(sizes: Floats, means: Floats) -> list[int]:
    """Where stretches begin, and the end: those with the lowest AICc."""
    m = len(sizes)
    places = [
        (a, b)
        for a in (0, *range(FEWEST_SIZES, m - FEWEST_SIZES + 1))
        for b in range(a + FEWEST_SIZES, m + 1)
    ]
    inside = np.array([[a <= i < b for i in range(m)] for a, b in places], dtype=np.float64)
    basis = np.stack([np.ones_like(sizes), sizes / np.mean(sizes)], axis=1)
    _, costs = fit_log(basis, np.exp(np.tile(means, (len(places), 1))), inside)
    cost = dict(zip(places, costs.tolist(), strict=True))
    # best[k][b]: least cost of the first b sizes in k stretches, and where the last begins
    best: list[dict[int, tuple[float, list[int]]]] = [
        {b: (cost[0, b], [0, b]) for b in range(FEWEST_SIZES, m + 1)}
    ]
    for _ in range(1, MOST_STRETCHES):
        before, found = best[-1], {}
        for b in range(m + 1):
            tries = [(before[a][0] + cost[a, b], [*before[a][1], b]) for a in before if (a, b) in cost]
            if tries:
                found[b] = min(tries)
        best.append(found)
    scored = []
    for stretches, ends in enumerate(best, 1):
        k = 2 * stretches + 3 * (stretches - 1) + 1  # two numbers each, the cuts between them, the variance
        if m in ends and m > k + 1:
            floor = 1e-8 * m  # a hundredth of a per cent: nothing is gained below it
            scored.append((aicc(max(ends[m][0], floor), m, k), ends[m][1]))
    return min(scored)[1] if scored else [0, m]


def _order(residuals: Floats) -> float:
    """How likely neighbours are so much alike by chance: one-sided permutation test of their products."""
    if float(np.max(np.abs(residuals))) < 1e-9:
        return 1.0
    generator = np.random.default_rng(SEED)
    shuffled = generator.permuted(np.tile(residuals, (_PERMUTATIONS, 1)), axis=1)
    seen = float(residuals[1:] @ residuals[:-1])
    alike = np.einsum("rn,rn->r", shuffled[:, 1:], shuffled[:, :-1])
    return float((1 + np.sum(alike >= seen)) / (_PERMUTATIONS + 1))


def estimate(values: Floats) -> Estimate:
    """One number from independent repeats, shape (n,)."""
    known = interval(values) if np.all(np.isfinite(values)) else None
    return Estimate(float(np.median(values)), float(np.min(values)), float(np.max(values)), known)


def _stretch(sizes: Floats, times_s: Floats) -> Stretch:
    found, _ = _solved(sizes, np.log(times_s))
    alpha_s, per_byte = found[:, 0], found[:, 1] / np.mean(sizes)
    share = float(np.median(alpha_s / times_s[:, 0]))
    of_size = sizes[-1] * per_byte / times_s[:, -1]
    latency = estimate(alpha_s) if share >= _SEEN else None
    with np.errstate(divide="ignore"):  # infinite in a repeat whose times do not grow with size
        rates = 1 / np.where(of_size > _ROUNDING, per_byte, 0.0)
    seen = float(np.median(of_size)) >= _SEEN and bool(np.isfinite(np.median(rates)))
    bandwidth = estimate(rates) if seen else None
    return Stretch(
        int(sizes[0]),
        int(sizes[-1]),
        len(sizes),
        latency,
        bandwidth,
        float(np.median(alpha_s)),
        float(np.median(per_byte)),
    )
