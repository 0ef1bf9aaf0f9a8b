"""What agents tell over time, and what is made of it: who is frozen, hung, deadlocked or livelocked, and who is not.

Every table is played to a detector as a supervisor would: a look each 0.1 s, what does not change stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.runtime import page
from harness.runtime.detect import (
    DEADLOCK,
    FROZEN,
    HUNG,
    LIVELOCK,
    Detector,
    Finding,
    View,
    last_one,
    learned_s,
)

SETTINGS = {"frozen_s": 1.0, "step_s": 2.0, "checkpoint_s": 5.0, "start_s": 20.0}
LOOK_S = 0.1
Told = Callable[[float], View]


def at_step(done: int) -> View:
    """A rank that has finished so many steps of its attempt, and is in the next."""
    section = page.EARLY if done < page.EARLY_STEPS else page.STEP
    return View(page.RUNNING, done, done - 1, 1000, 1 + done, section)


def running(step_s: float = 0.5, until_s: float = 1e9, **last: int) -> Told:
    """A rank that finishes a step each ``step_s`` seconds, until it stays where it is."""

    def told(now: float) -> View:
        done = int(min(now, until_s) / step_s)
        view = at_step(done)
        view.sequence = 2 * done + 1
        if now >= until_s:
            for name, value in last.items():
                setattr(view, name, value)
        return view

    return told


def play(
    ranks: Sequence[Told], until_s: float, *, own_loop: bool = True, gone: Sequence[int] = ()
) -> tuple[float, Finding] | None:
    """The first finding and when it was made; None: nothing until the end."""
    detector = Detector(SETTINGS, len(ranks), 0.0, own_loop=own_loop)
    active = [n not in gone for n in range(len(ranks))]
    for look in range(int(until_s / LOOK_S)):
        now = look * LOOK_S
        found = detector.look(now, [told(now) for told in ranks], active)
        if found is not None:
            return round(now, 1), found
    return None


def test_a_run_that_goes_on_has_nothing_wrong() -> None:
    assert play([running(), running(0.7)], 100) is None


@pytest.mark.parametrize("step_s", [0.5, 3.0])
def test_a_slow_start_and_slow_steps_are_what_this_run_is_like(step_s: float) -> None:
    def loading(now: float) -> View:
        return running(step_s)(now - 19) if now > 19 else View(section=page.LOAD)

    assert play([loading, loading], 60) is None


def frozen(at_s: float, for_s: float) -> Told:
    def told(now: float) -> View:
        view = running()(min(now, at_s) if now < at_s + for_s else now)
        view.stopped_s = now - at_s if at_s <= now < at_s + for_s else 0.0
        return view

    return told


def test_a_rank_that_the_kernel_calls_stopped_is_frozen() -> None:
    assert play([running(), frozen(10, 100)], 30) == (
        11.1,
        Finding(FROZEN, 1, "the kernel has called it stopped for 1.10 s"),
    )


def test_a_pause_that_is_tolerated_is_none() -> None:
    assert play([running(), frozen(10, 0.9)], 30) is None


def test_a_hang_inside_a_collective_is_blamed_on_who_never_entered_it() -> None:
    waiting = running(until_s=10, sequence=42)
    ranks = [waiting, waiting, running(until_s=10, sequence=41), waiting]
    assert play(ranks, 30) == (
        12.1,
        Finding(
            DEADLOCK,
            2,
            "no progress for 2.1 s, window 2.0 s; nothing moves; sequence numbers 42 42 41 42",
        ),
    )


def test_who_is_behind_is_blamed_and_not_who_is_ahead() -> None:
    waiting = running(until_s=10, sequence=41)
    found = play([waiting, running(until_s=10, sequence=42), waiting], 30)
    assert found is not None
    assert (found[1].what, found[1].rank) == (DEADLOCK, 0)


def test_without_sequence_numbers_it_is_a_hang_of_who_is_least_far() -> None:
    ranks = [running(until_s=10), running(until_s=9), running(until_s=10)]

    def dumb(told: Told) -> Told:
        def without(now: float) -> View:
            view = told(now)
            view.sequence = 0
            return view

        return without

    assert play([dumb(r) for r in ranks], 30) == (
        11.1,
        Finding(HUNG, 1, "no progress for 2.1 s, window 2.0 s"),
    )


def test_who_goes_on_trying_is_livelocked() -> None:
    def trying(now: float) -> View:
        view = running(until_s=10)(now)
        view.sequence += int(max(0.0, now - 10) * 100)
        return view

    waiting = running(until_s=10)
    found = play([waiting, trying], 30)
    assert found is not None
    assert (found[0], found[1].what, found[1].rank) == (12.1, LIVELOCK, 1)
    assert "it goes on trying" in found[1].evidence


def test_a_window_is_learned_from_the_runs_own_steps() -> None:
    """Steps of 3, 4 and 5 s in turn: median 4 s, MAD 1 s, so that 12 s are tolerated, not 2."""

    def uneven(until_s: float) -> Told:
        ends = [0.0]
        while ends[-1] < 200:
            ends.append(ends[-1] + 3.0 + len(ends) % 3)

        def told(now: float) -> View:
            done = sum(end <= min(now, until_s) for end in ends) - 1
            return at_step(done)

        return told

    assert play([uneven(1000), uneven(1000)], 190) is None
    found = play([uneven(108), uneven(108)], 140)
    assert found is not None
    assert (found[1].what, round(found[0] - 108, 1)) == (DEADLOCK, 12.1)


def test_a_rare_long_step_is_healthy_where_all_others_are_alike() -> None:
    """Each tenth step takes 3 s, the others 2.5 s exactly: median 2.5, MAD 0."""
    ends = [0.0]
    while ends[-1] < 200:
        ends.append(ends[-1] + (3.0 if len(ends) % 10 == 0 else 2.5))

    def told(now: float) -> View:
        done = sum(end <= now for end in ends) - 1
        return at_step(done)

    assert play([told, told], 190) is None


def test_one_slow_step_within_the_floor_is_healthy() -> None:
    def slow(now: float) -> View:
        return running(0.1)(now if now < 10 else max(10.0, now - 1.9))

    assert play([slow, slow], 30) is None


def saving(seconds: float) -> Told:
    def told(now: float) -> View:
        if now < 10:
            return running()(now)
        if now < 10 + seconds:
            return View(page.RUNNING, 19, 19, 1000, 40, page.SAVE)
        return running()(now - seconds)

    return told


def test_saving_has_a_window_of_its_own() -> None:
    assert play([saving(4.5), saving(4.5)], 40) is None
    found = play([saving(100), saving(100)], 40)
    assert found is not None
    assert (found[0], found[1].what) == (15.1, DEADLOCK)


def held(seconds: float, seen_late_s: float = 0.0, then_until_s: float = 1e9) -> Told:
    """A rank that is held at step 20, from 10 s on; seen again so late after it went on."""

    def told(now: float) -> View:
        if now < 10:
            return running()(now)
        if now < 10 + seconds + seen_late_s:
            return View(page.RUNNING, 20, 19, 1000, 40, page.HELD)
        return running(until_s=then_until_s)(now - seconds)

    return told


@pytest.mark.parametrize("seen_late_s", [0.0, 0.6])  # still in that step; in the next one
def test_who_is_held_for_a_fault_from_outside_does_not_hang_and_it_makes_no_step_long(
    seen_late_s: float,
) -> None:
    assert play([held(25.0, seen_late_s)] * 2, 60) is None
    found = play([held(25.0, seen_late_s, 20.0)] * 2, 60)
    assert found is not None
    assert (found[0], found[1].what) == (47.1, DEADLOCK)  # two seconds of silence, as without


def test_a_start_that_never_ends_is_found() -> None:
    found = play([lambda now: View(section=page.LOAD, sequence=1), lambda now: View(section=page.LOAD)], 60)
    assert found is not None
    assert (found[0], found[1].what, found[1].rank) == (20.1, DEADLOCK, 1)


def test_a_start_is_over_after_its_early_steps_also_where_none_of_them_was_seen() -> None:
    """Twelve steps within a tenth of a second, then nothing: no duration is known, and it is a step that hangs."""
    quick = [lambda now: at_step(12) if now > 5 else View(section=page.SETUP, sequence=1)] * 2
    found = play(quick, 60)
    assert found is not None
    assert (found[0], found[1].what) == (7.2, DEADLOCK)
    early = play([lambda now: at_step(2) if now > 5 else View(section=page.SETUP, sequence=1)] * 2, 60)
    assert early is not None
    assert early[0] == 25.2


def test_a_program_that_says_nothing_is_never_judged() -> None:
    silent = View(page.RUNNING, -1, -1, page.SILENT)
    assert play([lambda now: silent, lambda now: silent], 2_000) is None


def test_a_program_is_waited_for_only_once_it_has_begun_to_say_where_it_is() -> None:
    quiet = View(page.RUNNING, -1, -1, 0)
    assert play([lambda now: quiet], 1000, own_loop=False) is None
    assert play([lambda now: quiet], 1000, own_loop=True) is not None
    stuck = running(until_s=10, section=page.SETUP, sequence=0)

    def program(now: float) -> View:
        view = stuck(now)
        view.section, view.sequence = page.SETUP, 0
        return view

    found = play([program], 30, own_loop=False)
    assert found is not None
    assert (found[0], found[1].what) == (12.1, HUNG)


def test_ranks_that_have_ended_are_left_out() -> None:
    assert play([running(), frozen(5, 1000), running(until_s=5)], 60, gone=(1, 2)) is None


@pytest.mark.parametrize(
    ("sequences", "blamed"),
    [
        ((5, 5, 4, 5), 2),  # it never entered
        ((5, 5, 6, 5), 0),  # of those that are behind, the first
        ((5, 4, 4, 5), 1),  # two are behind: the first of them
        ((5, 4), 1),
        ((7, 6, 5), 2),
        ((5, 5), 0),
    ],
)
def test_whom_the_others_wait_for(sequences: Sequence[int], blamed: int) -> None:
    views = [View(sequence=s) for s in sequences]
    assert last_one(views, range(len(views))) == blamed


def test_who_has_ended_is_waited_for_by_nobody() -> None:
    views = [View(sequence=s) for s in (5, 5, 1, 4)]
    assert last_one(views, [0, 1, 3]) == 3


@pytest.mark.parametrize(
    ("durations", "window_s"),
    [((), 0.0), ((9.0, 9.0), 0.0), ((1.0, 1.0, 1.0), 1.5), ((1, 2, 3, 4, 5), 11.0), ((1, 1, 1, 1, 6), 9.0)],
)
def test_a_window_is_the_median_and_eight_deviations(durations: Sequence[float], window_s: float) -> None:
    assert learned_s(durations) == window_s


@given(st.lists(st.floats(0.01, 1.9), min_size=50, max_size=50))
@settings(max_examples=50, deadline=None)
def test_no_step_below_the_floor_is_ever_called_wrong(steps: list[float]) -> None:
    ends = [sum(steps[:n]) for n in range(len(steps) + 1)]

    def told(now: float) -> View:
        done = sum(end <= now for end in ends) - 1
        return at_step(done)

    assert play([told, told], ends[-1]) is None
