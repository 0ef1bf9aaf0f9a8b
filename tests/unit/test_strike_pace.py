"""Faults of a random process do not strike on top of each other."""

from __future__ import annotations

from harness.runtime.strike_pace import LONGEST_S, SETTLE_S, Pace

SEEN_S = 10.2
AFTER_S = SEEN_S + SETTLE_S


def struck() -> Pace:
    """At 10 s a fault struck; two tenths later it is seen, and what was done before it comes to be known."""
    pace = Pace()
    pace.struck(10.0)
    assert not pace.may_strike(10.1, 15)
    pace.seen(SEEN_S)
    assert not pace.may_strike(SEEN_S + 0.1, 20)
    return pace


def test_the_first_may_strike_at_once() -> None:
    assert Pace().may_strike(0.0, 1)


def test_the_next_waits_until_the_run_is_further_than_it_was() -> None:
    pace = struck()
    assert [pace.may_strike(AFTER_S, n) for n in (-1, 5, 20, 21, 22)] == [False] * 4 + [True]


def test_one_whose_effect_is_not_seen_is_waited_for() -> None:
    pace = Pace()
    pace.struck(10.0)
    assert not pace.may_strike(10.0 + LONGEST_S, 500)
    assert pace.may_strike(10.1 + LONGEST_S, 500)


def test_a_run_that_is_set_back_again_has_to_come_as_far_as_it_ever_was() -> None:
    pace = struck()
    pace.struck(20.0)
    assert not pace.may_strike(20.1, 3)
    pace.seen(20.2)
    assert not pace.may_strike(20.2 + SETTLE_S, 6)


def test_a_run_that_comes_no_further_is_not_waited_for_without_end() -> None:
    pace = struck()
    assert not pace.may_strike(10.0 + LONGEST_S, 20)
    assert pace.may_strike(10.1 + LONGEST_S, 20)
