"""Intervals hold the truth of generated data: small versions of ``tests.bench.truth``; bad methods are seen to fail."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import resample
from analysis.models import STRONG, WEAK
from tests.bench import truth
from tests.bench.truth import LOGNORMAL, ONE, SKEWED, TWO, Held


def shares(rows: list[Held]) -> dict[str, float]:
    return {row.figure: row.share for row in rows if row.tried}


@pytest.mark.parametrize("kind", [LOGNORMAL, SKEWED])
def test_medians_and_efficiencies_of_seven_repeats_hold_the_truth_and_the_percentile_bootstrap_does_not(
    kind: str,
) -> None:
    found = shares(truth.medians(kind, 0.1, 7, 600))
    assert found["median"] > 0.92
    assert found["efficiency"] > 0.93
    assert found["efficiency, noise three times as large"] > 0.93
    assert found["median, percentile bootstrap (not used)"] < 0.89


@pytest.mark.parametrize(
    "mode, law, parameters",
    [
        (STRONG, "Amdahl", (0.05,)),
        (STRONG, "Universal Scalability", (0.03, 0.0)),
        (WEAK, "Gustafson", (0.1,)),
        (WEAK, "Universal Scalability", (0.03, 0.001)),
    ],
)
def test_parameters_of_laws_and_what_they_say_far_out_hold_the_truth(
    mode: str, law: str, parameters: tuple[float, ...]
) -> None:
    rows = truth.laws(mode, law, parameters, LOGNORMAL, 0.03, 6, 80)
    assert [row for row in rows if row.share < 0.88 or row.none] == []


def test_without_widening_six_repeats_hold_the_truth_too_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.fitting.tails", lambda level, df: (0.025, 0.975))
    monkeypatch.setattr("analysis.fitting.math.sqrt", lambda x: 1.0 if 1.19 < x < 1.21 else x**0.5)
    rows = truth.laws(STRONG, "Amdahl", (0.05,), LOGNORMAL, 0.03, 6, 100)
    assert shares(rows)["strong Amdahl (0.05,): s"] < 0.92


@pytest.mark.parametrize("protocols", [ONE, TWO], ids=["one protocol", "two protocols"])
def test_latency_and_bandwidth_hold_the_truth(protocols: truth.Protocols) -> None:
    rows = truth.latencies(protocols, SKEWED, 0.05, 6, 200)
    assert [row for row in rows if row.share < 0.91 or row.none > 10] == []


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_drift_holds_the_truth_also_where_steps_follow_one_another(correlation: float) -> None:
    (row,) = truth.drifts(correlation, 1000, SKEWED, 150)
    assert row.share > 0.90


def test_a_drift_is_unknown_where_the_series_is_too_short_for_its_correlation() -> None:
    (row,) = truth.drifts(0.95, 100, LOGNORMAL, 100)
    assert row.none >= 95


def test_the_interval_of_a_series_knows_that_its_values_follow_one_another() -> None:
    generator, held = np.random.default_rng(4), 0
    for _ in range(100):
        y = np.empty(1000)
        last = 0.0
        for i, value in enumerate(generator.standard_normal(1000)):
            y[i] = last = 0.7 * last + value
        low, high = resample.of_series(y, np.mean) or (np.inf, -np.inf)
        held += low <= 0 <= high
    assert held >= 88
