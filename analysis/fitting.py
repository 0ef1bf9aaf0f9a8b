"""Least squares on logarithms, for laws that are sums of terms with coefficients that cannot be negative.

Times err in proportion, so what is made small is the sum of squares of log(measured / law). It is solved by
Gauss-Newton on a linear problem that is solved exactly over every set of active coefficients; many data sets go side by
side.

Intervals of what is fitted come from repeats, whose logarithms vary around their mean at each place (a node count). A
figure moves with the means by its gradient, so its variance is a sum over places. Small samples are allowed for:

- Student's t with the degrees of freedom of B. L. Welch (1947) and F. E. Satterthwaite (1946), as variances of places
  may differ and none is known. A variance below what the places have in common is raised towards that (G. K. Smyth,
  Statistical Applications in Genetics and Molecular Biology 3(1), 2004), and none is ever lowered: with six repeats
  the intervals that miss are those of a variance that came out too small;
- late runs are more frequent than early ones, so means and variances vary together, and intervals of Student's t alone
  lie too low far more often than too high. Its quantiles are transformed by the skewness that the places have in common
  (P. Hall, "On the removal of skewness by transformation", Journal of the Royal Statistical Society B 54(1), 1992).

The ends are then fitted, not extended from the gradient: the means are moved along the direction in which they change
the figure most likely (the least favourable one; T. DiCiccio and B. Efron, Biometrika 79(2), 1992), and the law, with
coefficients that are not negative, is fitted there. ``python -m tests.bench.truth --only laws`` measures what is held.

Where a coefficient may as well be zero, that is not enough (D. W. K. Andrews, Econometrica 68(2), 2000): one that is
cut off at zero drags the others along. So intervals then span the law with that term and without it, and so on with
the terms that are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats
from scipy.special import digamma, polygamma, stdtrit

from analysis.resample import LEVEL
from analysis.series import Floats

_ITERATIONS = 25
_ALIKE = 1e-2  # variance of log variances below which places vary alike


def aicc(sse: float, n: int, k: int) -> float:
    """Akaike's criterion, corrected for n: n ln(SSE/n) + 2k + 2k(k+1)/(n-k-1); needs n > k + 1."""
    return n * math.log(max(sse / n, 1e-24)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _solved(normal: Floats, right: Floats) -> Floats:
    """Solutions of normal equations, shapes (r, m, m) and (r, m); a trace of a ridge where they are singular."""
    m = normal.shape[-1]
    ridge = (1e-14 * np.einsum("rii->ri", normal) + 1e-300)[:, :, None] * np.eye(m)
    return np.asarray(np.linalg.solve(normal + ridge, right[:, :, None])[:, :, 0])


def _non_negative(a: Floats, b: Floats) -> Floats:
    """Least squares with non-negative coefficients: the free solution where it has none below zero, else the best of
    every active set.

    Shapes: a (r, n, m), b (r, n), result (r, m).
    """
    m = a.shape[2]
    normal, right = np.matmul(a.transpose(0, 2, 1), a), np.matmul(b[:, None, :], a)[:, 0, :]
    best = _solved(normal, right)
    bound = np.flatnonzero(np.any(best < 0, axis=1))
    if not len(bound):
        return best
    normal, right, a, b = normal[bound], right[bound], a[bound], b[bound]
    found, cost = np.zeros((len(bound), m)), np.einsum("rn,rn->r", b, b)
    for count in range(1, m):
        for active in combinations(range(m), count):
            x = _solved(normal[:, active][:, :, active], right[:, active])
            residual = b - np.einsum("rni,ri->rn", a[:, :, active], x)
            costs = np.einsum("rn,rn->r", residual, residual)
            better = np.all(x >= 0, axis=1) & (costs < cost * (1 - 1e-12))
            cost = np.where(better, costs, cost)
            full = np.zeros_like(found)
            full[:, list(active)] = x
            found = np.where(better[:, None], full, found)
    best[bound] = found
    return best


def fit_log(
    basis: Floats, y: Floats, weights: Floats | None = None, start: Floats | None = None
) -> tuple[Floats, Floats]:
    """Minimise the sum of w (log y - log(basis c))^2 over c >= 0.

    Args:
        basis: shape (n, m).
        y: positive, shape (r, n): r data sets side by side.
        weights: shape (n,), or (r, n); all 1 when not given.
        start: coefficients (m,) near the answers, which are then found sooner.

    Returns:
        Coefficients (r, m) and sums of squares (r,).
    """
    basis = np.broadcast_to(basis, (len(y), *basis.shape[-2:]))
    root = np.ones(y.shape[1]) if weights is None else np.sqrt(weights)
    model = y if start is None else np.broadcast_to(np.maximum(basis[0] @ start, 1e-300), y.shape)
    coefficients = np.zeros((len(y), basis.shape[-1]))
    for _ in range(_ITERATIONS):
        target = 1 + np.log(y / model)  # of basis c / model, to first order in log
        coefficients = _non_negative(basis * (root / model)[:, :, None], target * root)
        before, model = model, np.maximum(np.einsum("rnm,rm->rn", basis, coefficients), 1e-300)
        if np.allclose(model, before, rtol=1e-7, atol=0):
            break
    return coefficients, np.asarray(np.sum((root * np.log(y / model)) ** 2, axis=1))


def _skewness(values: Floats) -> float:
    """Third central moment, unbiased, over the cube of the standard deviation; 0 where it cannot be told."""
    n, deviations = len(values), values - np.mean(values)
    squares = float(np.sum(deviations**2))
    if n < 3 or squares <= 1e-24 * n:
        return 0.0
    third = float(np.sum(deviations**3))
    return third / float(squares**1.5) * n * math.sqrt(n - 1) / (n - 2)


def _raised(variances: Floats, freedom: Floats) -> Floats:
    """Variances of places, (places,), of which those below what is common to all are raised towards it (Smyth 2004).

    How far depends on how much they differ among themselves beyond chance.
    """
    if len(variances) < 2 or not np.all(variances > 0):
        return variances
    half = freedom / 2
    logs = np.log(variances) - digamma(half) + np.log(half)
    beyond = float(np.var(logs, ddof=1) - np.mean(polygamma(1, half)))
    if beyond <= _ALIKE:
        return np.maximum(variances, float(np.sum(freedom * variances) / np.sum(freedom)))
    prior = 2 * _trigamma_inverse(beyond)  # degrees of freedom of what is common
    common = math.exp(float(np.mean(logs)) + float(digamma(prior / 2)) - math.log(prior / 2))
    return np.maximum(variances, (prior * common + freedom * variances) / (prior + freedom))


def _trigamma_inverse(value: float) -> float:
    """The x of which the trigamma function is ``value``, above 0: Newton's method of Smyth 2004, appendix."""
    x = 0.5 + 1 / value
    for _ in range(20):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step < 1e-8 * x:
            break
    return x


def _untransformed(t: Floats, a: float) -> Floats:
    """Quantiles of a studentised mean from those of Student's t, by the inverse of Hall's transformation.

    Args:
        t: shape (n,).
        a: skewness of the estimate.
    """
    if abs(a) < 1e-6:
        return t
    return np.asarray(3 * (np.cbrt(1 + a * (t - a / 6)) - 1) / a)


@dataclass(frozen=True)
class Repeats:
    """Logarithms of repeats at each place, reduced: all that a fit of their means needs to know."""

    means: Floats  # of log time, shape (places,)
    counts: Floats
    within: float  # sum of squares around the means
    variances: Floats  # of one repeat, as ``_raised`` gives them; NaN where a place has one repeat
    skewness: float  # of one repeat, common to all places; 0 below three repeats

    @classmethod
    def of(cls, values: Sequence[Sequence[float]] | Floats) -> Repeats:
        """From positive values of each place, in its unit."""
        logs = [np.log(np.asarray(v, dtype=np.float64)) for v in values]
        means = np.array([float(np.mean(v)) for v in logs])
        counts = np.array([float(len(v)) for v in logs])
        squares = np.array([float(np.sum((v - m) ** 2)) for v, m in zip(logs, means, strict=True)])
        variances = np.divide(squares, counts - 1, out=np.full_like(squares, np.nan), where=counts > 1)
        skewness = float(np.mean([_skewness(v) for v in logs]))
        return cls(means, counts, float(np.sum(squares)), _raised(variances, counts - 1), skewness)

    @property
    def n(self) -> int:
        """All values together."""
        return int(np.sum(self.counts))

    def ends(self, gradient: Floats, level: float = LEVEL) -> Floats:
        """Means of log time, moved to where a figure has the ends of its interval; needs two values a place.

        Args:
            gradient: of the figure by the means, shape (places,).

        Returns:
            Shape (2, places): of the figure's lower end, and of its upper one.
        """
        shares = gradient**2 * self.variances / self.counts
        variance = float(np.sum(shares))
        if not variance > 0:
            return np.stack([self.means, self.means])
        df = variance**2 / float(np.sum(shares**2 / (self.counts - 1)))
        third = self.skewness * float(np.sum(gradient**3 * self.variances**1.5 / self.counts**2))
        t = float(stdtrit(df, (1 + level) / 2))
        moves = -_untransformed(np.array([t, -t]), third / variance**1.5) * math.sqrt(variance)
        along = gradient * self.variances / self.counts / variance
        return np.asarray(self.means + moves[:, None] * along)

    def one_more(self, between: float, parameters: int, level: float = LEVEL) -> tuple[float, float]:
        """How far below and above a law the logarithm of one more run may lie, for its own noise; both above 0.

        Student's t, its two sides corrected for skewness (E. A. Cornish and R. A. Fisher 1937).

        Args:
            between: the weighted sum of squares of the means around the law.
            parameters: of the law.
        """
        df = self.n - parameters
        noise, t = math.sqrt((self.within + between) / df), float(stdtrit(df, (1 + level) / 2))
        lean = min(1.0, max(-1.0, self.skewness * (t**2 - 1) / 6 / t))
        return noise * t * (1 - lean), noise * t * (1 + lean)

    def lack_of_fit(self, between: float, parameters: int) -> float | None:
        """How likely repeats alone make the means miss a law by so much (F test); None where it cannot be told.

        Args:
            between: the weighted sum of squares of the means around the law.
            parameters: of the law.
        """
        over, under = len(self.means) - parameters, self.n - len(self.means)
        if over < 1 or under < 1:
            return None
        if self.within <= 0:
            return 0.0 if between > 1e-18 * self.n else 1.0
        return float(stats.f.sf(between / over / (self.within / under), over, under))
