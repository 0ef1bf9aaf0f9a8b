"""What is wrong with the ranks of an attempt, from what their agents tell: frozen, hung, deadlocked, livelocked. Pure.

Dead ranks and silent nodes are seen by who holds their process or their connection; here is what only time can
tell. A rank that a debugger or SIGSTOP holds is *frozen* as soon as the kernel says so for longer than is
tolerated. A *hang* is no progress within a window; a *deadlock* is a hang in which nobody's sequence number
moves either, a *livelock* one in which somebody's does. Processor time is no criterion: MPI and NCCL spin while
they wait. Windows are learned: median + 8 MAD of that section's own history, never below a floor (METRICS.md).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.runtime import page

DEAD, FROZEN, HUNG, DEADLOCK, LIVELOCK, SILENT, STRAYED = (
    "dead", "frozen", "hung", "deadlock", "livelock", "silent", "strayed",
)  # fmt: skip
HISTORY = 200  # durations of a section that are remembered
ENOUGH = page.EARLY_STEPS  # durations before a window is believed
MADS = 8.0
LONGER = 1.5  # times the longest that was healthy


@dataclass
class View:
    """What agents last told of one rank; the first nine in the order of a beat, which the moments end."""

    state: int = page.STARTING
    begun: int = -1
    finished: int = -1
    of: int = 0  # steps as the rank counts them; page.SILENT: it says nothing of its progress
    sequence: int = 0
    section: int = page.SETUP
    section_s: float = 0.0
    stopped_s: float = 0.0
    strayed: int = -1  # the step in which it did what it had not done before: harness.runtime.routine
    moments: tuple[int, ...] = (0, 0, 0, 0)  # how many of each have come in this attempt

    @property
    def silent(self) -> bool:
        """Whether nobody can tell if it goes on."""
        return self.of == page.SILENT


@dataclass(frozen=True)
class Finding:
    """What is wrong, and with whom."""

    what: str
    rank: int
    evidence: str


@dataclass
class _Track:
    moved: tuple[int, int, int] = (-1, -1, -1)  # begun, finished, section
    moved_at: float = 0.0
    finished_at: float = 0.0
    sequence: int = 0
    sequence_at: float = 0.0


@dataclass
class History:
    """Durations in seconds of what the ranks of a case did."""

    steps: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    saves: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))


class Detector:
    """Looks at all ranks of one attempt.

    Args:
        settings: ``frozen_s``, ``step_s``, ``checkpoint_s``, ``start_s`` in seconds, as in the campaign.
        ranks: how many.
        now: seconds of the clock that ``look`` is given.
        own_loop: whether the ranks run the harness's own loop, so that each says where it is.
        history: what earlier attempts of the case have taught; it is taught on.
    """

    def __init__(
        self,
        settings: Mapping[str, float],
        ranks: int,
        now: float,
        *,
        own_loop: bool = True,
        history: History | None = None,
    ) -> None:
        self._settings, self._own_loop = settings, own_loop
        self._tracks = [_Track(moved_at=now, finished_at=now, sequence_at=now) for _ in range(ranks)]
        history = history or History()
        self._steps, self._saves = history.steps, history.saves

    def look(self, now: float, views: Sequence[View], active: Sequence[bool]) -> Finding | None:
        """The worst that is to be seen now, or None.

        Args:
            now: seconds, monotonic.
            views: what was last told of each rank.
            active: whether each rank still runs.
        """
        for number, view in enumerate(views):
            if active[number]:
                self._follow(self._tracks[number], view, now)
        for number, view in enumerate(views):
            if active[number] and view.stopped_s > self._settings["frozen_s"]:
                return Finding(FROZEN, number, f"the kernel has called it stopped for {view.stopped_s:.2f} s")
        late = [
            number
            for number, view in enumerate(views)
            if active[number] and now - self._tracks[number].moved_at > self.window_s(view)
        ]
        return self._hang(now, views, [n for n, a in enumerate(active) if a], late) if late else None

    def window_s(self, view: View) -> float:
        """How long a rank may stay where it is, in seconds."""
        if view.silent or (not self._own_loop and view.begun < 0):
            return float("inf")
        start_s, section = self._settings["start_s"], view.section
        if section == page.HELD:
            return float("inf")  # the rank itself waits no longer than rank_faults.HOLD_S
        if section == page.SAVE:
            return max(self._settings["checkpoint_s"], learned_s(self._saves))
        if section in (page.EARLY, page.STEP) or (section == page.SETUP and view.begun >= 0):
            # Only the harness's own loop says which steps are early; they may be too quick for any to be seen.
            early = section == page.EARLY or not self._own_loop
            floor_s = max(start_s, self._settings["step_s"]) if early and len(self._steps) < ENOUGH else 0.0
            return max(self._settings["step_s"], floor_s, learned_s(self._steps))
        return start_s

    def step_s(self) -> float:
        """Median duration of a step in seconds; 0 while nothing is known."""
        return statistics.median(self._steps) if self._steps else 0.0

    def _follow(self, track: _Track, view: View, now: float) -> None:
        moved = (view.begun, view.finished, view.section)
        if moved != track.moved:
            if view.finished > track.moved[1] >= 0 and track.moved[2] != page.HELD:
                steps = view.finished - track.moved[1]  # between two beats
                self._steps.extend([(now - track.finished_at) / steps] * min(steps, ENOUGH))
            if track.moved[2] == page.SAVE and view.section != page.SAVE:
                self._saves.append(now - track.moved_at)
            if view.finished != track.moved[1] or track.moved[2] == page.HELD:
                track.finished_at = now  # the time that it was held is no part of a step
            track.moved, track.moved_at = moved, now
        if view.sequence != track.sequence:
            track.sequence, track.sequence_at = view.sequence, now

    def _hang(self, now: float, views: Sequence[View], active: Sequence[int], late: Sequence[int]) -> Finding:
        tracks = self._tracks
        idle_s = max(now - tracks[n].moved_at for n in late)
        where = f"no progress for {idle_s:.1f} s, window {min(self.window_s(views[n]) for n in late):.1f} s"
        told = "sequence numbers " + " ".join(str(views[n].sequence) for n in range(len(views)))
        # Trying without end: the number went on long after the rank itself had stopped to come on.
        busy = [n for n in late if tracks[n].sequence_at - tracks[n].moved_at > idle_s / 2]
        if busy:
            culprit = max(busy, key=lambda n: (views[n].sequence, -n))
            return Finding(LIVELOCK, culprit, f"{where}; it goes on trying; {told}")
        if not any(views[n].sequence for n in active):
            return Finding(HUNG, min(late, key=lambda n: (views[n].finished, views[n].begun, n)), where)
        told = f"{where}; nothing moves; {told}"
        if (astray := stray(views)) is not None:
            return Finding(DEADLOCK, astray, f"{told}; {strayed_words(astray, views[astray])}")
        last = last_one(views, active)
        alike = [n for n in active if _place(views[n]) == _place(views[last])]
        if len(alike) > 1:
            told += f"; ranks {' '.join(map(str, alike))} are equally far: which of them is waited for cannot be told"
        return Finding(DEADLOCK, last, told)


def last_one(views: Sequence[View], active: Sequence[int]) -> int:
    """Whom the others wait for: the lowest sequence number, of several the least far, of several the lowest rank."""
    return min(active, key=lambda n: (*_place(views[n]), n))


def _place(view: View) -> tuple[int, int, int]:
    return view.sequence, view.finished, view.begun


def stray(views: Sequence[View]) -> int | None:
    """The one rank that just did what it does in no step, where the others did as always; None where there is none.

    What all do for the first time in the same step (a check each hundredth, say) is nobody's fault.
    """
    newest = max((view.strayed for view in views), default=-1)
    who = [n for n, view in enumerate(views) if view.strayed == newest]
    if newest < 0 or len(who) != 1 or newest < views[who[0]].begun - 1:
        return None
    return who[0]


def strayed_words(rank: int, view: View) -> str:
    """What ``stray`` says, for people."""
    return f"rank {rank} left its usual order of collectives in step {view.strayed}"


def learned_s(durations: Sequence[float] | deque[float]) -> float:
    """Median + 8 MAD of durations in seconds, and well above the longest; 0 while there are too few.

    Where most durations are alike (all but each tenth step, say) the MAD is nothing, and the others are healthy too.
    """
    if len(durations) < ENOUGH:
        return 0.0
    middle = statistics.median(durations)
    spread = MADS * statistics.median(abs(d - middle) for d in durations)
    return max(middle + spread, LONGER * max(durations))
