"""What agents told of the ranks of an attempt, and whose end took the others with it. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.runtime import detect, page

# What gloo, NCCL and MPI say when the other side is gone.
_LOST_A_PEER = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|[Rr]ead error|peer|gloo|NCCL|MPI_ERR|MPIX?_Err|[Tt]imed out"
)
TOGETHER_NS = 250_000_000  # ends this close may have been noticed in the wrong order
CULPRIT_S, ONLY_VICTIMS_S = 0.01, 0.1
_VICTIM = 2


@dataclass
class RankView(detect.View):
    """What the agents told of one rank."""

    node: str = ""
    ended: bool = False
    ended_wall_ns: int = 0  # by its node's clock
    ended_order: int = 0  # in which it was heard of
    words: str = ""
    status: int | None = None

    @property
    def view(self) -> detect.View:
        """What was last told of it while it ran."""
        return self

    @property
    def fell_silent(self) -> bool:
        """Whether it ended without a word of its own, as one that was killed does."""
        return self.ended and not self.words and self.state not in (page.DONE, page.FAILED, page.UNRECORDED)


def culprit(ranks: Sequence[RankView]) -> int | None:
    """The rank that took the others with it: the first that ended badly; None while none has.

    Of several that were noticed nearly together: one that gave a reason of its own, else one that fell silent (it was
    killed, and the others tell that they lost a peer).
    """
    bad = [n for n, rank in enumerate(ranks) if rank.ended and rank.state != page.DONE]
    if not bad:
        return None
    until_ns = min(ranks[n].ended_wall_ns for n in bad) + TOGETHER_NS
    early = [n for n in bad if ranks[n].ended_wall_ns <= until_ns]
    return min(early, key=lambda n: (_likely(ranks[n]), ranks[n].ended_wall_ns, ranks[n].ended_order))


def blame_s(ranks: Sequence[RankView]) -> float:
    """How long after the first rank failed it is waited for word of others, in seconds.

    Longer while all that were heard of tell that they lost a peer: that peer has not been heard of yet.
    """
    found = culprit(ranks)
    return ONLY_VICTIMS_S if found is None or _likely(ranks[found]) == _VICTIM else CULPRIT_S


def _likely(rank: RankView) -> int:
    if rank.state == page.UNRECORDED or (rank.words and not _LOST_A_PEER.search(rank.words)):
        return 0
    return 1 if rank.fell_silent else _VICTIM


def exit_words(rank: RankView) -> str:
    """How its process ended, in brackets; "" where nobody could say."""
    return "" if rank.status is None else f" (exit status {rank.status})"
