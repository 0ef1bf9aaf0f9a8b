"""Intervals of few repeats: exact where they are exact, and absent where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis import resample


def test_the_interval_of_a_median_lies_between_order_statistics() -> None:
    # Hettmansperger and Sheather: from six values [x1, x6] holds 96.875 %, [x2, x5] 78.125 %.
    weight = 5 * 0.1 / (1 + 4 * 0.1)
    assert resample.interval([6, 1, 5, 2, 4, 3]) == pytest.approx((1 + weight, 6 - weight))
    assert resample.interval(range(1, 10), level=1 - 2 * 10 / 512) == (2, 8)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_fewer_than_six_values_have_no_interval(n: int) -> None:
    assert resample.interval(list(range(n))) is None
    assert resample.ratio_of_medians([1.0] * 9, [1.0] * n) is None


@pytest.mark.parametrize(
    "bad, words", [(math.nan, "1 of 7 values are not finite"), (math.inf, "1 of 7 values")]
)
def test_a_value_that_is_not_finite_is_refused_by_count_and_not_left_out(bad: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        resample.interval([1.0, 2, 3, 4, 5, 6, bad])


@pytest.mark.parametrize("statistic", [np.median, np.mean, np.std])
def test_a_constant_has_an_interval_of_no_width(statistic: object) -> None:
    low, high = resample.interval([3.0] * 6, statistic) or (0, 0)  # type: ignore[arg-type]
    assert low == high


def test_intervals_are_the_same_every_time_and_scale_with_their_values() -> None:
    values = np.random.default_rng(1).lognormal(size=12)
    for statistic in (np.median, np.mean, np.std):
        a, b = resample.interval(values, statistic), resample.interval(10 * values, statistic)
        assert a == resample.interval(values, statistic)
        assert b == pytest.approx(tuple(10 * x for x in a or ()))


def test_many_medians_at_once_are_those_of_one_after_another() -> None:
    values = np.random.default_rng(2).random((5, 11))
    low, high = resample.of_median(values)
    assert [(low[i], high[i]) for i in range(5)] == [resample.interval(row) for row in values]


def test_a_ratio_of_medians_holds_the_ratio_and_turns_over_with_it() -> None:
    a, b = np.random.default_rng(3).lognormal(size=(2, 9))
    low, high = resample.ratio_of_medians(a, b) or (0, 0)
    assert low < np.median(a) / np.median(b) < high
    assert resample.ratio_of_medians(b, a) == pytest.approx((1 / high, 1 / low))


def test_the_correlation_time_of_an_autoregressive_series_is_that_of_its_formula() -> None:
    generator = np.random.default_rng(5)
    y = np.empty(200_000)
    last = 0.0
    for i, value in enumerate(generator.standard_normal(len(y)).tolist()):
        y[i] = last = 0.8 * last + value
    assert resample.correlation_time(y) == pytest.approx(1.8 / 0.2, rel=0.1)
    assert resample.correlation_time(generator.random(10_000)) == pytest.approx(1, abs=0.1)


def test_a_series_with_too_few_blocks_has_no_interval() -> None:
    assert resample.of_series(np.arange(100.0)) is None
    assert resample.of_series([]) is None
