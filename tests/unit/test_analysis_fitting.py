"""Ends of intervals of what is fitted: Student's t where nothing else is needed, and what is done where it fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma

from analysis import fitting
from analysis.fitting import Repeats
from tests.bench import truth

SYMMETRIC = np.exp([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
LATE = np.exp([0.0, 0.1, 0.2, 0.3, 0.5, 2.0])


def test_a_mean_of_symmetric_repeats_at_one_place_has_the_interval_of_student() -> None:
    low, high = Repeats.of([SYMMETRIC]).ends(np.array([1.0]))[:, 0]
    half = stats.t.ppf(0.975, 5) * np.std(np.log(SYMMETRIC), ddof=1) / math.sqrt(6)
    assert (low, high) == pytest.approx((-half, half))


def test_two_places_have_the_degrees_of_freedom_of_welch_and_satterthwaite() -> None:
    repeats = Repeats.of([SYMMETRIC, SYMMETRIC])
    low, high = repeats.ends(np.array([1.0, 1.0])).sum(axis=1)
    half = stats.t.ppf(0.975, 10) * np.std(np.log(SYMMETRIC), ddof=1) / math.sqrt(3)
    assert (low, high) == pytest.approx((-half, half))


def test_late_repeats_have_an_interval_that_reaches_further_up_by_the_transformation_of_hall() -> None:
    logs = np.log(LATE)
    ends = Repeats.of([LATE]).ends(np.array([1.0]))[:, 0]
    studentised = (np.mean(logs) - ends) / (np.std(logs, ddof=1) / math.sqrt(6))
    a = stats.skew(logs, bias=False) / math.sqrt(6)
    transformed = studentised + a * studentised**2 / 3 + a**2 * studentised**3 / 27 + a / 6
    assert transformed == pytest.approx(np.array([1, -1]) * stats.t.ppf(0.975, 5))
    assert ends[1] - np.mean(logs) > 3 * (np.mean(logs) - ends[0])


def test_a_figure_that_falls_where_times_rise_has_its_ends_turned_over() -> None:
    repeats = Repeats.of([LATE])
    assert repeats.ends(np.array([-1.0])) == pytest.approx(repeats.ends(np.array([1.0]))[::-1])


def test_means_move_only_where_the_figure_feels_them() -> None:
    ends = Repeats.of([LATE, SYMMETRIC]).ends(np.array([1.0, 0.0]))
    assert ends[:, 1] == pytest.approx(0)
    assert ends[0, 0] < ends[1, 0]


def test_repeats_that_do_not_vary_have_an_interval_of_no_width() -> None:
    repeats = Repeats.of([[2.0] * 6, [3.0] * 6])
    assert np.ptp(repeats.ends(np.array([1.0, -1.0])), axis=0) == pytest.approx(0)


def test_small_variances_are_raised_towards_what_is_common_and_none_is_lowered() -> None:
    five = np.full(5, 5.0)
    alike = np.array([1.0, 1.1, 0.9, 0.6, 1.4])
    assert fitting._raised(alike, five) == pytest.approx([1.0, 1.1, 1.0, 1.0, 1.4])
    raised = fitting._raised(np.array([1.0, 1.0, 1.0, 0.01, 100.0]), five)
    assert 0.02 < raised[3] < 0.5
    assert raised[4] == 100


def test_a_place_that_does_not_vary_leaves_variances_as_they_are() -> None:
    variances = np.array([0.0, 1.0, 4.0])
    assert fitting._raised(variances, np.full(3, 5.0)).tolist() == [0, 1, 4]


@pytest.mark.parametrize("value", [1e-2, 0.5, 40.0])
def test_the_inverse_of_trigamma(value: float) -> None:
    assert float(polygamma(1, fitting._trigamma_inverse(value))) == pytest.approx(value, rel=1e-6)


def test_one_more_run_is_rather_late_than_early_where_repeats_were() -> None:
    early, late = Repeats.of([LATE]).one_more(0.0, 1)
    assert late > 2 * early > 0
    assert np.ptp(Repeats.of([SYMMETRIC]).one_more(0.0, 1)) == pytest.approx(0)


def held(sets: int) -> float:
    """How often the interval of the first place's mean holds it, from six late repeats at each of five places."""
    generator, found = np.random.default_rng(5), 0
    for _ in range(sets):
        repeats = Repeats.of(truth.noise(truth.SKEWED, 0.1, generator, (5, 6)))
        low, high = repeats.ends(np.array([1.0, 0, 0, 0, 0]))[:, 0]
        found += low <= 0 <= high
    return found / sets


def test_means_of_late_repeats_are_held_and_are_not_by_student_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(1500) > 0.94
    monkeypatch.setattr(fitting, "_untransformed", lambda t, a: t)
    monkeypatch.setattr(fitting, "_raised", lambda variances, freedom: variances)
    assert held(1500) < 0.92
