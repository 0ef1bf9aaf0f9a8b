"""Gates: what is judged, what is for information, and what cannot be said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import results_factory as factory
from results_factory import S

from analysis import gates
from analysis.load import load
from analysis.verdict import judge
from harness.model.verdict import Verdict


def judged(gate: dict[str, Any], folder: Path, **attributes: Any) -> gates.GateResult:
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


def test_a_gate_is_judged_over_the_samples_after_the_warm_up_of_all_ranks(tmp_path: Path) -> None:
    assert judged(SLOW, tmp_path) == gates.GateResult(
        Verdict.FAIL,
        "gate median step_time_ns: 16.0 ms over 16 samples, limit at most 14.0 ms: does not hold",
    )


@pytest.mark.parametrize(
    "statistic, value", [("median", "16.0 ms"), ("mean", "16.0 ms"), ("min", "12.0 ms"), ("max", "20.0 ms"),
                         ("p95", "19.2 ms")],
)  # fmt: skip
def test_each_statistic(statistic: str, value: str, tmp_path: Path) -> None:
    found = judged(gate("step_time_ns", statistic, minimum=1), tmp_path)
    assert found == gates.GateResult(
        Verdict.PASS, f"gate {statistic} step_time_ns: {value} over 16 samples, limit at least 1.00 ns: holds"
    )


@pytest.mark.parametrize(
    "attribute, stamp", [("emulated", "emulated"), ("oversubscribed", "more ranks than cores")]
)
def test_performance_judges_nothing_where_it_means_nothing(
    attribute: str, stamp: str, tmp_path: Path
) -> None:
    assert judged(SLOW, tmp_path, **{attribute: True}) == gates.GateResult(
        None,
        "gate median step_time_ns: 16.0 ms over 16 samples, limit at most 14.0 ms: would not hold "
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
        "gate max elapsed_ns (message_bytes = 2000): 4.00 µs over 16 samples, limit at most 1.00 s: holds"
    )


def test_a_bandwidth_is_that_of_the_slowest_rank(tmp_path: Path) -> None:
    chosen = gate("algorithm_bandwidth_bytes_per_s", "median", minimum=4e8, where={"message_bytes": 2000})
    found = judged(chosen, tmp_path)  # 2000 bytes in 4000 ns
    assert (found.verdict, "500 MB/s over 8 samples" in found.words) == (Verdict.PASS, True)


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
