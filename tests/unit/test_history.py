"""One run against those before it, and where a level changes: coverage, alarms, power, and words."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import changepoints, history
from analysis.difference import Change, Smallest

LOW = "lower"
FIVE = Smallest()


def said(figures: list[float], smallest: Smallest = FIVE, direction: str = LOW) -> history.Expected:
    return history.expected(history.measure(figures, smallest, direction))


def noisy(factors: list[float], noise: float = 0.01, seed: int = 0) -> list[float]:
    random = np.random.default_rng(seed)
    return [f * float(np.exp(noise * random.standard_normal())) for f in factors]


@pytest.mark.parametrize("runs", [6, 7, 10, 14, 15, 30])
def test_the_interval_holds_the_next_run_as_often_as_it_says(runs: int) -> None:
    random = np.random.default_rng(runs)
    held = 0
    for _ in range(2000):
        measured = history._tested(
            np.exp(0.02 * random.standard_normal(runs)), float(np.exp(0.02 * random.standard_normal())), FIVE
        )
        held += bool(measured.low[0] <= 0 <= measured.high[0])
    assert 0.93 < held / 2000 < 0.97


@pytest.mark.parametrize(
    "factor, direction, verdict",
    [
        (1.2, LOW, Change.WORSE), (1.2, "higher", Change.BETTER), (0.8, LOW, Change.BETTER),
        (1.0, LOW, Change.WITHIN_NOISE),
        (1.2, "", Change.DIFFERS),
    ],
)  # fmt: skip
def test_the_last_run_is_judged(factor: float, direction: str, verdict: Change) -> None:
    assert said(noisy([10.0] * 20 + [10 * factor]), direction=direction).verdict is verdict


def test_below_six_runs_nothing_is_concluded() -> None:
    found = said(noisy([10.0] * 5 + [20.0]))
    assert (found.verdict, found.interval, found.why) == (
        Change.UNKNOWN,
        None,
        "5 earlier runs: 6 are needed",
    )


def test_a_single_run_has_no_history() -> None:
    assert said([10.0]).why == "0 earlier runs: 6 are needed"


def test_one_bad_night_in_the_history_does_not_blind_it() -> None:
    assert said(noisy([10.0] * 10 + [30.0] + [10.0] * 9 + [11.5])).verdict is Change.WORSE


def test_a_history_too_noisy_to_tell_says_so() -> None:
    found = said([*noisy([10.0] * 12, noise=0.1), 10.3])
    assert found.verdict is Change.UNKNOWN
    assert found.why.startswith("runs vary by \u00b1")
    assert found.why.endswith("so one run cannot tell an effect of the smallest size that matters")


def test_the_history_begins_after_the_last_change_of_level() -> None:
    found = said(noisy([12.0] * 12 + [10.0] * 10 + [10.0]))
    assert (found.verdict, found.runs, found.since) == (Change.WITHIN_NOISE, 10, 12)
    fresh = said(noisy([12.0] * 12 + [10.0] * 4 + [10.0]))
    assert (fresh.verdict, fresh.why) == (
        Change.UNKNOWN,
        "4 earlier runs since the last change of level: 6 are needed",
    )


@pytest.mark.parametrize("slow", [1, 2, 3, 5, 6, 12, 30])
@pytest.mark.parametrize("factor, direction", [(1.25, LOW), (0.75, "higher")])
def test_a_lasting_regression_is_worse_however_long_it_lasts(
    slow: int, factor: float, direction: str
) -> None:
    found = said(noisy([10.0] * 9 + [10 * factor] * slow), direction=direction)
    assert found.verdict is Change.WORSE
    assert ("nobody accepted it" in found.why) is (slow >= 3)


def test_a_level_before_of_too_few_runs_is_unknown_and_says_how_much_worse() -> None:
    found = said([10.0, 10.1, 9.9, 10.0, *[12.5, 12.4, 12.6] * 3])
    assert (found.verdict, found.runs) == (Change.UNKNOWN, 4)
    assert found.why == (
        "worse than the level before run 4: 9 runs since then, +25.0 % in the median, and nobody accepted it "
        "(`harness trend FOLDER --accept RUN`); "
        "that level has 4 runs: 6 are needed"
    )


@pytest.mark.parametrize("accepted", [10, 12, 15])
def test_an_accepted_level_is_the_history(accepted: int) -> None:
    figures = noisy([10.0] * 12 + [12.0] * 10)
    found = history.expected(history.measure(figures, FIVE, LOW, accepted=accepted))
    assert (found.verdict, found.runs, found.since, found.why) == (Change.WITHIN_NOISE, 9, 12, "")
    again = history.measure(noisy([10.0] * 12 + [12.0] * 10 + [14.0] * 8), FIVE, LOW, accepted=accepted)
    assert (history.expected(again).verdict, again.since, again.until) == (Change.WORSE, 12, 22)


def test_a_level_that_came_back_begins_a_new_history() -> None:
    found = said(noisy([10.0] * 9 + [12.5] * 8 + [10.0] * 8))
    assert (found.verdict, found.since, found.why) == (Change.WITHIN_NOISE, 17, "")
    half = said(noisy([10.0] * 9 + [15.0] * 8 + [12.0] * 8))
    assert (half.verdict, half.since, half.until) == (Change.WORSE, 0, 9)


def test_a_constant_history() -> None:
    assert said([5.0] * 9).verdict is Change.WITHIN_NOISE
    assert said([5.0] * 8 + [6.0]).verdict is Change.WORSE
    assert said([0.0] * 8 + [1.0]).why.startswith("the level of the history is 0")


@pytest.mark.parametrize("figures", [[10.0, 10, 10, 10, 12, 8, 12], [10.0, 10, 12, 10, 8] * 4 + [12]])
def test_what_the_history_holds_is_no_alarm_although_most_figures_are_equal(figures: list[float]) -> None:
    found = said(figures)
    assert (found.verdict, found.why.split(" \u00b1")[0]) == (Change.UNKNOWN, "runs vary by")
    assert found.p is not None and found.p > 0.05
    assert found.span is not None and found.span[0] <= 8 and found.span[1] >= 12


def test_mostly_equal_figures_still_tell_what_lies_far_outside() -> None:
    assert said([10.0] * 16 + [10.1, 10.1, 9.9, 9.9, 12.0]).verdict is Change.WORSE
    assert said([10.0] * 40 + [30.0, 11.5]).verdict is Change.WORSE  # one bad night does not hide it


def test_alarms_of_a_coarse_clock_are_as_rare_as_they_say() -> None:
    random = np.random.default_rng(3)
    alarms = 0
    for _ in range(1000):
        figures = random.choice([8.0, 10.0, 12.0], 15, p=[0.1, 0.8, 0.1])
        alarms += said(list(figures)).verdict in (Change.WORSE, Change.BETTER)
    assert alarms <= 60  # 5 %, and what chance adds


def test_levels_that_come_and_go_are_found() -> None:
    found = changepoints.find(noisy([10.0] * 12 + [11.0] * 10 + [10.0] * 15), FIVE)
    assert [c.index for c in found] == [12, 22]
    assert [round(c.after / c.before, 2) for c in found] == [1.1, 0.91]


def test_a_wild_run_and_a_small_change_are_no_change_of_level() -> None:
    assert changepoints.find(noisy([10.0] * 10 + [20.0] + [10.0] * 10), FIVE) == ()
    assert changepoints.find(noisy([10.0] * 12 + [10.3] * 12, noise=0.001), FIVE) == ()


@pytest.mark.parametrize("runs", [8, 14, 30])
def test_false_changes_are_as_rare_as_they_say(runs: int) -> None:
    random = np.random.default_rng(runs)
    for draw in (random.standard_normal, lambda n: random.standard_t(3, n)):
        found = sum(bool(changepoints.partition(draw(runs))) for _ in range(600))
        assert found <= 15  # 1 in 100 is 6


def test_equal_values_and_short_series_have_no_change() -> None:
    assert changepoints.find([3.0] * 20, FIVE) == ()
    assert changepoints.find([3.0, 9.0], FIVE) == ()
    assert changepoints.find([], FIVE) == ()
