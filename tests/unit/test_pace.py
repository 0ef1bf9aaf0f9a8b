"""When the scheduler may be asked: slower when nothing changes, never more often than the site allows."""

import random

from hypothesis import given
from hypothesis import strategies as st

from harness import pace


def test_polls_slow_down_while_nothing_changes_and_are_quick_again_after_a_change() -> None:
    waits, wait_s = [], 10.0
    for _ in range(6):
        wait_s = pace.next_wait_s(10, wait_s, changed=False, away=False)
        waits.append(wait_s)
    assert waits == [15.0, 22.5, 33.75, 40.0, 40.0, 40.0]
    assert pace.next_wait_s(10, 40.0, changed=True, away=False) == 10


def test_a_scheduler_that_is_away_is_asked_more_and_more_rarely_but_not_forgotten() -> None:
    waits, wait_s = [], 30.0
    for _ in range(3):
        wait_s = pace.next_wait_s(30, wait_s, changed=False, away=True)
        waits.append(wait_s)
    assert waits == [60.0, 60.0, 60.0]
    assert pace.next_wait_s(1, 8.0, changed=False, away=True) == 10  # a quick site finds out quickly
    assert pace.next_wait_s(300, 300.0, changed=True, away=True) == 300  # never quicker than when it answers


def test_room_is_what_the_last_minute_leaves() -> None:
    calls = [100.0, 139.9, 140.1, 180.0, 500.0]  # the last is from a clock that was set back since
    assert pace.recent(calls, 200.0) == [140.1, 180.0]
    assert pace.room(calls, 200.0, 3) == 1
    assert pace.room(calls, 200.0, 1) == 0


@given(st.floats(0.2, 3600), st.integers())
def test_jitter_keeps_drivers_apart_and_near(wait_s: float, seed: int) -> None:
    assert 0.89 * wait_s <= pace.jittered(wait_s, random.Random(seed)) <= 1.11 * wait_s
