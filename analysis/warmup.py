"""How long a series takes to settle, found and not assumed, beside what the campaign declared.

MSER-5 (K. P. White, Simulation 69(6), 1997; Spratt 1998): the series is cut into batches of five, and the batches
dropped from its start are those that make the standard error of the rest smallest. That always finds a minimum, also in
noise, so what it drops counts as warm-up only if it differs from the rest by more than 5 % and a rank test agrees.
Logarithms and medians of batches, so that one long step is no warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from analysis import text
from analysis.series import Floats

BATCH = 5
FEWEST = 10  # batches
DIFFERS = 0.05  # share of the settled median
_SURE = 0.01


@dataclass(frozen=True)
class WarmUp:
    """``last_step`` is the last step of the warm-up, declared or found, -1 for none; ``words`` say what was found."""

    declared: int  # steps
    found: int | None  # steps from the first on; None where it cannot be told
    last_step: int
    longer: bool  # than declared
    settled: bool  # within the first half
    words: str


def mser(times_s: Floats) -> int:
    """How many of the first values MSER-5 drops; at most half of them.

    Args:
        times_s: above zero, shape (n,), n at least ``FEWEST * BATCH``.
    """
    count = len(times_s) // BATCH
    batches = np.median(np.log(times_s[: count * BATCH]).reshape(count, BATCH), axis=1)
    batches = batches - np.median(batches)  # sums of squares lose no digits
    left = np.arange(count, 0, -1)
    sums, squares = np.cumsum(batches[::-1])[::-1], np.cumsum(batches[::-1] ** 2)[::-1]
    scores = (squares - sums**2 / left) / left**2
    return int(np.argmin(scores[: count // 2 + 1])) * BATCH


def find(times_s: Floats, steps: Floats, declared: int) -> WarmUp:
    """Find the warm-up of a series.

    Args:
        times_s: of every step, warm-up included, shape (n,).
        steps: their numbers, ascending.
        declared: warm-up steps of the campaign.
    """
    last = declared - 1
    if len(times_s) < FEWEST * BATCH:
        words = f"whether {declared} are enough warm-up steps is not known: it takes {FEWEST * BATCH} steps to tell"
        return WarmUp(declared, None, last, False, True, words)
    if not bool(np.all(times_s > 0)):
        return WarmUp(
            declared, None, last, False, True, "warm-up not known: some step times are not above zero"
        )
    dropped = mser(times_s)
    found = dropped if _differs(times_s[:dropped], times_s[dropped:]) else 0
    if found and dropped >= len(times_s) // BATCH // 2 * BATCH:
        words = "no end of a warm-up found: it does not settle in its first half"
        return WarmUp(declared, None, last, False, False, words)
    if found:  # not all of the last batch need belong to it
        found = _last_high(times_s, found)
    until = int(steps[found - 1]) + 1 if found else 0
    late = times_s[(steps >= declared) & (steps < until)]
    longer = len(late) > 0 and _off(late, times_s[found:]) > DIFFERS
    words = f"warm-up of {text.count(until, 'step')} found, {declared} declared"
    if longer:
        off = _off(late, times_s[found:])
        words += f": {text.count(len(late), 'judged step')} of it {'is' if len(late) == 1 else 'are'} off by "
        words += text.percent(off)
    return WarmUp(declared, until, max(last, until - 1) if longer else last, longer, True, words)


def _off(part: Floats, rest: Floats) -> float:
    return abs(float(np.median(part)) / float(np.median(rest)) - 1)


def _differs(part: Floats, rest: Floats) -> bool:
    if not len(part) or _off(part, rest) <= DIFFERS:
        return False
    return float(mannwhitneyu(part, rest[: 20 * len(part) + 100]).pvalue) < _SURE


def _last_high(times_s: Floats, found: int) -> int:
    """How many of the first ``found`` values there are up to the last that is off from the rest."""
    middle = float(np.median(times_s[found:]))
    off = np.flatnonzero(np.abs(times_s[:found] / middle - 1) > DIFFERS)
    return int(off[-1]) + 1 if len(off) else 0
