"""How well repeats are known, and whether more are needed: on generated figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import precision
from analysis.results import load
from analysis.verdict import judge
from harness.model.design import ENOUGH, MORE, NEVER, Comparison, Lot, Question
from harness.model.event import COMPARISON_PLANNED, LOT_PLANNED, REPEATS_WEIGHED
from tests.unit import results_factory as factory
from tests.unit.results_tables import S

QUESTION = Question("step_time_ns", "median")
NARROW = [100, 101, 99, 100.5, 99.5, 100.2]
WIDE = [100, 150, 60, 120, 80, 130]


def lot(most: int = 12, within: float = 0.02, **more: Any) -> Lot:
    cases = tuple(f"c{number}" for number in range(most))
    return Lot("g/n1", "g", QUESTION, within, 0.95, 6, most, 2, None, {"g/n1": cases}, **more)


def repeat(campaign: factory.Campaign, case_id: str, time_ms: float | None, **values: Any) -> None:
    """A case of one rank whose steps all took so long; with None it failed. Each takes 36 s on its one node."""
    number = len(campaign.tables["cases"])
    case = campaign.case(case_id, group="g", steps=4, warmup_steps=1, workload="mpi.halo", repeat=number)
    begin = factory.START_NS + number * 40 * S
    outcome = "completed" if time_ms is not None else "failed"
    attempt = campaign.attempt(case, ["n1"], begin, begin + 36 * S, outcome=outcome, job_key="0001", **values)
    if time_ms is not None:
        taken = np.array([9e9, time_ms * 1e6, time_ms * 1e6, time_ms * 1e6]).astype("i8")
        campaign.record(case, attempt, 0, "steps", step=[0, 1, 2, 3], step_time_ns=taken)


def campaign_of(times_ms: Sequence[float | None], planned: Lot, **attributes: Any) -> factory.Campaign:
    campaign = factory.Campaign()
    campaign.attributes.update({"emulated": False, **attributes})
    for case_id, time_ms in zip(planned.series["g/n1"], times_ms, strict=False):
        repeat(campaign, case_id, time_ms)
    for case_id in planned.series["g/n1"][len(times_ms) :]:
        campaign.case(case_id, group="g", outcome="not_run", reason="its job has not reached it")
    campaign.event(None, -1, -1, LOT_PLANNED, factory.START_NS, "", **planned.to_json())
    return campaign


def decided(
    times_ms: Sequence[float | None], folder: Path, planned: Lot | None = None, **attributes: Any
) -> tuple[str, str]:
    planned = planned or lot()
    with load(campaign_of(times_ms, planned, **attributes).write(folder / "r.h5")) as results:
        assert results.events
        return precision.decide(results, planned)


def test_a_narrow_interval_is_enough_and_a_wide_one_is_not(tmp_path: Path) -> None:
    assert decided(NARROW, tmp_path) == (ENOUGH, "interval ±0.92 % after 6 repeats")
    assert decided(WIDE, tmp_path) == (MORE, "interval ±39 % after 6 repeats")


def test_below_six_repeats_nothing_is_decided_however_alike_they_are(tmp_path: Path) -> None:
    assert decided([100.0] * 5, tmp_path) == (
        MORE,
        "no interval after 5 repeats: 5 of 6 repeats that an interval needs",
    )
    assert decided([100.0] * 6, tmp_path) == (ENOUGH, "interval ±0 % after 6 repeats")


def test_a_repeat_that_failed_counts_for_nothing_and_is_told(tmp_path: Path) -> None:
    words = "no interval after 5 repeats: 1 repeat without a figure: the case did not complete"
    assert decided([*NARROW[:5], None], tmp_path) == (MORE, words)
    assert decided([*NARROW, None], tmp_path)[0] == ENOUGH


def test_what_nobody_records_is_never_known_and_costs_no_more(tmp_path: Path) -> None:
    planned = dataclasses.replace(lot(), question=Question("loss", "median"))
    answer, why = decided(NARROW, tmp_path, planned)
    assert answer == NEVER
    assert why.startswith("no repeat has a figure median loss: 6 repeats without a figure: ")


def test_a_budget_ends_it_before_it_would_be_passed(tmp_path: Path) -> None:
    # Six repeats of 36 s took 0.06 node-hours; two more would take 0.02.
    assert decided(WIDE, tmp_path, dataclasses.replace(lot(), max_node_hours=0.08))[0] == MORE
    answer, why = decided(WIDE, tmp_path, dataclasses.replace(lot(), max_node_hours=0.079))
    assert (answer, why) == (
        ENOUGH,
        "the budget is spent (0.0600 of 0.079 node-hours, and 2 more repeats would take about 0.0200), "
        "interval ±39 % after 6 repeats, ±2 % was asked",
    )


def test_of_an_emulated_cluster_the_stamp_is_said(tmp_path: Path) -> None:
    assert decided(NARROW, tmp_path, emulated=True) == (
        ENOUGH,
        "interval ±0.92 % after 6 repeats (emulated)",
    )


def test_a_lot_of_several_series_is_known_when_the_least_certain_is(tmp_path: Path) -> None:
    planned = dataclasses.replace(
        lot(), series={"one": tuple(f"a{n}" for n in range(8)), "two": tuple(f"b{n}" for n in range(8))}
    )
    campaign = factory.Campaign()
    campaign.attributes["emulated"] = False
    for number in range(6):
        repeat(campaign, f"a{number}", NARROW[number])
        repeat(campaign, f"b{number}", WIDE[number])
    with load(campaign.write(tmp_path / "r.h5")) as results:
        assert precision.decide(results, planned) == (MORE, "interval ±39 % after 6 repeats")
        found = precision.measure(results, planned)
    assert [(one.name, one.n, one.half is not None and one.half < 0.02) for one in found.series] == [
        ("one", 6, True),
        ("two", 6, False),
    ]


def test_of_two_settings_the_ratio_within_pairs_is_what_must_be_known(tmp_path: Path) -> None:
    """Allocations differ by a factor of three, settings by 10 % in each."""
    pairs = tuple((f"a{n}", f"b{n}") for n in range(8))
    planned = dataclasses.replace(
        lot(), series={"g/n1/ab=a": tuple(a for a, _ in pairs), "g/n1/ab=b": tuple(b for _, b in pairs)}
    )
    comparison = Comparison("g/n1", "g", QUESTION, 0.02, "", "x=1", pairs)
    campaign = factory.Campaign()
    campaign.attributes["emulated"] = False
    for number, level in enumerate([1, 3, 2, 1.5, 2.5, 1.2]):
        repeat(campaign, f"a{number}", level * 10)
        repeat(campaign, f"b{number}", level * 11 * (1 + 0.001 * number))
    campaign.event(None, -1, -1, COMPARISON_PLANNED, factory.START_NS, "", **comparison.to_json())
    with load(campaign.write(tmp_path / "r.h5")) as results:
        answer, why = precision.decide(results, planned)
        (series,) = precision.measure(results, planned).series
    assert (answer, series.name, series.n) == (ENOUGH, "g/n1: b/a", 6)
    assert series.estimate == pytest.approx(1.1, rel=0.01)
    assert why.startswith("interval ±0.")


def test_what_was_not_needed_is_no_part_of_the_evidence(tmp_path: Path) -> None:
    planned = lot(8)
    campaign = campaign_of(NARROW, planned)
    for case in campaign.tables["cases"][6:]:
        case["reason"] = "not needed: interval ±0.92 % after 6 repeats"
    for case in campaign.tables["cases"][:6]:
        campaign.check(case, 0, 0)
    campaign.event(
        None, -1, -1, REPEATS_WEIGHED, factory.START_NS, "", name="g/n1", wave=1, answer="enough",
        why="interval ±0.92 % after 6 repeats",
    )  # fmt: skip
    with load(campaign.write(tmp_path / "r.h5")) as results:
        assert [case["case_id"] for case in results.not_needed] == ["c6", "c7"]
        assert [v.verdict.value for v in judge(results)] == ["pass"] * 6
        (found,) = precision.analyse(results)
    assert (found.narrow, found.n, found.most) == (True, 6, 8)
    assert found.stopped == "interval ±0.92 % after 6 repeats"
    assert precision.reached(found) == "asked ±2 % at 95 %: reached"


def test_a_case_that_was_not_run_for_another_reason_is_unknown(tmp_path: Path) -> None:
    with load(campaign_of(NARROW[:5], lot(6)).write(tmp_path / "r.h5")) as results:
        assert results.not_needed == []
        assert [v.verdict.value for v in judge(results)][-1] == "unknown"


def test_the_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = campaign_of(NARROW, lot()).write(tmp_path / "r.h5")
    assert precision.main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "g/n1: median step_time_ns, asked ±2 % at 95 %: reached",
        "series  repeats  figure  interval",
        "------  -------  ------  --------",
        "g/n1    6 of 12  100 ms  ±0.92 %",
        "0.0600 node-hours in group g",
    ]


def test_stopping_when_narrow_keeps_most_of_the_intervals_promise() -> None:
    """Looking after every repeat costs coverage; this is how much, of 500 lots whose true median is 1."""
    from analysis.resample import interval

    generator = np.random.default_rng(5)
    held, stopped = 0, 0
    for _ in range(500):
        values = generator.normal(1, 0.03, 30)
        for n in range(6, 31):
            found = interval(values[:n])
            assert found is not None
            if max(found[1] - np.median(values[:n]), np.median(values[:n]) - found[0]) <= 0.02 or n == 30:
                held += found[0] <= 1 <= found[1]
                stopped += n < 30
                break
    assert stopped > 400
    assert held / 500 > 0.85
