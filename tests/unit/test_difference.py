"""Differences of repeats: rank tests against scipy's and against the truth, and every verdict with its words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis import ranks
from analysis.difference import (
    Change,
    Smallest,
    change_of,
    compare,
    conclude,
    corrected,
    measure_many,
    power,
)

LOW, HIGH = "lower", "higher"
BASE = [100.0, 101, 99, 102, 98, 100, 101, 99]


def scaled(factor: float) -> list[float]:
    return [factor * v for v in BASE]


@pytest.mark.parametrize("n, m", [(1, 1), (3, 4), (6, 6), (7, 5), (12, 20)])
def test_the_rank_sum_test_is_scipys_exact_one(n: int, m: int) -> None:
    random = np.random.default_rng([n, m])
    a, b = random.normal(size=n), random.normal(0.7, size=m)
    exact = stats.mannwhitneyu(a, b, method="exact").pvalue
    assert ranks.shift(a[None], b[None]).p[0] == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("n", [6, 9, 25])
def test_the_signed_rank_test_is_scipys_exact_one(n: int) -> None:
    d = np.random.default_rng(n).normal(0.4, size=n)
    assert ranks.paired_shift(d[None]).p[0] == pytest.approx(
        stats.wilcoxon(d, method="exact").pvalue, abs=1e-12
    )


def test_the_approximation_for_many_repeats_is_scipys() -> None:
    random = np.random.default_rng(2)
    a, b = random.normal(size=60), random.normal(0.3, size=70)
    about = stats.mannwhitneyu(a, b, method="asymptotic").pvalue
    assert ranks.shift(a[None], b[None]).p[0] == pytest.approx(about, rel=1e-6)


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_say(paired: bool) -> None:
    random = np.random.default_rng(7)
    a = np.exp(0.05 * random.standard_normal((4000, 8)))
    b = 1.07 * np.exp(0.05 * random.standard_normal((4000, 8)))
    t = measure_many(a, b, paired=paired)
    held = np.mean((t.low <= 0.07) & (t.high >= 0.07))
    assert 0.945 < held < 0.975


def test_the_interval_excludes_no_change_exactly_where_the_test_is_significant() -> None:
    random = np.random.default_rng(9)
    a, b = random.uniform(1, 2, (500, 6)), random.uniform(1.2, 2.2, (500, 6))
    t = measure_many(a, b)
    assert np.array_equal((t.low > 0) | (t.high < 0), t.p_rank <= 0.05)


@pytest.mark.parametrize(
    "b, direction, verdict",
    [
        (scaled(1.12), LOW, Change.WORSE),
        (scaled(1.12), HIGH, Change.BETTER),
        (scaled(0.88), LOW, Change.BETTER),
        (scaled(0.88), HIGH, Change.WORSE),
        (scaled(1.12), "", Change.DIFFERS),
        (scaled(1.01), LOW, Change.WITHIN_NOISE),
        (scaled(1.01), "", Change.WITHIN_NOISE),
        ([60.0, 80, 90, 95, 98, 100, 101, 99], LOW, Change.NOT_WORSE),
        ([60.0, 80, 90, 95, 98, 100, 101, 99], HIGH, Change.UNKNOWN),
    ],
)
def test_each_verdict(b: list[float], direction: str, verdict: Change) -> None:
    assert compare(BASE, b, direction=direction).verdict is verdict


def test_a_change_is_told_with_ratio_interval_and_medians() -> None:
    found = compare(BASE, scaled(1.12), direction=LOW)
    assert (found.median_a, round(found.median_b, 9), found.n_a, found.n_b) == (100.0, 112.0, 8, 8)
    assert (found.range_a, found.test, found.needed, found.why) == ((98.0, 102.0), "rank test", None, "")
    assert found.ratio == pytest.approx(1.12, abs=0.005)
    assert found.said() == "+12.0 % (+10.9 % to +13.1 %)"


def test_a_change_that_is_real_but_too_small_to_matter_is_noise() -> None:
    b = scaled(1.03)
    assert compare(BASE, b, direction=LOW).p == pytest.approx(0.0, abs=0.005)
    assert compare(BASE, b, direction=LOW).verdict is Change.WITHIN_NOISE
    assert compare(BASE, b, smallest=0.01, direction=LOW).verdict is Change.WORSE


def test_too_wide_an_interval_is_unknown_and_says_how_many_repeats_would_tell() -> None:
    found = compare([90.0, 110, 95, 105, 85, 115], [92.0, 112, 97, 107, 84, 118], direction=LOW)
    assert (found.verdict, found.needed) == (Change.UNKNOWN, 144)
    assert found.why == "the interval is too wide to tell; about 144 repeats of each would"


def test_the_number_of_repeats_it_asks_for_does_tell() -> None:
    random = np.random.default_rng(3)
    told = 0
    for _ in range(200):
        a, b = np.exp(0.05 * random.standard_normal((2, 6)))
        needed = compare(a, b, direction=LOW).needed
        if needed is not None:
            more = np.exp(0.05 * random.standard_normal((2, min(needed, 400))))
            told += compare(more[0], more[1], direction=LOW).verdict is not Change.UNKNOWN
        else:
            told += 1
    assert told > 150


def test_below_six_repeats_there_is_a_range_and_no_interval() -> None:
    found = compare([100.0, 101, 99], scaled(1.5), direction=LOW)
    assert (found.verdict, found.interval, found.p) == (Change.UNKNOWN, None, None)
    assert (found.range_a, found.needed) == ((99.0, 101.0), 6)
    assert found.change == pytest.approx(0.5)
    assert found.why == "3 and 8 repeats: below 6 of each there is no interval; about 6 of each would tell"


@pytest.mark.parametrize("a, b", [([], BASE), (BASE, []), ([], []), ([5.0], [6.0])])
def test_one_repeat_or_none_is_unknown(a: list[float], b: list[float]) -> None:
    found = compare(a, b, direction=LOW)
    assert (found.verdict, found.interval) == (Change.UNKNOWN, None)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_unknown_and_counted(value: float) -> None:
    found = compare(BASE, [*scaled(1.5), value], direction=LOW)
    assert (found.verdict, found.why) == (Change.UNKNOWN, "not finite: 1 of 9 repeats of B")


def test_a_constant_metric_is_the_same_or_not() -> None:
    assert compare([5.0] * 6, [5.0] * 6, direction=LOW).verdict is Change.WITHIN_NOISE
    assert compare([5.0] * 6, [6.0] * 6, direction=LOW).verdict is Change.WORSE
    assert compare([0.0] * 6, [0.0] * 6, direction=LOW).verdict is Change.WITHIN_NOISE


def test_a_fraction_of_nothing_cannot_matter() -> None:
    found = compare([0.0] * 6, [1.0] * 6, direction=LOW)
    assert found.verdict is Change.UNKNOWN
    assert found.why.startswith("the baseline's median is 0")
    assert compare([0.0] * 6, [1.0] * 6, smallest=Smallest(0.5, False), direction=LOW).verdict is Change.WORSE


def test_values_that_may_be_negative_are_compared_by_difference() -> None:
    a = [-1.0, 1.5, 2, 2.2, 1.8, 2.1]
    found = compare(a, [v + 3 for v in a], smallest=Smallest(1.0, False), direction=LOW)
    assert (found.verdict, found.relative, found.change) == (Change.WORSE, False, pytest.approx(3.0, abs=0.3))
    assert found.said("ms").startswith("+3.0")


def test_pairs_see_a_change_that_a_common_drift_hides() -> None:
    drift = np.linspace(1, 1.6, 8)
    a, b = 100 * drift, 110 * drift * np.array([1, 1.002, 0.998, 1.001, 1, 0.999, 1, 1.002])
    assert compare(a, b, direction=LOW).verdict is Change.UNKNOWN
    paired = compare(a, b, direction=LOW, paired=True)
    assert (paired.verdict, paired.test) == (Change.WORSE, "signed-rank test")
    with pytest.raises(ValueError, match="8 and 7 values cannot be pairs"):
        compare(a, b[:7], direction=LOW, paired=True)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_the_correction_is_scipys(n: int) -> None:
    p = np.random.default_rng(n).uniform(size=n) ** 3
    assert corrected(p) == pytest.approx(stats.false_discovery_control(p))


def test_many_comparisons_are_corrected_and_one_clear_change_is_still_found() -> None:
    random = np.random.default_rng(5)
    a, b = np.exp(0.01 * random.standard_normal((2, 300, 6)))
    b[17] *= 1.3
    t = measure_many(a, b)
    assert t.test(300) == "Welch's t on logarithms"  # ranks of 6 and 6 cannot tell one of 300
    codes = conclude(t, corrected(t.p(300)), LOW)
    worse = [i for i in range(300) if change_of(int(codes[i])) is Change.WORSE]
    assert worse == [17]


def test_a_sole_outlier_pair_of_modes_is_no_alarm_by_student_alone() -> None:
    a = np.array([[10.0, 10, 10, 10, 10, 10]])
    b = np.array([[10.0, 10, 10, 20, 20, 20]])
    t = measure_many(a, b)
    code = conclude(t, np.array([1e-9]), LOW)[0]
    assert change_of(int(code)) is Change.UNKNOWN


@pytest.mark.parametrize(
    "given, expected", [("5%", Smallest(0.05)), ("0.5 %", Smallest(0.005)), ("2e3", Smallest(2000.0, False))]
)
def test_a_smallest_effect_is_read(given: str, expected: Smallest) -> None:
    assert Smallest.parse(given).relative == expected.relative
    assert Smallest.parse(given).value == pytest.approx(expected.value)


@pytest.mark.parametrize("given", ["", "x", "-5%", "0", "100%", "5%%"])
def test_what_is_no_effect_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="write"):
        Smallest.parse(given)


def test_false_alarms_and_power_of_one_comparison_at_its_smallest_effect() -> None:
    """The seeded small version of tests/bench/power.py: 6 repeats, 2 % noise, 5 % smallest effect."""
    random = np.random.default_rng(1)

    def worse(effect: float) -> float:
        a, b = np.exp(0.02 * random.standard_normal((2, 4000, 6)))
        t = measure_many(a, b * (1 + effect))
        codes = conclude(t, t.p(1), LOW)
        return float(np.mean([change_of(int(c)) is Change.WORSE for c in codes]))

    assert worse(0.0) < 0.025
    assert worse(0.05) > 0.9
    assert worse(0.10) > 0.99


@pytest.mark.parametrize("repeats, noise, change", [(6, 0.02, 0.05), (8, 0.05, 0.10), (20, 0.05, 0.05)])
def test_the_stated_power_is_about_the_measured_one(repeats: int, noise: float, change: float) -> None:
    random = np.random.default_rng(repeats)
    a, b = np.exp(noise * random.standard_normal((2, 3000, repeats)))
    t = measure_many(a, b * (1 + change))
    found = np.mean([change_of(int(c)) is Change.WORSE for c in conclude(t, t.p(1), LOW)])
    assert power(noise, repeats, change) == pytest.approx(float(found), abs=0.06)


def test_below_six_repeats_there_is_no_power() -> None:
    assert power(0.01, 5, 0.5) == 0.0
