"""Latency and bandwidth are found where there are such, by stretches of sizes, and refused where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import latency
from analysis.latency import fit

SIZES = np.array([2.0**k for k in range(3, 25)])


def times(alpha_s: float, beta: float, repeats: int, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (alpha_s + SIZES / beta) * np.exp(noise * generator.standard_normal((repeats, len(SIZES))))


def test_numbers_that_made_the_data_are_found() -> None:
    line = fit(SIZES, times(5e-6, 1e10, 1))
    assert line.refused == "" and len(line.stretches) == 1
    assert line.latency_s is not None and line.bandwidth_bytes_per_s is not None
    assert line.latency_s.value == pytest.approx(5e-6, rel=1e-4)
    assert line.bandwidth_bytes_per_s.value == pytest.approx(1e10, rel=1e-4)
    assert line.latency_s.interval is None


def test_a_change_of_protocol_is_found_where_it_is() -> None:
    both = np.where(SIZES <= 8192, 5e-6 + SIZES / 2e9, 20e-6 + SIZES / 1e10)
    noisy = both * np.exp(0.02 * np.random.default_rng(2).standard_normal((6, len(SIZES))))
    line = fit(SIZES, noisy)
    assert [(s.first_bytes, s.last_bytes) for s in line.stretches] == [(8, 8192), (16384, 1 << 24)]
    assert [s.latency_s.value for s in line.stretches if s.latency_s] == pytest.approx([5e-6, 20e-6], rel=0.1)


def test_times_with_another_law_are_refused_and_the_test_is_named() -> None:
    root = (
        5e-6 * np.sqrt(SIZES / 8) * np.exp(0.02 * np.random.default_rng(3).standard_normal((6, len(SIZES))))
    )
    line = fit(SIZES, root)
    assert line.refused.startswith("neighbouring sizes miss the fit alike (permutation test, p = ")
    assert (line.latency_s, line.bandwidth_bytes_per_s) == (None, None)


def test_sizes_that_miss_the_fit_by_more_than_repeats_vary_are_refused() -> None:
    zigzag = times(5e-6, 1e10, 6, 0.005) * np.where(np.arange(len(SIZES)) % 2, 1.15, 0.85)
    assert fit(SIZES, zigzag).refused.startswith("sizes miss the fit by more than repeats vary (F test, p = ")


def test_times_that_nothing_describes_are_refused_with_one_repeat_too() -> None:
    wild = times(5e-6, 1e10, 1) * np.exp(np.where(np.arange(len(SIZES)) % 2, 1.0, -1.0))
    assert fit(SIZES, wild).refused.startswith("the times are off by ")


def test_a_small_miss_is_no_structure() -> None:
    wavy = times(5e-6, 1e10, 6, 0.001) * (1 + 0.03 * np.sin(np.arange(len(SIZES)) / 2))
    assert fit(SIZES, wavy).refused == ""


def test_three_sizes_are_too_few() -> None:
    assert fit(SIZES[:3], times(5e-6, 1e10, 6)[:, :3]).refused == "3 sizes: a fit needs at least 4"


@pytest.mark.parametrize(
    "part, latency_known, bandwidth_known", [(slice(0, 6), True, False), (slice(18, 22), False, True)]
)
def test_what_the_sizes_do_not_show_is_unknown(
    part: slice, latency_known: bool, bandwidth_known: bool
) -> None:
    line = fit(SIZES[part], times(5e-6, 1e10, 6, 0.01)[:, part])
    assert (line.latency_s is not None, line.bandwidth_bytes_per_s is not None) == (
        latency_known,
        bandwidth_known,
    )
    assert "would show it" in line.words


def test_a_bandwidth_that_repeats_do_not_agree_to_show_is_unknown() -> None:
    line = fit(
        np.array([1e3, 2e3, 3e3, 4e3]), np.array([[2e-6, 3e-6, 4e-6, 5e-6], [3.5e-6, 3.5e-6, 3.5e-6, 3.5e-6]])
    )
    assert line.bandwidth_bytes_per_s is None
    assert "bandwidth not to be seen at these sizes, larger ones would show it" in line.words


def test_repeats_that_show_no_bandwidth_are_told_in_words() -> None:
    found = latency.estimate(np.array([1.14e9, 2e9, np.inf]))
    expected = "2.00 GB/s (lowest of repeats 1.14 GB/s, some do not show it)"
    assert latency.estimate_words(found, "B/s") == expected


def test_six_repeats_have_an_interval_and_five_a_range() -> None:
    six, five = (fit(SIZES, times(5e-6, 1e10, n, 0.02)).latency_s for n in (6, 5))
    assert (
        six is not None
        and six.interval is not None
        and six.low <= six.interval[0] < six.interval[1] <= six.high
    )
    assert five is not None and five.interval is None and five.low < five.high
    assert "(range of repeats" in latency.estimate_words(five, "s")
