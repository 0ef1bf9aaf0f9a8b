"""What a scaling series cannot tell is said in words, on data made wrong on purpose; and what it tells beside laws."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import parts, report, scaling, scaling_words
from analysis.efficiency import overhead
from analysis.models import STRONG, fit
from analysis.results import load
from analysis.scaling import Series
from analysis.verdict import judge
from tests.unit import results_factory as factory
from tests.unit.results_tables import START_NS, S

SIX = [1.00, 1.01, 0.99, 1.02, 0.98, 1.005]


def campaign(
    mode: str, times_ms: Mapping[int, Sequence[float]], columns: Any = None, **values: Any
) -> factory.Campaign:
    """One series; every case has ten steps of equal time, the first two warm-up.

    Args:
        columns: node count -> more columns of ``steps``.
    """
    made = factory.Campaign()
    for nodes, repeats in times_ms.items():
        for repeat, time_ms in enumerate(repeats):
            case = made.case(f"c{nodes}-{repeat}", group="g", workload="mpi.halo", scaling_mode=mode, nodes=nodes,
                             repeat=repeat, steps=10, warmup_steps=2, **values)  # fmt: skip
            attempt = made.attempt(case, [f"n{i}" for i in range(nodes)], START_NS, START_NS + S)
            times = np.full(10, round(time_ms * 1e6))
            more = columns(nodes) if columns else {}
            for rank in range(nodes):
                made.record(case, attempt, rank, "steps", step=np.arange(10), start_mono_ns=0,
                            step_time_ns=times, **more)  # fmt: skip
    return made


def series(made: factory.Campaign, folder: Path) -> Series:
    with load(made.write(folder / "r.h5")) as results:
        (found,) = scaling.analyse(results)
    return found


def amdahl(nodes: Sequence[int], serial: float = 0.1) -> dict[int, list[float]]:
    return {p: [100 * (serial + (1 - serial) / p) * x for x in np.roll(SIX, p)] for p in nodes}


def test_efficiencies_have_intervals_and_so_has_karp_flatt(tmp_path: Path) -> None:
    found = series(campaign("strong", amdahl((1, 2, 4))), tmp_path)
    base, _, last = found.points
    assert (base.efficiency_interval, base.karp_flatt_interval) == (None, None)
    assert last.efficiency_interval is not None and last.karp_flatt_interval is not None
    assert last.efficiency_interval[0] < 1 / (4 * 0.325) < last.efficiency_interval[1]
    assert last.karp_flatt_interval[0] < 0.1 < last.karp_flatt_interval[1]


def test_times_far_out_are_said_to_be_outside_and_hold_the_law(tmp_path: Path) -> None:
    found = series(campaign("strong", amdahl((1, 2, 4, 8))), tmp_path)
    inside, outside = scaling.extrapolate(found, [6, 64])
    assert (inside.outside, outside.outside) == (False, True)
    assert outside.interval_s is not None and outside.run_interval_s is not None
    assert outside.interval_s[0] < 0.1 * (0.1 + 0.9 / 64) < outside.interval_s[1]
    assert (
        outside.run_interval_s[0] < outside.interval_s[0]
        and outside.interval_s[1] < outside.run_interval_s[1]
    )
    assert [p.nodes for p in found.predictions] == [16, 32]


def test_laws_that_the_runs_cannot_tell_apart_all_count_far_out(tmp_path: Path) -> None:
    found = series(campaign("strong", amdahl((1, 2, 4, 8))), tmp_path)
    assert found.supported == ("Amdahl", "Universal Scalability")
    alone, both = (
        scaling.predict(laws, STRONG, found.runs, [64])[0] for laws in (("Amdahl",), found.supported)
    )
    assert both.interval_s is not None and alone.interval_s is not None
    assert both.interval_s[1] > alone.interval_s[1]


def test_a_law_that_misses_by_more_than_repeats_vary_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {
        p: [100 * t * (1 + 0.001 * x) for x in range(6)]
        for p, t in {1: 1.0, 2: 0.6, 4: 0.38, 8: 0.22}.items()
    }
    assert scaling.main([str(campaign("strong", times).write(tmp_path / "r.h5"))]) == 0
    assert (
        "misses the medians by more than repeats vary (F test, p < 0.001): its intervals and "
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "kappa, words",
    [(0.0, "Karp-Flatt is flat"), (0.01, "Karp-Flatt rises")],
    ids=["serial", "overhead"],
)
def test_karp_flatt_is_flat_for_serial_work_and_rises_with_overhead(
    kappa: float, words: str, tmp_path: Path
) -> None:
    times = {p: [100 * (1 + 0.1 * (p - 1) + kappa * p * (p - 1)) / p * x for x in SIX] for p in (1, 2, 4, 8)}
    assert series(campaign("strong", times), tmp_path).overhead.startswith(words)


def test_repeats_that_vary_too_much_cannot_tell_whether_karp_flatt_rises(tmp_path: Path) -> None:
    wild = [0.5, 1.6, 0.7, 1.4, 0.9, 1.1]
    times = {p: [100 * (1 + 0.1 * (p - 1)) / p * x for x in wild] for p in (1, 2, 4, 8)}
    found = series(campaign("strong", times), tmp_path).overhead
    assert found.startswith("Karp-Flatt: whether it rises cannot be told (")


def test_rounding_errors_are_no_growth_of_karp_flatt(tmp_path: Path) -> None:
    found = series(campaign("strong", {p: [100 / p] * 6 for p in (1, 2, 4, 8)}), tmp_path)
    assert found.overhead == (
        "Karp-Flatt is 0 as far as can be seen: no node count takes 1 % longer than if ideal"
    )
    assert "0 (0 to 0)" in scaling.words(found) and "-0" not in scaling.words(found)


def test_growth_that_costs_less_than_is_worth_telling_is_none() -> None:
    def times(kappa: float) -> dict[int, list[float]]:
        return {p: [(1 + 0.1 * (p - 1) + kappa * p * (p - 1)) / p] * 6 for p in (1, 2, 4, 8)}

    # kappa makes the fraction rise by about 2.9 kappa for each doubling; 1 % of the time on 8 nodes is 0.000714 of that
    assert overhead(times(2e-4)).startswith("Karp-Flatt is flat (")
    assert "; from 0.000714 on it counts): overhead" in overhead(times(5e-4))


def test_a_peak_is_named_only_where_kappa_cannot_be_0() -> None:
    def times(kappa: float) -> dict[int, list[float]]:
        law = {p: (1 + 0.1 * (p - 1) + kappa * p * (p - 1)) / p for p in (1, 2, 4, 8)}
        return {p: [t * x for x in np.roll(SIX, p)] for p, t in law.items()}

    none, named = (fit("Universal Scalability", STRONG, times(kappa)) for kappa in (0.0, 0.02))
    assert none.peak_p is None and "peak" not in scaling.parameter_words(none)
    assert named.peak_p == pytest.approx((0.9 / 0.02) ** 0.5, rel=0.05)
    assert "peak at 6." in scaling.parameter_words(named)


def test_series_with_one_heading_say_in_what_they_differ(tmp_path: Path) -> None:
    made = campaign("strong", {1: [8.0, 9.0], 2: [4.4, 5.0]})
    for row in made.tables["cases"]:
        row["params"] = json.dumps({"columns": 64, "rows": 512 * (1 + row["repeat"])})
    with load(made.write(tmp_path / "r.h5")) as results:
        found = scaling.analyse(results)
    assert [scaling.words(s).splitlines()[0] for s in found] == [
        f"g: mpi.halo, strong scaling, rows {rows}, 1 rank a node; base: 1 node [emulated]"
        for rows in (512, 1024)
    ]


def test_the_report_says_of_laws_and_karp_flatt_what_the_command_line_says(tmp_path: Path) -> None:
    made = campaign("strong", amdahl((1, 2, 4, 8)))
    path = made.write(tmp_path / "r.h5")
    with load(path) as results:
        (found,) = scaling.analyse(results)
        page = html.unescape(report.html(results, judge(results)))
    assert "the runs cannot tell Amdahl from Universal Scalability by AICc" in scaling.words(found)
    assert (
        "Amdahl has the lowest AICc. The runs cannot tell Amdahl from Universal Scalability by AICc." in page
    )
    span = scaling_words.karp_flatt_words(found.points[3]).split(" (")[1][:-1]
    assert f'0.100<br><span class="muted">{span}</span>' in page


def test_a_failed_base_run_is_told_and_the_next_one_is_the_base(tmp_path: Path) -> None:
    made = campaign("strong", {1: [8.0], 2: [4.4], 4: [2.6]})
    made.find("attempts", case_id="c1-0")["outcome"] = "failed"
    made.find("cases", case_id="c1-0")["outcome"] = "failed"
    found = series(made, tmp_path)
    assert found.base_nodes == 2
    assert found.left_out == ("g/n1/r0: did not complete (failed)",)
    assert found.notes[0] == (
        "no run on 1 node can be used, the smallest that was asked for: efficiencies are relative to 2 nodes"
    )


def test_a_node_count_without_a_run_and_single_repeats_are_told(tmp_path: Path) -> None:
    made = campaign("strong", {1: [8.0], 2: [4.4], 4: [2.6]})
    made.check(made.find("cases", case_id="c2-0"), 0, 0, passed=False)
    assert series(made, tmp_path).notes == (
        "no run on 2 nodes can be used",
        "one repeat only on 1, 4 nodes: how it varies from run to run is not known",
    )


def test_a_constant_is_no_measurement(tmp_path: Path) -> None:
    found = series(campaign("strong", {1: [8.0] * 6, 2: [4.4] * 6}), tmp_path)
    assert found.notes[0].startswith("all 6 repeats on 1 node took the same time to the last digit")


def test_no_usable_case_is_said(tmp_path: Path) -> None:
    made = campaign("strong", {1: [0.0], 2: [0.0]})
    found = series(made, tmp_path)
    assert (found.points, found.why_no_fit) == ((), "no case of it can be used")
    assert found.left_out[0] == "g/n1/r0: its median step time is not above zero"
    assert scaling.words(found).splitlines()[0] == "g: mpi.halo, strong scaling, 1 rank a node [emulated]"


@pytest.mark.parametrize("bad, count", [(np.nan, 8), (np.inf, 8)])
def test_times_that_are_not_finite_are_left_out_by_name(bad: float, count: int, tmp_path: Path) -> None:
    made = campaign("strong", {1: [8.0], 2: [4.4], 4: [2.6]})
    made.facts["step_time_ns"] = {
        "unit": "ns",
        "type": "f8",
        "direction": "lower",
        "definition": "of a program",
    }
    made.samples["mpi.halo", "steps"]["step_time_ns"][0] = np.full(10, bad)
    assert series(made, tmp_path).left_out == (f"g/n1/r0: {count} of 8 step times are not finite numbers",)


def test_steps_without_every_rank_are_counted(tmp_path: Path) -> None:
    made = campaign("strong", {1: [8.0], 2: [4.4]})
    columns = made.samples["mpi.halo", "steps"]
    for name, arrays in columns.items():
        columns[name] = [*arrays[:-1], arrays[-1][:7]]
    assert "g/n2/r0: 3 steps left out, a rank's sample is missing" in series(made, tmp_path).notes


def test_cells_of_a_sweep_are_series_of_their_own(tmp_path: Path) -> None:
    made = campaign("weak", {1: [8.0, 9.0], 2: [8.8, 9.9]})
    for row in made.tables["cases"]:
        row["axes"] = json.dumps({"dtype": row["repeat"]})
    with load(made.write(tmp_path / "r.h5")) as results:
        found = scaling.analyse(results)
    assert [(s.cell, s.why_no_fit) for s in found] == [
        ('{"dtype": 0}', found[0].why_no_fit), ('{"dtype": 1}', found[1].why_no_fit),
    ]  # fmt: skip
    assert all("differ in their parameters" not in s.why_no_fit for s in found)


def shared(communication: Mapping[int, int]) -> Any:
    """More columns of ``steps``: communication as given, in ms; waiting 1 ms; the rest of the step is computing."""
    total = {1: 8, 2: 6, 4: 5}
    return lambda nodes: {
        "compute_ns": (total[nodes] - communication[nodes] - 1) * 1_000_000,
        "communication_ns": communication[nodes] * 1_000_000,
        "waiting_ns": 1_000_000,
    }


def test_what_is_lost_is_told_by_part_and_adds_up(tmp_path: Path) -> None:
    found = series(campaign("strong", {1: [8.0], 2: [6.0], 4: [5.0]}, shared({1: 0, 2: 2, 4: 3})), tmp_path)
    assert found.points[2].shares == pytest.approx(
        {"computing": 0.2, "communication": 0.6, "waiting": 0.2, "rest": 0.0}, abs=1e-9
    )
    for lost, point in zip(found.lost, found.points[1:], strict=True):
        assert sum(lost.parts.values()) == pytest.approx(1 - point.efficiency)
    assert found.lost[1].parts == pytest.approx(
        {"computing": -0.15, "communication": 0.6, "waiting": 0.15, "rest": 0.0}, abs=1e-9
    )
    assert found.communication == (
        "from 2 nodes on, most of what is lost goes to communication; "
        "from 4 nodes on, ranks communicate and wait longer than they compute"
    )
    assert (
        found.lost[1].words
        == "4 nodes: 60.0 % of the node time lost: 60.0 % to communication, 15.0 % to waiting, "
        "0.0 % to the slowest rank and what is not accounted for, -15.0 % to computing "
        "(below zero: computing takes less of it than at the base)"
    )


def test_what_is_shown_as_lost_adds_up_where_each_part_is_rounded() -> None:
    lost = parts.Lost(2, 0.7, {"computing": 0.10034, "communication": 0.10033, "waiting": 0.09933})
    assert lost.words == (
        "2 nodes: 30.0 % of the node time lost: 10.1 % to computing, 10.0 % to communication, 9.9 % to waiting"
    )


def test_a_few_slow_steps_do_not_rule_the_parts(tmp_path: Path) -> None:
    made = campaign("strong", {1: [8.0], 2: [6.0]}, shared({1: 0, 2: 2}))
    steps = made.samples["mpi.halo", "steps"]
    for rank in (1, 2):  # of the case on two nodes: one step of ten waits for a second
        for name in ("step_time_ns", "waiting_ns"):
            steps[name][rank] = np.where(np.arange(10) == 5, 1_000_000_000, steps[name][rank])
    found = series(made, tmp_path)
    assert found.points[1].shares == pytest.approx(
        {"computing": 1 / 2, "communication": 1 / 3, "waiting": 1 / 6, "rest": 0.0}, abs=1e-9
    )
    assert sum(found.lost[0].parts.values()) == pytest.approx(1 - found.points[1].efficiency)


def test_without_the_parts_of_a_step_it_is_said_that_they_were_not_recorded(tmp_path: Path) -> None:
    found = series(campaign("strong", {1: [8.0], 2: [6.0]}), tmp_path)
    assert (found.communication, found.lost) == (parts.NOT_RECORDED, ())


def test_more_nodes_are_asked_for_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(campaign("strong", amdahl((1, 2, 4))).write(tmp_path / "r.h5"))
    assert scaling.main([path, "--nodes", "3,100"]) == 0
    told = capsys.readouterr().out
    assert (
        "3 nodes, inside of what was measured: " in told
        and "100 nodes, outside of what was measured: " in told
    )
    with pytest.raises(SystemExit):
        scaling.main([path, "--nodes", "3,x"])
    assert "'3,x' is no list of node counts; write it as 64,128" in capsys.readouterr().err
