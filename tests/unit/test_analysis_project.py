"""Projection to many nodes: formulas with known values, and a simulation that must agree with the renewal model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from analysis import costs, ettr, project
from analysis.results import load
from tests.unit import recovery_factory
from tests.unit import results_factory as factory


def test_the_formulas_have_the_values_of_metrics_md() -> None:
    assert ettr.mttf_s(1024, 1e-4) == pytest.approx(3600 / 0.1024)
    assert ettr.young_s(10, 3600) == pytest.approx(math.sqrt(72_000))
    daly = math.sqrt(72_000) * (1 + math.sqrt(10 / 7200) / 3 + 10 / (18 * 3600)) - 10
    assert ettr.daly_s(10, 3600) == pytest.approx(daly)
    assert ettr.daly_s(10, 5) == 5
    model = 300 / (3600 * math.exp(60 / 3600) * (math.exp(310 / 3600) - 1))
    assert ettr.ettr(300, 10, 60, 3600) == pytest.approx(model)


def test_without_failures_only_checkpoints_cost() -> None:
    assert (ettr.mttf_s(4, 0), ettr.ettr(90, 10, 60, math.inf)) == (math.inf, 0.9)


def test_where_nothing_ever_ends_nothing_is_useful() -> None:
    assert ettr.ettr(1000, 10, 60, 1) == 0.0


@pytest.mark.parametrize("cost", [1e-3, 1.0, 60.0])
@pytest.mark.parametrize("mttf", [30.0, 3600.0, 1e6])
def test_no_interval_beats_the_best_one(cost: float, mttf: float) -> None:
    best = ettr.best_s(cost, mttf)
    around = [ettr.ettr(best * share, cost, 5.0, mttf) for share in (0.9, 0.99, 1.01, 1.1)]
    assert 0 < best < mttf
    assert max(around) < ettr.ettr(best, cost, 5.0, mttf)


# Shares of M: cost, restart; and of the best interval.
GRID = [
    (cost, restart, share)
    for cost in (1e-4, 0.01, 0.5)
    for restart in (0.0, 0.01, 0.5, 2.0)
    for share in (0.4, 1.0)
]


def test_the_simulation_agrees_with_the_renewal_model_within_one_per_cent() -> None:
    worst = 0.0
    for cost, restart, share in GRID:
        interval = share * ettr.best_s(cost, 1.0)
        found = ettr.simulate(interval, cost, restart, 1.0)
        assert found.ettr is not None and found.error is not None
        assert found.error / found.ettr < 0.0025
        worst = max(worst, abs(found.ettr / ettr.ettr(interval, cost, restart, 1.0) - 1))
    assert worst < 0.01


def test_a_simulation_says_when_it_cannot_end_and_is_the_same_again() -> None:
    assert (
        ettr.simulate(20.0, 1.0, 1.0, 1.0).why
        == "an interval or a restart would be tried more than 2000 times"
    )
    assert ettr.simulate(1.0, 0.1, 0.1, 5.0) == ettr.simulate(1.0, 0.1, 0.1, 5.0)
    assert ettr.simulate(1.0, 0.1, 0.1, 5.0) != ettr.simulate(1.0, 0.1, 0.1, 5.0, seed=7)


# --- from a results file --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recovery_factory.soak(6).write(tmp_path_factory.mktemp("soak") / "r.h5")


def test_costs_are_the_medians_that_were_measured(soak: Path) -> None:
    with load(soak) as results:
        checkpoint = costs.checkpoint_s(results)
        assert (checkpoint.value, checkpoint.n) == (pytest.approx(0.02), 57)


def test_each_policy_is_projected_with_its_own_restart(
    soak: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(soak), "--failure-rate-per-node-hour", "1e-4", "--nodes", "64,16384", "--json"]
    assert project.main(given) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["stamp"] == "emulated"
    found = {p["policy"]: p["inputs"]["restart_s"] for p in data["projected"]}
    assert found == {
        policy: {"value": pytest.approx(restart), "source": "measured, median of 6"}
        for policy, restart in (("new-step", 1.15), ("requeue", 6.55), ("warm-restart", 0.23))
    }
    for p in data["projected"]:
        for row in p["projections"]:
            assert row["mttf_s"] == pytest.approx(3600 / (row["nodes"] * 1e-4))
            assert row["simulated"]["ettr"] == pytest.approx(row["ettr_best"], rel=0.01)


def test_workloads_of_one_policy_are_projected_each_with_its_own_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = factory.Campaign()
    recovery_factory.soaked(campaign, "new-step", 3, factory.START_NS)
    recovery_factory.soaked(
        campaign, "new-step", 3, factory.START_NS + 2000 * factory.S, case_id="slow", workload="mpi.halo"
    )
    for fault in campaign.tables["faults"]:
        if fault["case_id"] == "slow":
            fault["first_step_wall_ns"] += 10 * factory.S
    taken = campaign.samples["mpi.halo", "checkpoints"]
    taken["checkpoint_time_ns"] = [3 * times for times in taken["checkpoint_time_ns"]]
    given = [str(campaign.write(tmp_path / "r.h5")), "--failure-rate-per-node-hour", "1e-4", "--nodes", "64"]
    assert project.main([*given, "--json"]) == 0
    found = {
        (p["policy"], p["workload"]): tuple(
            p["inputs"][name]["value"] for name in ("checkpoint_s", "restart_s")
        )
        for p in json.loads(capsys.readouterr().out)["projected"]
    }
    assert found == {
        ("new-step", "mpi.halo"): (pytest.approx(0.06), pytest.approx(11.15)),
        ("new-step", "torch.train"): (pytest.approx(0.02), pytest.approx(1.15)),
    }
    assert project.main(given) == 0
    assert "\npolicy new-step, workload torch.train\n" in capsys.readouterr().out


def test_a_rate_that_was_not_measured_must_be_given(soak: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.main([str(soak)]) == 2
    words = capsys.readouterr().err
    assert "the failure rate is unknown: no failure but those commanded in" in words
    assert "with 95 % confidence; give it with --failure-rate-per-node-hour" in words


def test_failures_that_nobody_commanded_are_the_rate(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.find("attempts", case_id="train-r0").update(outcome="node_lost")
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = costs.failures(results)
    hours = 2 * (6 + 5 + 4) / 3600
    assert (found.count, found.node_hours, found.rate) == (1, pytest.approx(hours), pytest.approx(1 / hours))
    assert found.most == pytest.approx(4.744 / hours, rel=1e-3)  # of a Poisson count of 1, one-sided 95 %


@pytest.mark.parametrize(
    "option, value, words",
    [
        ("--nodes", "64,0", "64,0 must be counts of nodes from 1 to 1,000,000, such as 64,1024,16384"),
        ("--failure-rate-per-node-hour", "0", "0 must be a number above 0"),
        ("--restart-s", "-1", "-1 must be 0 or above"),
    ],
)
def test_a_bad_option_is_named(
    option: str, value: str, words: str, soak: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        project.main([str(soak), f"{option}={value}"])
    assert error.value.code == 2
    assert words in capsys.readouterr().err
