"""Gates: what is judged, what is for information, and what cannot be said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis import collectives, gates
from analysis.results import load
from analysis.verdict import judge
from harness.model.verdict import Verdict
from tests.unit import results_factory as factory
from tests.unit.results_tables import S


def judged(
    gate: dict[str, Any],
    folder: Path,
    change: Callable[[factory.Campaign], None] = lambda _: None,
    **attributes: Any,
) -> gates.GateResult:
    """One gate on a case of 2 ranks, 10 steps of 10 to 19 ms (rank 1: 1 ms more) and losses of 5.0 to 4.1."""
    campaign = factory.Campaign()
    campaign.attributes.update({"emulated": False, **attributes})
    case = campaign.case("c", nodes=2, steps=10, warmup_steps=2, workload="torch.train", gates=[gate])
    attempt = campaign.attempt(case, ["n1", "n2"], factory.START_NS, factory.START_NS + S)
    for rank in (0, 1):
        steps = list(range(10))
        campaign.record(
            case, attempt, rank, "steps", step=steps, start_mono_ns=steps, tokens=256,
            step_time_ns=[(10 + s + rank) * 1_000_000 for s in steps], loss=[5.0 - 0.1 * s for s in steps],
        )  # fmt: skip
        for size in (1000, 2000):
            campaign.record(
                case, attempt, rank, "collectives", step=steps, message_bytes=size,
                elapsed_ns=[size * (1 + rank) for _ in steps],
            )  # fmt: skip
    change(campaign)
    with load(campaign.write(folder / "r.h5")) as results:
        return gates.check(results, results.cases[0], json.loads(results.cases[0]["gates"])[0])


def gate(metric: str, statistic: str, **limits: Any) -> dict[str, Any]:
    return {"metric": metric, "statistic": statistic, "minimum": None, "maximum": None, "where": {}, **limits}


SLOW = gate("step_time_ns", "median", maximum=14_000_000)
LOSS = gate("loss", "min", maximum=3.0)


@pytest.mark.parametrize("metric", ["algorithm_bandwidth_bytes_per_s", "bus_bandwidth_bytes_per_s"])
def test_a_bandwidth_of_one_rank_is_not_judged(metric: str, tmp_path: Path) -> None:
    campaign = factory.Campaign()
    campaign.attributes["emulated"] = False
    case = factory.allreduce(campaign, 1, 0, factory.START_NS)
    case["gates"] = json.dumps([gate(metric, "median", minimum=1e7)])
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = gates.check(results, results.cases[0], json.loads(case["gates"])[0])
    assert found == gates.GateResult(None, f"gate median {metric} does not apply: one rank sends nothing")


def test_a_gate_of_a_time_is_judged_over_the_slowest_rank_of_each_step_after_the_warm_up(
    tmp_path: Path,
) -> None:
    assert judged(SLOW, tmp_path) == gates.GateResult(
        Verdict.FAIL,
        "gate median step_time_ns: 16.5 ms over 8 samples, limit at most 14.0 ms: does not hold",
    )


@pytest.mark.parametrize(
    "statistic, value", [("median", "16.5 ms"), ("mean", "16.5 ms"), ("min", "13.0 ms"), ("max", "20.0 ms"),
                         ("p95", "19.7 ms")],
)  # fmt: skip
def test_each_statistic(statistic: str, value: str, tmp_path: Path) -> None:
    found = judged(gate("step_time_ns", statistic, minimum=1), tmp_path)
    assert found == gates.GateResult(
        Verdict.PASS, f"gate {statistic} step_time_ns: {value} over 8 samples, limit at least 1.00 ns: holds"
    )


@pytest.mark.parametrize(
    "attribute, stamp", [("emulated", "emulated"), ("oversubscribed", "more ranks than cores")]
)
def test_performance_judges_nothing_where_it_means_nothing(
    attribute: str, stamp: str, tmp_path: Path
) -> None:
    assert judged(SLOW, tmp_path, lambda _: None, **{attribute: True}) == gates.GateResult(
        None,
        "gate median step_time_ns: 16.5 ms over 8 samples, limit at most 14.0 ms: would not hold "
        f"({stamp}: for information)",
    )


def test_performance_is_unknown_where_nobody_says_whether_the_cluster_is_real(tmp_path: Path) -> None:
    assert judged(SLOW, tmp_path, emulated="perhaps").verdict is Verdict.UNKNOWN


def test_an_answer_is_judged_on_an_emulated_cluster_too(tmp_path: Path) -> None:
    assert judged(LOSS, tmp_path, emulated=True) == gates.GateResult(
        Verdict.FAIL, "gate min loss: 4.1 over 16 samples, limit at most 3: does not hold"
    )


def test_where_chooses_the_samples(tmp_path: Path) -> None:
    chosen = gate("elapsed_ns", "max", maximum=1e9, where={"message_bytes": 2000})
    assert judged(chosen, tmp_path).words == (
        "gate max elapsed_ns (message_bytes = 2000): 4.00 µs over 8 samples, limit at most 1.00 s: holds"
    )


def test_a_bandwidth_is_that_of_the_slowest_rank(tmp_path: Path) -> None:
    chosen = gate("algorithm_bandwidth_bytes_per_s", "median", minimum=4e8, where={"message_bytes": 2000})
    found = judged(chosen, tmp_path)  # 2000 bytes in 4000 ns
    assert (found.verdict, "500 MB/s over 8 samples" in found.words) == (Verdict.PASS, True)


@pytest.mark.parametrize(
    "where, said", [({"rank": 0}, "15.5 ms over 8 samples"), ({"step": 5}, "16.0 ms over 1 sample,")]
)
def test_of_chosen_ranks_and_steps_the_time_is_theirs(
    where: dict[str, int], said: str, tmp_path: Path
) -> None:
    assert said in judged(gate("step_time_ns", "median", maximum=1e9, where=where), tmp_path).words


def test_a_step_that_a_rank_did_not_report_is_left_out(tmp_path: Path) -> None:
    def made(campaign: factory.Campaign) -> None:
        rank_1 = campaign.samples["torch.train", "steps"]
        for name, arrays in rank_1.items():
            rank_1[name] = [arrays[0], arrays[1][:-1]]

    assert (
        "max step_time_ns: 19.0 ms over 7 samples"
        in judged(gate("step_time_ns", "max", maximum=1e9), tmp_path, change=made).words
    )


def test_the_median_bandwidth_is_that_of_the_median_time(tmp_path: Path) -> None:
    campaign = factory.Campaign()
    campaign.attributes["emulated"] = False
    case = campaign.case("c", workload="torch.collectives", nodes=2, steps=4, warmup_steps=0)
    attempt = campaign.attempt(case, ["n1", "n2"], factory.START_NS, factory.START_NS + S)
    for rank in (0, 1):
        times = [1000, 1000, 99_000, 99_000]  # 50 us in the median
        campaign.record(
            case, attempt, rank, "collectives", step=range(4), message_bytes=1000, elapsed_ns=times
        )
    asked = gate("algorithm_bandwidth_bytes_per_s", "median")
    with load(campaign.write(tmp_path / "r.h5")) as results:
        (measured,) = collectives.analyse(results)
        (curve,) = collectives.curves(results)
        found = [
            gates.figure(results, results.cases[0], asked)[0],
            measured.algorithm_bandwidth_bytes_per_s and measured.algorithm_bandwidth_bytes_per_s.median,
            measured.bus_bandwidth_bytes_per_s and measured.bus_bandwidth_bytes_per_s.median,
            curve.places[0].algorithm_bandwidth_bytes_per_s,
        ]
    assert found == pytest.approx([2e7] * 4)


@pytest.mark.parametrize("metric", ["elapsed_ns", "algorithm_bandwidth_bytes_per_s"])
def test_sizes_are_not_pooled(metric: str, tmp_path: Path) -> None:
    asked = gate(metric, "median", minimum=1)
    assert judged(asked, tmp_path) == gates.GateResult(
        Verdict.UNKNOWN,
        f"gate median {metric} cannot be judged: it has samples at message_bytes = 1000 and 2000, which no figure "
        "pools; choose one, where: {message_bytes: 1000}, or write one for each",
    )


def test_a_programs_time_is_that_of_its_longest_rank(tmp_path: Path) -> None:
    campaign = factory.Campaign()
    campaign.attributes["emulated"] = False
    case = campaign.case("c", workload="command", group="g", nodes=2, steps=1, warmup_steps=0)
    attempt = campaign.attempt(case, ["n1", "n2"], factory.START_NS, factory.START_NS + S)
    for rank in (0, 1):
        campaign.record(case, attempt, rank, "program", program_time_ns=[(1 + rank) * S], exit_code=[0])
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = gates.figure(results, results.cases[0], gate("program_time_ns", "median"))
    assert found == (2 * S, 1, "ns")


@pytest.mark.parametrize(
    "which, why",
    [
        (gate("gpu_power_w", "median", maximum=1), "torch.train recorded no gpu_power_w"),
        (
            gate("loss", "median", maximum=1, where={"step": 1}),
            "no sample is left after the warm-up and its filter",
        ),
        (gate("loss", "median", maximum=1, where={"colour": 1}), "its samples have no column colour"),
        (gate("loss", "p12", maximum=1), "no statistic 'p12'; there are median, mean, min, max, p95"),
        (
            gate("bus_bandwidth_bytes_per_s", "median", minimum=1, where={"rank": 0}),
            "a bandwidth can be chosen by message_bytes only, not by ['rank']",
        ),
    ],
)
def test_what_cannot_be_computed_is_unknown_with_the_reason(
    which: dict[str, Any], why: str, tmp_path: Path
) -> None:
    found = judged(which, tmp_path)
    assert found == gates.GateResult(Verdict.UNKNOWN, f"gate {gates.words(which)} cannot be judged: {why}")


def test_a_gate_that_limits_nothing_is_unknown(tmp_path: Path) -> None:
    assert judged(gate("loss", "min"), tmp_path).verdict is Verdict.UNKNOWN


def test_a_gate_decides_the_verdict_of_its_case(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.find("cases", case_id="train-r0")["gates"] = json.dumps([LOSS])
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = judge(results)[0]
    assert (found.verdict, found.why) == (
        Verdict.FAIL,
        "gate min loss: 5 over 74 samples, limit at most 3: does not hold",
    )
