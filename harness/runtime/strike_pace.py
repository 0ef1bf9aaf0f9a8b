"""When a fault of a random process may strike: not on top of one that the run has not got over yet. Pure.

Times of a Poisson process know nothing of recoveries. Those that fall into one would all strike in the first moment
after it, as one; each waits instead until the run has come further than it was when the one before took effect.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_S = 60.0  # a run that comes no further has no peace to wait for
SETTLE_S = 0.5  # how long what ranks did before a fault took effect may be under way to whoever counts
FURTHER = 2  # steps: the one in which a rank is hit may still be finished by others


@dataclass
class Pace:
    """Of one case."""

    _at: float = float("-inf")  # when the last fault struck, monotonic
    _seen: bool = True  # whether its effect was seen, or is not waited for any more
    _settles: float = float("-inf")  # until when its ranks may still tell of steps before it
    _finished: int = -1  # the highest step that was finished then

    def struck(self, now: float) -> None:
        """A fault, whichever, strikes now."""
        self._at, self._seen = now, False

    def seen(self, now: float) -> None:
        """Its effect is there."""
        self._seen, self._settles = True, now + SETTLE_S

    def may_strike(self, now: float, finished: int) -> bool:
        """Whether the run has got over the last one, or had its time to; to be asked at each look.

        Args:
            now: seconds, monotonic.
            finished: the highest step that any rank has finished.
        """
        if now - self._at > LONGEST_S:
            return True
        if not self._seen or now < self._settles:
            self._finished = max(self._finished, finished)
            return False
        return finished >= self._finished + FURTHER
