"""The calls that a driver makes to its scheduler: how many, how often, and what it said instead of an answer.

They are counted in the run folder, over all drivers of a run. This module calls nothing itself.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness import pace
from harness.rundir import RunDir, RunFolderError, write_json
from harness.scheduler import Scheduler
from harness.slurm.commands import CALLS


def read_calls(run: RunDir) -> dict[str, int]:
    """Slurm's commands that were run for a run, by name; empty before the first."""
    try:
        return {str(k): int(v) for k, v in run.read_json(run.calls)["calls"].items()}
    except (RunFolderError, ValueError, TypeError, KeyError, AttributeError):
        return {}


class Calls:
    """Counts the calls of one run, and keeps what came instead of an answer.

    Args:
        run: its folder.
        site: whose ``calls_per_minute`` is kept.
        scheduler: that is called.
    """

    def __init__(self, run: RunDir, site: Mapping[str, Any], scheduler: Scheduler) -> None:
        self._run, self._free = run, scheduler.free
        self._counted: Counter[str] = Counter(CALLS)  # of this process, before this run
        self.per_minute = int(site["scheduler"].get("calls_per_minute", 60))
        self.trouble = ""  # what the scheduler last answered instead of an answer
        self.stuck = ""  # why jobs wait, where that does not pass by itself
        self.held_back = ""  # why nothing is asked or submitted, though the scheduler is well

    @property
    def words(self) -> str:
        """What people should know of the scheduler; "" when all is well."""
        if self.trouble:
            return f"the scheduler does not answer, trying again: {self.trouble}"
        return f"held back for now: {self.held_back}" if self.held_back else self.stuck

    def room(self) -> int:
        """Calls that may be made now."""
        if self._free:
            return self.per_minute
        return pace.room(self._recent(), time.time(), self.per_minute)

    def _recent(self) -> list[float]:
        with contextlib.suppress(RunFolderError, ValueError, TypeError):
            return [float(t) for t in self._run.read_json(self._run.calls, "recent_s")["recent_s"]]
        return []

    def count(self, **facts: float) -> None:
        """Add the commands that were run since the last time to the run's own count; and remember these facts."""
        new = CALLS - self._counted
        if not new:
            return
        kept: dict[str, Any] = {}
        with contextlib.suppress(RunFolderError):
            kept = self._run.read_json(self._run.calls)
        self._counted = Counter(CALLS)
        now = time.time()
        recent = [*pace.recent(self._recent(), now), *[now] * new.total()]
        calls = dict(Counter(read_calls(self._run)) + new)
        with contextlib.suppress(OSError):  # a count is no reason to stop
            write_json(self._run.calls, {**kept, **facts, "calls": calls, "recent_s": recent})

    def fact(self, name: str) -> float | None:
        """A fact that ``count`` remembered, by whichever driver; None where there is none."""
        with contextlib.suppress(RunFolderError, ValueError, TypeError):
            return float(self._run.read_json(self._run.calls, name)[name])
        return None


class Polls:
    """When the scheduler is asked next: soon after a change, ever later when all is quiet or it is silent."""

    def __init__(self, poll_s: float) -> None:
        self._poll_s, self._wait_s, self._next = poll_s, poll_s, 0.0
        self._before: object = None
        self._rng = random.Random()

    def due(self) -> bool:
        """Whether it is to be asked now."""
        return time.monotonic() >= self._next

    def asked(self, state: object, *, changes: bool, away: bool) -> None:
        """It was asked.

        Args:
            state: what was seen; other than the last time, it is a change.
            changes: whether it is a change in any case.
            away: whether it did not answer.
        """
        changed = state != self._before or changes
        self._wait_s = pace.next_wait_s(self._poll_s, self._wait_s, changed=changed, away=away)
        self._before = state
        self._next = time.monotonic() + pace.jittered(self._wait_s, self._rng)

    def hurry(self) -> None:
        """Something was seen in the run folder: ask within the shortest time."""
        self._next = min(self._next, time.monotonic() + self._poll_s)
