"""Reducing raw samples to numbers: the slowest rank of each step, and a statistic with its count.

Definitions are those of METRICS.md. Nothing here knows of files or verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.store import Column, Table

Floats = NDArray[np.float64]

STATISTICS = ("median", "mean", "min", "max", "p95")


@dataclass(frozen=True)
class Summary:
    """Median and range of ``n`` values; all three are NaN when n is 0."""

    median: float
    low: float
    high: float
    n: int


def summarise(values: Column) -> Summary:
    """Median, lowest and highest of ``values``, shape (n,)."""
    if not len(values):
        return Summary(float("nan"), float("nan"), float("nan"), 0)
    return Summary(float(np.median(values)), float(np.min(values)), float(np.max(values)), len(values))


def statistic(name: str, values: Column) -> float:
    """One of ``STATISTICS`` over ``values``, shape (n,), n > 0; p95 interpolates linearly.

    Raises:
        ValueError: no such statistic, or no values.
    """
    if not len(values):
        raise ValueError("no values")
    data = np.asarray(values, dtype=np.float64)
    if name == "median":
        return float(np.median(data))
    if name == "mean":
        return float(np.mean(data))
    if name == "min":
        return float(np.min(data))
    if name == "max":
        return float(np.max(data))
    if name == "p95":
        return float(np.percentile(data, 95))
    raise ValueError(f"no statistic {name!r}; there are {', '.join(STATISTICS)}")


def rate_statistic(name: str, values: Column) -> float:
    """A statistic of rates of equal work, shape (n,), n > 0; the median is the work over the median time.

    It differs from the median of the rates where n is even.

    Raises:
        ValueError: as ``statistic``.
    """
    if name != "median" or not len(values):
        return statistic(name, values)
    held = np.sort(np.asarray(values, dtype=np.float64))
    low, high = float(held[(len(held) - 1) // 2]), float(held[len(held) // 2])
    if low <= 0:
        return low
    return (
        2 * low * (high / (low + high))
    )  # the harmonic mean, in an order that leaves equal ones as they are


@dataclass(frozen=True)
class Steps:
    """Steps that every rank reported: number, value of the slowest rank, sum over ranks; each shape (n,)."""

    step: Column
    slowest: Column
    incomplete: int  # steps left out because a rank's sample is missing

    def __len__(self) -> int:
        return len(self.step)


def slowest_rank(samples: Table, column: str, ranks: int) -> Steps:
    """The largest value of ``column`` over ranks, for each step that all ``ranks`` reported.

    Args:
        samples: effective samples: at most one row for each step and rank.
        column: for instance ``step_time_ns``.
        ranks: world size; a step with fewer rows is left out, since its slowest rank is not known.
    """
    step, place = np.unique(samples["step"], return_inverse=True)
    if not len(step):
        return Steps(step, np.array([]), 0)
    slowest = np.full(len(step), np.min(samples[column]), dtype=samples[column].dtype)
    with np.errstate(invalid="ignore"):  # a NaN stays one, for who asks
        np.maximum.at(slowest, place, samples[column])
    whole = np.bincount(place, minlength=len(step)) == ranks
    return Steps(step[whole], slowest[whole], int(np.sum(~whole)))


def total(samples: Table, column: str, steps: Column) -> Column:
    """Sum of ``column`` over ranks for each of ``steps`` (sorted, each present), shape (n,)."""
    known, place = np.unique(samples["step"], return_inverse=True)
    sums = np.bincount(place, weights=np.asarray(samples[column], dtype=np.float64), minlength=len(known))
    return np.asarray(sums[np.searchsorted(known, steps)])
