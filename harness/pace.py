"""When the scheduler may be asked: polls that slow down when nothing changes, and a cap on calls a minute.

Many users share one controller, and many drivers may be started by one cron at the same second: hence the
jitter. Pure, but for the random numbers that it is given.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

MINUTE_S = 60.0
SLOWEST = 4.0  # times poll_s, when nothing changes
AWAY = 10.0  # times poll_s, while the scheduler does not answer,
AWAY_S = 60.0  # but no longer than this, unless poll_s itself is


def recent(calls: Iterable[float], now_s: float) -> list[float]:
    """Those of the calls (seconds since the epoch) that lie in the minute before; none from the future."""
    return [t for t in calls if now_s - MINUTE_S < t <= now_s]


def room(calls: Iterable[float], now_s: float, calls_per_minute: int) -> int:
    """How many calls may be made now."""
    return max(0, calls_per_minute - len(recent(calls, now_s)))


def next_wait_s(poll_s: float, last_s: float, *, changed: bool, away: bool) -> float:
    """Seconds until the next question: the shortest after a change, longer and longer when all is quiet or silent."""
    if away:
        return min(last_s * 2, max(poll_s, min(AWAY_S, AWAY * poll_s)))
    return poll_s if changed else min(max(last_s, poll_s) * 1.5, poll_s * SLOWEST)


def jittered(wait_s: float, rng: random.Random) -> float:
    """A wait that differs by up to a tenth from driver to driver."""
    return wait_s * rng.uniform(0.9, 1.1)
