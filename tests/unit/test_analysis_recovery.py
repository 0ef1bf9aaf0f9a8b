"""The time line of a fault, and what it cost, from stamps that are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import results_factory as factory
from results_factory import S

from analysis import recovery
from analysis.load import load
from analysis.recovery import Lost, Recovery, Stamp, wilson


def one_fault() -> factory.Campaign:
    """Two ranks, 100 ms a step: 0 to 5 in attempt 0, lost 50 ms into step 6; then 4 to 9 on other nodes."""
    campaign = factory.Campaign()
    fault = {"fault_id": "f0", "kind": "node.power_off", "requested_kind": "node.power_off", "target_node": 1,
             "at_step": 5, "expect": "recovered"}  # fmt: skip
    case = campaign.case("c", group="g", nodes=2, steps=10, warmup_steps=0, faults=[fault])
    begin, step = factory.START_NS, S // 10
    first = campaign.attempt(case, ["n1", "n2"], begin, begin + S, outcome="node_lost", last_step=5)
    again = campaign.attempt(case, ["n1", "n3"], begin + 3 * S, begin + 4 * S, first_step=4, restored_step=4)
    for attempt, numbers, start in ((first, range(6), begin), (again, range(4, 10), begin + 3 * S)):
        for rank in (0, 1):
            starts = [factory.mono(start) + i * step for i in range(len(numbers))]
            campaign.record(
                case, attempt, rank, "steps", step=list(numbers), start_mono_ns=starts, step_time_ns=step
            )
    t1 = begin + 6 * step + S // 20
    for host in ("n1", "n2", "n3"):
        campaign.event(case, 0, -1, "agent.connected", begin, host)
    campaign.add(
        "faults", fault_id="f0", case_id="c", attempt=0, kind="node.power_off", requested_kind="node.power_off",
        target="n2", at_step=5, expect="recovered", requested=True, observed=True, healed=True,
        requested_wall_ns=t1 - step, injected_wall_ns=t1, observed_wall_ns=t1 + 2 * step, detected_wall_ns=t1 + step,
        first_step_wall_ns=t1 + 25 * step, recovered_wall_ns=t1 + 27 * step, healed_wall_ns=t1 + 50 * step,
        evidence='{"how": "power command"}',
    )  # fmt: skip
    return campaign


def told(campaign: factory.Campaign, folder: Path) -> Recovery:
    with load(campaign.write(folder / "r.h5")) as results:
        (found,) = recovery.analyse(results)
    return found


def test_everything_is_told_relative_to_the_injection(tmp_path: Path) -> None:
    t1 = factory.START_NS + 650_000_000
    assert told(one_fault(), tmp_path) == Recovery(
        "c", "g/n2/r0", "f0", "node.power_off", "node.power_off", "n2", 5, "recovered", True, True, True, "t1",
        (
            Stamp("t0", "requested", t1 - S // 10, -0.1, ""),
            Stamp("t1", "injected", t1, 0.0, ""),
            Stamp("t1v", "effect observed", t1 + S // 5, 0.2, ""),
            Stamp("t2", "detected", t1 + S // 10, 0.1, ""),
            Stamp("t7", "first new step", t1 + 5 * S // 2, 2.5, ""),
            Stamp("t8", "recovered: past the highest step before", t1 + 27 * S // 10, 2.7, ""),
            Stamp("healed", "healed", t1 + 5 * S, 5.0, ""),
        ),
        0.1, 2.5, 2.7, None, 1, 0,
        # two ranks did steps 4 and 5 again, 0.1 s each, and each lost 0.05 s of step 6
        Lost(2, 4, 5, pytest.approx(0.5), "partial step included"),
        (("how", "power command"),),
    )  # fmt: skip


def test_a_stamp_that_nobody_recorded_is_unknown(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["faults"][0].update(detected_wall_ns=0, recovered_wall_ns=0)
    found = told(campaign, tmp_path)
    assert (found.detection_s, found.time_to_recover_s, found.stamp("t2").why) == (None, None, "not recorded")


def test_a_negative_latency_is_invalid_and_no_number(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["faults"][0]["detected_wall_ns"] -= S
    found = told(campaign, tmp_path)
    assert (found.detection_s, found.stamp("t2").why) == (
        None,
        "invalid: 900 ms before the fault, so the clocks disagree",
    )


def test_without_a_record_of_the_injection_the_request_bounds_the_time_to_recover(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["faults"][0]["injected_wall_ns"] = 0
    found = told(campaign, tmp_path)
    assert (found.origin, found.detection_s, found.time_to_recover_s) == ("t0", None, None)
    assert (found.time_to_recover_bound_s, found.took) == (pytest.approx(2.8), "in at most 2.80 s")
    assert found.lost.words == "partial step not included: when it was injected is not recorded"


def test_without_request_and_injection_nothing_is_relative(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["faults"][0].update(injected_wall_ns=0, requested_wall_ns=0)
    found = told(campaign, tmp_path)
    assert {s.why for s in found.stamps} == {"not recorded", "neither request nor injection is recorded"}
    assert found.took == "after an unknown time"


def test_an_attempt_that_did_no_step_did_none_again(tmp_path: Path) -> None:
    campaign = one_fault()
    case = campaign.find("cases", case_id="c")
    campaign.find("attempts", index=1)["index"] = 2
    row = campaign.attempt(case, ["n1", "n3"], factory.START_NS + 2 * S, 0, outcome="lost")
    row["index"] = 1
    assert told(campaign, tmp_path).lost.steps == 2


def test_a_rank_without_a_clock_is_named_in_the_lost_work(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["events"] = [e for e in campaign.tables["events"] if e["host"] != "n2"]
    assert told(campaign, tmp_path).lost == Lost(
        2, 4, 5, pytest.approx(0.45), "partial step included, but for 1 rank without a clock"
    )


def test_no_following_attempt_loses_an_unknown_amount(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["attempts"].pop()
    assert told(campaign, tmp_path).lost == Lost(None, -1, -1, None, "no attempt followed")


@pytest.mark.parametrize(
    "k, n, expected",
    [(0, 0, (0.0, 1.0)), (3, 3, (0.4385, 1.0)), (8, 10, (0.4902, 0.9433)), (0, 10, (0.0, 0.2775))],
)
def test_wilson_interval(k: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson(k, n) == pytest.approx(expected, abs=1e-4)


def test_overview_counts_observed_faults_and_those_that_never_recovered(tmp_path: Path) -> None:
    campaign = factory.quickstart(repeats=3)
    campaign.tables["faults"][0]["observed"] = False
    campaign.tables["faults"][1]["recovered_wall_ns"] = 0
    with load(campaign.write(tmp_path / "r.h5")) as results:
        found = recovery.overview(recovery.analyse(results))
    assert found == {
        "faults": 3, "counted": 2, "recovered": 1, "never_recovered": 1,
        "rate_95": [pytest.approx(0.0945, abs=1e-4), pytest.approx(0.9055, abs=1e-4)],
        "time_to_recover_s": {"p50": 9.0, "p95": 9.0, "max": 9.0, "n": 1},
    }  # fmt: skip


def test_words_name_both_attempts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(one_fault().write(tmp_path / "r.h5"))
    assert recovery.main([path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "g/n2/r0: f0, node.power_off on n2 at step 5, expected: recovered",
        "  requested, observed, healed",
    ]
    assert lines[-2:] == [
        "  attempt 0 (job 101) on n1,n2: steps 0 to 5, node_lost",
        "  attempt 1 (job 102) on n1,n3: steps 4 to 9, completed",
    ]
    assert recovery.main([path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overview"]["recovered"] == 1
