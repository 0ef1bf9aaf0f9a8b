"""Useful time of a job that fails and restarts: METRICS.md's formulas, and a simulation that owes them nothing.

All times are in seconds: ``mttf`` M is the mean time between failures of the whole job, ``cost`` d what one checkpoint
blocks it, ``restart`` R what a failure costs before work goes on, ``interval`` tau the work between checkpoints.
Failures come at a constant rate, also during checkpoints and restarts: one during work or checkpoint loses the work
since the last checkpoint, one during a restart begins the restart again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEED = 20_260_101
LANES = 4_000  # simulated jobs, side by side
LIVES = 20  # failures that each of them lives through, about
WANTED = 0.002  # relative standard error of a simulation
BATCHES = 50
MOST_TRIES = 2_000.0  # a segment that is tried more often than this on average is not simulated

Floats = NDArray[np.float64]


def mttf_s(nodes: int, failures_per_node_hour: float) -> float:
    """Mean time to failure of a job in s: 1 / (nodes x rate), infinite without failures (METRICS.md, useful time)."""
    return 3600.0 / (nodes * failures_per_node_hour) if failures_per_node_hour > 0 else math.inf


def young_s(cost: float, mttf: float) -> float:
    """Young's interval in s, sqrt(2 d M): J. W. Young, "A first order approximation to the optimum
    checkpoint interval", Communications of the ACM 17(9), 1974."""
    return math.sqrt(2 * cost * mttf)


def daly_s(cost: float, mttf: float) -> float:
    """Daly's interval in s: J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
    Future Generation Computer Systems 22(3), 2006; as METRICS.md has it.

    For d < 2M it is sqrt(2 d M) (1 + sqrt(d/2M)/3 + d/18M) - d, else M.
    """
    if math.isinf(mttf):
        return math.inf
    if cost >= 2 * mttf:
        return mttf
    half = cost / (2 * mttf)
    return math.sqrt(2 * cost * mttf) * (1 + math.sqrt(half) / 3 + half / 9) - cost


def best_s(cost: float, mttf: float) -> float:
    """The interval in s that makes ``ettr`` largest; it does not depend on the restart.

    The derivative of ``ettr`` is zero where (1 - tau/M) e^((tau+d)/M) = 1, which has one solution between 0 and M
    (Daly approximates it); found by halving.
    """
    if math.isinf(mttf) or cost <= 0:
        return math.inf if math.isinf(mttf) else 0.0
    low, high = 0.0, 1.0  # of tau/M
    for _ in range(200):
        middle = (low + high) / 2
        if middle >= 1.0:  # the optimum is the mean time between failures itself, as far as numbers can tell
            return mttf
        if math.log1p(-middle) + middle + cost / mttf > 0:
            low = middle
        else:
            high = middle
    return mttf * (low + high) / 2


def ettr(interval: float, cost: float, restart: float, mttf: float) -> float:
    """Share of useful time by the renewal model, tau / (M e^(R/M) (e^((tau+d)/M) - 1)), from 0 to 1.

    M (e^(x/M) - 1) is the mean time until x s have passed without a failure; the denominator is the mean wall time of
    one interval with its checkpoint, repeats and restarts included (Daly 2006, his complete model; METRICS.md, "ETTR,
    modelled"). Without failures it is tau / (tau + d); 0 where no interval ever ends.
    """
    if math.isinf(interval):
        return 1.0 if math.isinf(mttf) else 0.0
    if math.isinf(mttf):
        return interval / (interval + cost) if interval > 0 else 0.0
    if interval <= 0:  # the limit: without a cost, an interval of no length loses nothing but the restarts
        return math.exp(-restart / mttf) if cost <= 0 else 0.0
    exponent = (interval + cost) / mttf
    if exponent + restart / mttf > 700:  # e to that is more than a float holds
        return 0.0
    return interval / (mttf * math.exp(restart / mttf) * math.expm1(exponent))


@dataclass(frozen=True)
class Simulated:
    """Share of useful time in a simulation, with its standard error; None with the reason where it was not done."""

    ettr: float | None
    error: float | None
    intervals: int
    why: str = ""


def simulate(interval: float, cost: float, restart: float, mttf: float, *, seed: int = SEED) -> Simulated:
    """Share of useful time of jobs that complete intervals under random failures, until it is known to 0.2 %.

    Each job has its own clock and its own failures, drawn ahead of what it does: exponential gaps, one after another.
    What happens to it follows from comparing the two; no formula of this module is used. At most ``BATCHES`` times
    ``LANES`` jobs are simulated; the standard error says what they are good for.

    Args:
        interval, cost, restart, mttf: in s, as above.
        seed: of numpy's generator; the same seed gives the same answer.
    """
    if not (interval > 0 and math.isfinite(interval)):
        return Simulated(None, None, 0, f"an interval of {interval:g} s cannot be simulated")
    if math.isinf(mttf):
        return Simulated(interval / (interval + cost), 0.0, LANES)
    # One try of anything of length x succeeds with probability e^(-x/M).
    if max(interval + cost, restart) / mttf > math.log(MOST_TRIES):
        why = f"an interval or a restart would be tried more than {MOST_TRIES:g} times"
        return Simulated(None, None, 0, why)
    generator = np.random.default_rng(seed)
    segments = max(20, math.ceil(LIVES * mttf / (interval + cost)))
    clocks: list[Floats] = []
    while len(clocks) < BATCHES:
        clocks.append(_wall(generator, segments, interval + cost, restart, mttf))
        spent = np.concatenate(clocks)
        relative = float(np.std(spent)) / float(np.mean(spent)) / math.sqrt(len(spent))
        if relative < WANTED:
            break
    share = segments * interval / float(np.mean(spent))
    return Simulated(share, share * relative, segments * len(spent))


def _wall(
    generator: np.random.Generator, segments: int, segment: float, restart: float, mttf: float
) -> Floats:
    """Wall time in s that each of ``LANES`` jobs needs for ``segments`` segments of ``segment`` s."""
    clock = np.zeros(LANES)
    failure = generator.exponential(mttf, LANES)  # when each job fails next
    restarting = np.zeros(LANES, dtype=bool)
    left = np.full(LANES, segments, dtype=np.int64)
    while len(busy := np.flatnonzero(left > 0)):
        again = busy[restarting[busy]]
        up = clock[again] + restart <= failure[again]
        clock[again] = np.where(up, clock[again] + restart, failure[again])
        at_work = busy[~restarting[busy]]
        restarting[again[up]] = False
        room = np.minimum(left[at_work], (failure[at_work] - clock[at_work]) // segment).astype(np.int64)
        left[at_work] -= room
        ends = left[at_work] == 0
        clock[at_work] = np.where(ends, clock[at_work] + room * segment, failure[at_work])
        failed = np.concatenate([again[~up], at_work[~ends]])
        restarting[failed] = True
        failure[failed] += generator.exponential(mttf, len(failed))
    return clock
