"""Rank tests of shift, over many series at once: exact null distributions, p-values, and intervals by inverting them.

Two samples: the rank-sum test (Wilcoxon 1945; Mann and Whitney 1947), the estimate of the shift as the median of all
pairwise differences (Hodges and Lehmann 1963), its interval as order statistics of those (Moses; Hollander, Wolfe and
Chicken, Nonparametric Statistical Methods, 2014, sections 4.2 and 4.3). Pairs: the signed-rank test, with the averages
of all pairs of differences (Walsh; sections 3.1 to 3.3). They assume independent repeats whose distribution is the
same but for a shift, and nothing of its shape. Ties count against a difference, so p-values can only be too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from analysis.series import Floats

_EXACT = 2500  # n m, or n (n + 1) / 2, up to which the distribution is counted and not approximated
_AT_ONCE = 2_000_000  # differences held at a time: 16 MB


@dataclass(frozen=True)
class Shift:
    """Shifts of k series, each column of shape (k,); the interval is NaN where so few repeats have none."""

    estimate: Floats
    low: Floats
    high: Floats
    p: Floats  # two-sided, of no shift
    floor: float  # the smallest p that so many repeats can give


@lru_cache(maxsize=256)
def rank_sum(n: int, m: int) -> Floats:
    """P(U <= u) without a shift, u = 0 to n m, where U counts the pairs in which the first sample is larger."""
    if n * m > _EXACT:
        u = np.arange(n * m + 1)
        spread = np.sqrt(n * m * (n + m + 1) / 12)
        return np.asarray(ndtr((u + 0.5 - n * m / 2) / spread))
    # Of samples of i and j values: the largest of all is one of the j, or one of the i and above all j.
    row = [np.ones(1)] * (m + 1)
    for _ in range(n):
        made = [np.ones(1)]
        for j in range(1, m + 1):
            first, second = row[j], made[j - 1]
            counts = np.zeros(max(len(first) + j, len(second)))
            counts[j : j + len(first)] += first
            counts[: len(second)] += second
            made.append(counts)
        row = made
    return np.asarray(np.cumsum(row[m]) / np.sum(row[m]))


@lru_cache(maxsize=256)
def signed_rank(n: int) -> Floats:
    """P(W <= w) without a shift, w = 0 to n (n + 1) / 2, where W sums the ranks of the positive differences."""
    top = n * (n + 1) // 2
    if top > _EXACT:
        w = np.arange(top + 1)
        return np.asarray(ndtr((w + 0.5 - top / 2) / np.sqrt(n * (n + 1) * (2 * n + 1) / 24)))
    counts = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(counts) + rank)
        longer[: len(counts)] += counts
        longer[rank:] += counts
        counts = longer
    return np.asarray(np.cumsum(counts) / np.sum(counts))


def _invert(differences: Floats, below: Floats, level: float) -> Shift:
    """The test and its interval, from all differences or averages of each series; shape (N, k), sorted here."""
    depth = int(np.searchsorted(below, (1 - level) / 2, side="right"))  # values cut off at each end
    differences.sort(axis=0)
    total = len(differences)
    estimate = (differences[(total - 1) // 2] + differences[total // 2]) / 2
    if depth:
        low, high = differences[depth - 1].copy(), differences[total - depth].copy()
    else:
        low = high = np.full(differences.shape[1], np.nan)
    below_zero, above_zero = (np.sum(x, axis=0, dtype=np.int32) for x in (differences <= 0, differences >= 0))
    against = np.minimum(below_zero, above_zero)
    return Shift(estimate, low, high, np.minimum(1.0, 2 * below[against]), min(1.0, 2 * float(below[0])))


def _joined(parts: list[Shift]) -> Shift:
    def column(name: str) -> Floats:
        return np.concatenate([getattr(p, name) for p in parts])

    return Shift(column("estimate"), column("low"), column("high"), column("p"), parts[0].floor)


def shift(a: Floats, b: Floats, level: float = 0.95) -> Shift:
    """How far ``b`` lies above ``a`` in each series: independent samples of shapes (k, n) and (k, m), k > 0."""
    below = rank_sum(a.shape[1], b.shape[1])
    size = max(1, _AT_ONCE // (a.shape[1] * b.shape[1]))
    parts = []
    for begin in range(0, len(a), size):
        part = slice(begin, begin + size)
        differences = b[part].T[:, None, :] - a[part].T[None, :, :]
        parts.append(_invert(differences.reshape(-1, differences.shape[2]), below, level))
    return _joined(parts)


def paired_shift(differences: Floats, level: float = 0.95) -> Shift:
    """How far the differences of pairs, shape (k, n), lie above zero in each series, k > 0."""
    n = differences.shape[1]
    first, second = np.triu_indices(n)
    size = max(1, _AT_ONCE // len(first))
    parts = []
    for begin in range(0, len(differences), size):
        d = differences[begin : begin + size].T
        parts.append(_invert((d[first] + d[second]) / 2, signed_rank(n), level))
    return _joined(parts)
