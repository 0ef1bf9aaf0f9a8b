"""What makes a series unstable is found where it was put, with its size and its place; steady series have nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import stability, stability_page, warmup
from analysis.results import load
from analysis.slopes import shift, theil_sen
from analysis.stability import CaseStability
from tests.unit import results_factory as factory
from tests.unit.results_tables import START_NS, S

STEPS = 1200


def noisy(seed: int = 1, steps: int = STEPS) -> np.ndarray:
    """Step times around 10 ms, 1 % of noise."""
    return np.asarray(0.010 * (1 + 0.01 * np.random.default_rng(seed).standard_normal(steps)))


def campaign(times_s: np.ndarray, **values: Any) -> factory.Campaign:
    """One case of two ranks; rank 1 is the slower one."""
    made = factory.Campaign()
    steps = len(times_s)
    case = made.case("c", group="g", workload="mpi.halo", nodes=1, ranks=2, ranks_per_node=2,
                     steps=steps, **{"warmup_steps": 5, **values})  # fmt: skip
    attempt = made.attempt(case, ["n1"], START_NS, START_NS + 60 * S)
    for rank in range(2):
        made.record(case, attempt, rank, "steps", step=np.arange(steps), start_mono_ns=0,
                    step_time_ns=(times_s * 1e9).astype("i8") - 1000 * (1 - rank))  # fmt: skip
    return made


def told(made: factory.Campaign, folder: Path) -> CaseStability:
    with load(made.write(folder / "r.h5")) as results:
        (found,) = stability.analyse(results)
    return found


def kinds(found: CaseStability) -> list[str]:
    return [x.kind for x in found.findings]


def test_a_steady_series_has_no_finding_and_its_figures(tmp_path: Path) -> None:
    times_s = noisy()
    found = told(campaign(times_s), tmp_path)
    judged = (times_s[5:] * 1e9).astype("i8") / 1e9
    assert (found.stable, kinds(found), found.why) == (True, [], "")
    assert found.figures is not None and found.figures.n == STEPS - 5
    assert found.figures.median_s == pytest.approx(np.median(judged))
    assert found.figures.cov == pytest.approx(np.std(judged, ddof=1) / np.mean(judged))
    assert found.figures.p999_s == pytest.approx(np.quantile(judged, 0.999))
    assert (
        "steady: 10.00 ms a step, CoV 1.0 % (robust 1.0 %), p99/p50 1.02, p99.9 10.3 ms, n=1195"
        in found.words
    )


@pytest.mark.parametrize("seed", range(10))
def test_noise_that_follows_itself_is_no_finding(seed: int, tmp_path: Path) -> None:
    y = np.empty(STEPS)
    last = 0.0
    for i, value in enumerate(np.random.default_rng(seed).standard_normal(STEPS).tolist()):
        y[i] = last = 0.8 * last + 0.012 * value
    assert kinds(told(campaign(0.010 * (1 + y)), tmp_path)) == []


def test_a_drift_is_told_with_its_size(tmp_path: Path) -> None:
    found = told(campaign(noisy() * (1 + 0.2 * np.arange(STEPS) / STEPS)), tmp_path)
    assert found.drift is not None
    assert found.drift.interval[0] < 0.010 * 0.2 / STEPS < found.drift.interval[1]
    assert kinds(found) == ["drift"]
    assert found.drift_share is not None and found.drift_share_interval is not None
    low, high = found.drift_share_interval
    assert low < 0.2 * (STEPS - 6) / (STEPS + 1) < high < 0.22
    assert found.findings[0].words == (
        f"step time drifts by {found.drift_share * 100:+.1f} % (95 %: {low * 100:+.1f} % to {high * 100:+.1f} %) "
        "of its level at step 5 until step 1199"
    )


def test_steps_that_fall_by_orders_are_no_level_that_drifts(tmp_path: Path) -> None:
    # As they were on a busy machine: ranks that wait for a core, and then do not.
    times_us = [4959, 1049, 698, 660, 4134, 8502, 8483, 106624, 22453, 14870, 19283, 13840, 7973, 7359, 9044, 14153,
                13797, 315, 141, 111, 124, 158, 115, 101, 105, 99, 100, 99, 97, 98]  # fmt: skip
    found = told(campaign(np.array(times_us) / 1e6), tmp_path)
    assert (found.drift_share, found.drift_share_interval) == (None, None)
    assert [x.words for x in found.findings if x.kind == "drift"] == [
        "steps get shorter from step 5 to 29, but this is no level that drifts: a line through them may reach zero, "
        "so no size is given"
    ]


def test_a_change_of_level_is_told_with_its_step(tmp_path: Path) -> None:
    found = told(campaign(noisy() * np.where(np.arange(STEPS) < 700, 1.0, 1.3)), tmp_path)
    assert kinds(found)[0] == "shift"
    assert found.shift is not None and 680 <= found.shift.index + 5 <= 720
    assert found.findings[0].words.endswith("steps are 30 % slower: 10.0 ms before, 13.0 ms after")


def test_a_period_is_found_and_random_pauses_are_none(tmp_path: Path) -> None:
    every = noisy()
    every[::50] *= 1.4
    found = told(campaign(every), tmp_path)
    assert found.period is not None and found.period.steps == pytest.approx(50)
    assert kinds(found) == ["periodic"]
    random = noisy()
    random[np.random.default_rng(9).choice(STEPS, 24, replace=False)] *= 1.4
    assert told(campaign(random), tmp_path).period is None


def test_a_long_tail_is_told_with_its_worst_step(tmp_path: Path) -> None:
    times_s = noisy()
    times_s[np.random.default_rng(2).choice(np.arange(10, STEPS), 30, replace=False)] *= 3
    times_s[777] = 0.2
    found = told(campaign(times_s), tmp_path)
    assert "tail" in kinds(found)
    assert any("at worst 200 ms in step 777" in f.words for f in found.findings)


def test_jitter_is_told(tmp_path: Path) -> None:
    times_s = 0.010 * np.random.default_rng(3).uniform(0.75, 1.25, STEPS)
    found = told(campaign(times_s), tmp_path)
    assert kinds(found)[0] == "jitter"
    f = found.figures
    assert f is not None
    shares = f"{f.cov * 100:.1f} % (CoV; robust {f.robust_cov * 100:.1f} %)"
    assert found.words.splitlines()[1].startswith(f"  step times vary by {shares}; try: ")


@pytest.mark.parametrize(
    "times_s, why",
    [
        (noisy(steps=30), "whether 5 are enough warm-up steps is not known: it takes 50 steps to tell"),
        (0.01 * np.linspace(2, 1, 200), "no end of a warm-up found: it does not settle in its first half"),
    ],
)
def test_a_warm_up_that_is_not_known_is_told(times_s: np.ndarray, why: str, tmp_path: Path) -> None:
    found = told(campaign(times_s, warmup_steps=5), tmp_path)
    assert why in found.words.splitlines()[0]
    assert why in stability_page.figures_words(found)


def test_the_dip_area_is_the_time_that_steps_above_the_median_took_longer() -> None:
    f = stability.figures(np.array([1.0, 1.0, 1.0, 3.0]), np.arange(4))
    assert (f.dip_area_s, f.dip_share) == (2.0, 2 / 6)


@pytest.mark.parametrize("declared", [0, 5, 60])
def test_a_warm_up_is_found_and_compared_with_what_was_declared(declared: int, tmp_path: Path) -> None:
    times_s = noisy()
    times_s[:40] *= 1 + np.linspace(1, 0.3, 40)
    found = told(campaign(times_s, warmup_steps=declared), tmp_path)
    assert found.warmup is not None and found.warmup.found == 40
    assert found.warmup.longer == (declared < 40)
    assert kinds(found) == (["warm-up"] if declared < 40 else [])
    if declared < 40:
        assert found.findings[0].advice == "warmup_steps: 40"


@pytest.mark.parametrize("seed", range(20))
def test_noise_has_no_warm_up(seed: int) -> None:
    found = warmup.find(noisy(seed, 200), np.arange(200), 0)
    assert (found.found, found.longer) == (0, False)


def telemetry(made: factory.Campaign, used: np.ndarray) -> factory.Campaign:
    case, attempt = made.tables["cases"][0], made.tables["attempts"][0]
    made.record(case, attempt, -1, "host", node="n1", wall_ns=START_NS + np.arange(len(used)) * S,
                memory_used_bytes=used.astype("i8"))  # fmt: skip
    return made


@pytest.mark.parametrize(
    "a_second, leak",
    [(20e6, True), (2e6, False), (0.0, False), (-20e6, False)],
    ids=["much", "little", "none", "less"],
)
def test_a_leak_is_growth_for_sure_and_past_the_limit(a_second: float, leak: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    used = 8e9 + a_second * np.arange(60) + 5e6 * generator.standard_normal(60)
    found = told(telemetry(campaign(noisy()), used), tmp_path)
    assert kinds(found) == (["leak"] if leak else [])
    assert found.memory is not None
    (growth,) = found.memory.growths
    assert growth.growth_bytes == pytest.approx(a_second * 59, abs=1e7)
    if leak:
        assert "memory of n1 grew by 1.10 GiB in 59.0 s" in found.words


def test_growth_that_chance_alone_may_give_is_no_leak(tmp_path: Path) -> None:
    used = 8e9 + 1.5e9 * np.random.default_rng(29).standard_normal(60)
    found = told(telemetry(campaign(noisy()), used), tmp_path)
    assert found.memory is not None and found.memory.growths[0].growth_bytes > 1e9
    assert kinds(found) == []


def test_memory_that_swings_is_no_leak(tmp_path: Path) -> None:
    used = 8e9 + 3e9 * np.sin(np.arange(200) / 20)
    assert kinds(told(telemetry(campaign(noisy()), used), tmp_path)) == []


@pytest.mark.parametrize(
    "times_s, why",
    [
        (np.full(STEPS, 0.01), "all 1195 step times are 10.0 ms to the last digit: no clock gives that"),
        (noisy(steps=12), "7 steps that every rank reported: a series needs 20"),
        (np.where(np.arange(STEPS) == 9, -1.0, noisy()), "1 of 1195 step times are not above zero"),
    ],
    ids=["constant", "short", "negative"],
)
def test_a_series_that_says_nothing_says_why(times_s: np.ndarray, why: str, tmp_path: Path) -> None:
    found = told(campaign(times_s), tmp_path)
    assert (found.why, found.stable, found.figures) == (why, None, None)
    assert found.words == f"g/n1/r0: not known: {why}"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_times_that_are_not_finite_are_counted(bad: float) -> None:
    times_s = noisy()
    times_s[3] = bad
    assert stability._bad(times_s) == "1 of 1200 step times are not finite numbers"


def test_cases_that_failed_or_were_hit_on_purpose_are_named(tmp_path: Path) -> None:
    made = factory.small()
    made.find("attempts", case_id="train-r0")["outcome"] = "failed"
    made.find("cases", case_id="train-r0")["outcome"] = "failed"
    with load(made.write(tmp_path / "r.h5")) as results:
        assert [(c.case_id, c.why) for c in stability.analyse(results)] == [
            ("train-r0", "did not complete (failed)"),
            ("train-fault-r0", "a fault was injected"),
        ]


def test_a_slope_and_a_shift_need_ten_stretches() -> None:
    x = np.arange(9.0)
    assert (theil_sen(x, x), shift(x)) == (None, None)
    found = theil_sen(np.arange(12.0), 3 + 2 * np.arange(12.0))
    assert found is not None and (found.value, found.at_start, found.change) == (2, 3, 22)


def test_words_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(campaign(noisy()).write(tmp_path / "r.h5"))
    assert stability.main([path]) == 0
    words = capsys.readouterr().out.splitlines()
    assert words[0] == "emulated: for information, these figures judge nothing"
    assert words[-2:] == [
        "1 case: 0 unstable, 0 not known", "leaks not known in 1 case: memory was not recorded",
    ]  # fmt: skip
    assert stability.main([path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["stable"] is True
