"""What an agent tells its supervisor of its ranks: how far they are, that they ended, what faults they did."""

from __future__ import annotations

import time
from collections.abc import Iterable

from harness.runtime import page
from harness.runtime.channel import Channel
from harness.runtime.watched import Rank


class Teller:
    """Tells of the ranks of one attempt."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.case_id, self.attempt = "", -1

    def _tell(self, kind: str, **content: object) -> None:
        self._channel.send(kind, case_id=self.case_id, attempt=self.attempt, **content)

    def beat(self, ranks: Iterable[Rank], now: float) -> None:
        """How far each is that has a page, and that this agent lives."""
        told = {
            r.number: _progress(r, r.progress, now)
            for r in ranks
            if r.progress is not None and not r.reported
        }
        self._tell("beat", ranks=told)

    def fault(self, kind: str, rank: Rank, number: int, wall_ns: int) -> None:
        """A fault of this number, from 1, of its case was done, was felt, or is due, as ``kind`` has it."""
        step = rank.progress.begun if rank.progress else -1
        self._tell(kind, rank=rank.number, fault=number, wall_ns=wall_ns, step=step)

    def status(self, rank: Rank, status: int) -> None:
        """How a rank's process ended, where that was told before anybody could know."""
        self._tell("rank_status", rank=rank.number, status=status)

    def exited(self, rank: Rank, words: str) -> None:
        """A rank ended, how far it was, and its last words."""
        self._tell(
            "rank_exited",
            rank=rank.number,
            status=rank.exit_status,
            state=rank.progress.state if rank.progress is not None else page.STARTING,
            finished=rank.progress.finished if rank.progress else -1,
            of=rank.progress.of if rank.progress else 0,
            sequence=rank.progress.sequence if rank.progress else 0,
            begun=rank.progress.begun if rank.progress else -1,
            strayed=rank.progress.strayed if rank.progress else -1,
            moments=rank.progress.moments if rank.progress else (),
            wall_ns=rank.gone_wall_ns or time.time_ns(),
            words=words[:2000],
        )


def _progress(rank: Rank, seen: page.Progress, now: float) -> list[float]:
    """What a beat tells of one rank, in the order of ``harness.runtime.detect.View``'s fields."""
    age_s = max(0.0, (time.monotonic_ns() - seen.section_mono_ns) / 1e9)
    return [
        seen.state,
        seen.begun,
        seen.finished,
        seen.of,
        seen.sequence,
        seen.section,
        round(age_s, 3),
        round(rank.stopped_s(now), 3),
        seen.strayed,
        *seen.moments,
    ]
