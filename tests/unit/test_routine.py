"""A rank's own order of collectives, and when it leaves it."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.runtime import page
from harness.runtime.detect import View, stray
from harness.runtime.routine import MOST, Routine


def a() -> None:
    """A collective."""


def b() -> None:
    """Another."""


def strayed(*steps: str) -> int:
    routine = Routine()
    for number, calls in enumerate(steps):
        routine.begin(number)
        for name in calls:
            routine.do({"a": a, "b": b}[name])
    routine.begin(len(steps))
    return routine.strayed


@pytest.mark.parametrize(
    ("steps", "step"),
    [
        (("ab", "ab", "ab", "ab", "ab"), -1),
        (("ab", "ab", "ab", "ab", "b"), 4),  # the first is left out
        (("ab", "ab", "ab", "ab", "a"), 4),  # the last
        (("ab", "ab", "ab", "ab", "ba"), 4),
        (("ab", "ab", "ab", "ab", "abb"), 4),
        (("ab", "ab", "ab", "ab", ""), 4),
        (("ab", "a", "ab", "ab", "a"), -1),  # of a few orders
        (("ab", "b", "a"), -1),  # nothing is usual yet
        (("ab", "ab", "ab", "a", "ab", "ab"), 3),  # and goes on as before
    ],
)
def test_what_is_done_in_no_step_before_is_told_by_its_step(steps: tuple[str, ...], step: int) -> None:
    assert strayed(*steps) == step


def test_what_is_done_before_the_first_step_is_no_part_of_one() -> None:
    routine = Routine()
    routine.do(a)
    routine.do(b)
    for step in range(6):
        routine.begin(step)
        routine.do(a)
    assert routine.strayed == -1


def test_calls_are_told_apart_by_their_line_and_not_by_their_values() -> None:
    routine = Routine()
    for step in range(6):
        routine.begin(step)
        for value in range(3):
            routine.do(lambda value=value: value)  # type: ignore[misc]
    assert routine.strayed == -1
    routine.do(functools.partial(a))
    assert routine.strayed == 5


def test_a_program_that_never_does_the_same_twice_has_no_routine() -> None:
    routine = Routine()
    for step in range(2 * MOST):
        routine.begin(step)
        routine.do(cast(Any, SimpleNamespace(__qualname__=str(step))))
    assert routine.strayed == MOST - 2  # until then it was odd each time, as everybody else was
    assert len(routine._next) == MOST


def view(strayed: int, begun: int = 9) -> View:
    return View(page.RUNNING, begun, begun - 1, 50, strayed=strayed)


@pytest.mark.parametrize(
    ("views", "who"),
    [
        ([view(-1), view(-1)], None),
        ([view(-1), view(9)], 1),
        ([view(8), view(-1)], 0),  # it has begun the next step meanwhile
        ([view(7), view(-1)], None),  # long ago, and all went on
        ([view(4), view(4), view(9)], 2),  # all did something new in step 4
        ([view(9), view(9), view(-1)], None),
        ([], None),
    ],
)
def test_the_one_rank_that_strayed_where_the_others_did_not_is_blamed(
    views: list[View], who: int | None
) -> None:
    assert stray(views) == who
