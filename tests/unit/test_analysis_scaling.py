"""Fits recover the parameters that data was made with; what cannot be fitted is said in words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis import models, scaling
from analysis.models import STRONG, WEAK, fit
from analysis.results import load
from tests.unit import results_factory as factory
from tests.unit.results_tables import S


def runs(mode: str, law: str, parameters: tuple[float, ...], nodes: tuple[int, ...], repeats: int,
         noise: float = 0.0) -> dict[int, list[float]]:  # fmt: skip
    """Times of a law with T(1) = 2 s, multiplied by lognormal noise."""
    generator = np.random.default_rng(11)
    speed_up = {"amdahl": models.amdahl, "gustafson": models.gustafson, "universal": models.universal}[law]
    work = {STRONG: lambda p: 1, WEAK: lambda p: p}[mode]
    return {
        p: [2.0 * work(p) / speed_up(p, *parameters) * math.exp(noise * generator.standard_normal())
            for _ in range(repeats)]
        for p in nodes
    }  # fmt: skip


@pytest.mark.parametrize(
    "mode, law, name, parameters",
    [
        (STRONG, "amdahl", "Amdahl", (0.07,)),
        (STRONG, "universal", "Universal Scalability", (0.05, 0.002)),
        (WEAK, "gustafson", "Gustafson", (0.12,)),
        (WEAK, "universal", "Universal Scalability", (0.03, 0.001)),
    ],
)
@pytest.mark.parametrize("nodes", [(1, 2, 4, 8, 16), (2, 4, 8, 16)], ids=["base 1", "base 2"])
def test_a_fit_finds_the_parameters_the_data_was_made_with(
    mode: str, law: str, name: str, parameters: tuple[float, ...], nodes: tuple[int, ...]
) -> None:
    found = fit(name, mode, runs(mode, law, parameters, nodes, 3))
    assert [q.value for q in found.parameters] == pytest.approx([2.0, *parameters], rel=1e-4)


def test_the_law_that_made_the_data_has_the_lowest_aicc() -> None:
    data = runs(STRONG, "universal", (0.04, 0.01), (1, 2, 4, 8, 16), 6, noise=0.01)
    scores = {law.name: fit(law.name, STRONG, data).aicc for law in models.LAWS[STRONG]}
    assert min(scores, key=lambda name: scores[name] or 0) == "Universal Scalability"
    plain = runs(STRONG, "amdahl", (0.1,), (1, 2, 4, 8), 6, noise=0.01)
    scores = {law.name: fit(law.name, STRONG, plain).aicc for law in models.LAWS[STRONG]}
    assert min(scores, key=lambda name: scores[name] or 0) == "Amdahl"


def test_six_repeats_have_an_interval_that_holds_the_truth_and_five_have_none() -> None:
    nodes = (1, 2, 4, 8)
    serial = fit("Amdahl", STRONG, runs(STRONG, "amdahl", (0.1,), nodes, 6, noise=0.02)).parameters[1]
    assert serial.interval is not None and serial.interval[0] < 0.1 < serial.interval[1]
    few = fit("Amdahl", STRONG, runs(STRONG, "amdahl", (0.1,), nodes, 5, noise=0.02))
    assert [q.interval for q in few.parameters] == [None, None]


@pytest.mark.parametrize("repeats, why", [(1, "3 runs, 3 parameters: AICc needs at least 6"), (2, "")])
def test_too_few_runs_have_no_aicc(repeats: int, why: str) -> None:
    found = fit("Amdahl", STRONG, runs(STRONG, "amdahl", (0.1,), (1, 2, 4), repeats))
    assert (found.aicc is None, found.why) == (bool(why), why)


def test_two_node_counts_cannot_tell_three_parameters_apart() -> None:
    found = fit("Universal Scalability", STRONG, runs(STRONG, "amdahl", (0.1,), (1, 2), 9))
    assert (found.aicc, found.why) == (None, "2 node counts cannot tell 3 parameters apart")


def test_parameters_stay_where_they_mean_something() -> None:
    super_linear = {1: [1.0] * 3, 2: [0.4] * 3, 4: [0.15] * 3}
    found = fit("Universal Scalability", STRONG, super_linear)
    assert [q.value for q in found.parameters[1:]] == [0, 0]


def test_the_laws_are_those_of_metrics_md() -> None:
    assert models.amdahl(4, 0.5) == 1 / (0.5 + 0.5 / 4)
    assert models.gustafson(4, 0.5) == 2.5
    assert models.universal(4, 0.1, 0.01) == 4 / (1 + 0.3 + 0.12)
    assert models.universal_peak(0.19, 0.01) == pytest.approx(9)
    assert models.karp_flatt(2, 4) == pytest.approx((0.5 - 0.25) / 0.75)
    assert models.karp_flatt(models.amdahl(8, 0.3), 8) == pytest.approx(0.3)
    assert scaling.strong_efficiency(8, 2, 2, 16) == 0.5
    assert scaling.weak_efficiency(3, 4) == 0.75
    assert models.aicc(2.0, 10, 3) == pytest.approx(10 * math.log(0.2) + 6 + 24 / 6)


def exact(mode: str, times_ms: dict[int, list[float]]) -> factory.Campaign:
    """A campaign of one series, without noise: warm-up ten times slower, rank 0 at half the time."""
    campaign = factory.Campaign()
    for nodes, repeats in times_ms.items():
        for repeat, time_ms in enumerate(repeats):
            case = campaign.case(
                f"c{nodes}-{repeat}", group="g", workload="mpi.halo", scaling_mode=mode, nodes=nodes, repeat=repeat,
                ranks=2 * nodes, ranks_per_node=2, steps=6, warmup_steps=2,
            )  # fmt: skip
            hosts = [f"n{i}" for i in range(nodes)]
            attempt = campaign.attempt(case, hosts, factory.START_NS, factory.START_NS + S)
            for rank in range(2 * nodes):
                time_ns = int(time_ms * 1e6) // (2 if rank == 0 else 1)
                campaign.record(
                    case, attempt, rank, "steps", step=np.arange(6), start_mono_ns=0,
                    step_time_ns=[10 * time_ns] * 2 + [time_ns] * 4,
                )  # fmt: skip
            campaign.check(case, 0, 0)
    return campaign


def test_points_of_a_strong_series_whose_base_is_two_nodes(tmp_path: Path) -> None:
    campaign = exact("strong", {2: [8.0, 8.0], 4: [5.0, 5.0]})
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (series,) = scaling.analyse(results)
    assert (series.base_nodes, series.stamp, series.left_out) == (2, "emulated", ())
    assert series.points == (
        scaling.Point(2, 4, (0.008, 0.008), 8, 0.008, None, 1.0, 1.0, None),
        scaling.Point(4, 8, (0.005, 0.005), 8, 0.005, None, 1.6, 0.8, pytest.approx(0.25)),
    )


def test_weak_efficiency_is_the_base_time_over_the_time(tmp_path: Path) -> None:
    campaign = exact("weak", {1: [4.0], 4: [5.0]})
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (series,) = scaling.analyse(results)
    assert [(p.efficiency, p.speed_up) for p in series.points] == [(1.0, 1.0), (0.8, 3.2)]
    assert series.best == ""


def test_one_node_count_has_no_fit_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = exact("strong", {2: [8.0] * 9}).write(tmp_path / "r.h5")
    assert scaling.main([str(path)]) == 0
    assert "no law chosen: one node count only (2): nothing to fit" in capsys.readouterr().out


def test_cases_that_cannot_be_used_are_left_out_by_name(tmp_path: Path) -> None:
    campaign = exact("strong", {1: [8.0], 2: [4.0], 4: [2.0], 8: [1.0]})
    campaign.find("attempts", case_id="c1-0")["outcome"] = "failed"
    campaign.find("cases", case_id="c1-0")["outcome"] = "failed"
    campaign.find("checks", case_id="c4-0")["passed"] = False
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (series,) = scaling.analyse(results)
    assert series.left_out == ("g/n1/r0: did not complete (failed)", "g/n4/r0: its answer was wrong")
    assert [p.nodes for p in series.points] == [2, 8]


def test_a_step_that_a_rank_did_not_report_is_not_counted(tmp_path: Path) -> None:
    campaign = exact("strong", {1: [8.0]})
    columns = campaign.samples["mpi.halo", "steps"]
    for name, arrays in columns.items():
        columns[name] = [arrays[0], arrays[1][:4]]
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (series,) = scaling.analyse(results)
    assert series.points[0].steps == 2


def test_weak_cases_of_one_size_with_two_parameters_are_not_fitted(tmp_path: Path) -> None:
    campaign = exact("weak", {1: [4.0, 4.0], 2: [4.0, 4.0]})
    campaign.find("cases", case_id="c2-1")["params"] = '{"rows": 9}'
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (series,) = scaling.analyse(results)
    assert series.why_no_fit == "cases on 2 nodes differ in their parameters, so they are not repeats"


def test_times_that_no_law_describes_have_no_law(tmp_path: Path) -> None:
    campaign = exact("strong", {1: [1.0] * 3, 2: [9.0] * 3, 4: [3.0] * 3})
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (series,) = scaling.analyse(results)
    assert series.best == ""
    assert series.why_no_fit.startswith("none describes these times: the nearest, ")


def test_the_quickstart_is_told_in_words_and_in_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(factory.quickstart().write(tmp_path / "r.h5"))
    assert scaling.main([path]) == 0
    words = capsys.readouterr().out
    assert words.startswith("emulated: for information, these figures judge nothing\n")
    assert "* Amdahl: T(1) = 8.11 ms, s = 0.10" in words
    assert scaling.main([path, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [(s["group"], s["mode"], s["best"]) for s in data["series"]] == [
        ("halo-strong", "strong", "Amdahl"),
        ("halo-weak", "weak", "Universal Scalability"),
    ]
