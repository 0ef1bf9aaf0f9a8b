"""Whose end took the others with it."""

from __future__ import annotations

import pytest

from harness.runtime import page
from harness.runtime.rank_view import CULPRIT_S, ONLY_VICTIMS_S, RankView, blame_s, culprit

GLOO = "RuntimeError: Connection closed by peer [10.0.0.2]:4711"


def rank(ms: int, words: str = "", state: int = page.RUNNING) -> RankView:
    return RankView(state=state, ended=True, ended_wall_ns=10**18 + ms * 10**6, words=words)


ALIVE = RankView(state=page.RUNNING)
DONE = RankView(state=page.DONE, ended=True, ended_wall_ns=1)


@pytest.mark.parametrize(
    ("ranks", "number"),
    [
        ([ALIVE, DONE], None),
        ([rank(40, GLOO, page.FAILED), rank(30), ALIVE], 1),  # killed; noticed a moment later than it was
        ([rank(20, GLOO, page.FAILED), rank(30)], 1),  # even noticed after who tells of it
        ([rank(20), rank(30, "ValueError: no", page.FAILED)], 1),  # it raised, and MPI killed the other
        ([rank(20), rank(30, "", page.UNRECORDED)], 1),  # its own disk was full
        ([rank(20, "ValueError: a", page.FAILED), rank(30, "ValueError: b", page.FAILED)], 0),
        ([rank(0), rank(900, "ValueError: long after", page.FAILED)], 0),
        ([rank(5), rank(4)], 1),
    ],
)
def test_who_is_blamed(ranks: list[RankView], number: int | None) -> None:
    assert culprit(ranks) == number


@pytest.mark.parametrize(
    ("ranks", "wait_s"),
    [
        ([rank(30), ALIVE], CULPRIT_S),
        ([rank(20, "ValueError: no", page.FAILED), ALIVE], CULPRIT_S),
        ([rank(20, GLOO, page.FAILED), ALIVE], ONLY_VICTIMS_S),  # whom it lost was not heard of yet
        ([rank(20, GLOO, page.FAILED), rank(30)], CULPRIT_S),
    ],
)
def test_word_of_others_is_waited_for_longer_while_only_victims_were_heard_of(
    ranks: list[RankView], wait_s: float
) -> None:
    assert blame_s(ranks) == wait_s
