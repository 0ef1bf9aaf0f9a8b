"""The time line of a fault, and what it cost, from stamps that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis import recovery
from analysis.buckets import Bucket
from analysis.lost import Lost
from analysis.recovery import Recovery
from analysis.results import load
from analysis.spread import wilson
from analysis.stamps import Stamp
from tests.unit import results_factory as factory
from tests.unit.results_tables import Row, S, mono

NO_START = "until attempt 1 began: nobody wrote when its job did"


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
            starts = [mono(start) + i * step for i in range(len(numbers))]
            campaign.record(
                case, attempt, rank, "steps", step=list(numbers), start_mono_ns=starts, step_time_ns=step
            )
    t1 = begin + 6 * step + S // 20
    for host in ("n1", "n2", "n3"):
        campaign.event(case, 0, -1, "agent.connected", begin, host)
    campaign.add(
        "faults", fault_id="f0", case_id="c", attempt=0, kind="node.power_off", requested_kind="node.power_off",
        target="node n2", nodes='["n2"]', at_step=5, trigger="step 5",
        policy="requeue", expect="recovered", requested=True, observed=True, healed=True,
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
        "c", "g/n2/r0", "f0", "node.power_off", "node.power_off", "node n2", ("n2",), "step 5", "", "recovered",
        "requeue", True, True, True, True, "", "", "t1",
        (
            Stamp("t0", "requested", t1 - S // 10, -0.1, ""),
            Stamp("t1", "injected", t1, 0.0, ""),
            Stamp("t1v", "effect observed", t1 + S // 5, 0.2, ""),
            Stamp("t2", "detected", t1 + S // 10, 0.1, ""),
            Stamp("t3", "the right target blamed", 0, None, "not recorded"),
            Stamp("t4", "the broken step left", 0, None, "not recorded"),
            Stamp("t5", "new processes running", 0, None, "not recorded"),
            Stamp("t6", "state loaded", 0, None, "not recorded"),
            Stamp("t7", "first new step", t1 + 5 * S // 2, 2.5, ""),
            Stamp("t8", "recovered: past the highest step before", t1 + 27 * S // 10, 2.7, ""),
            Stamp("t9", "step times as before", 0, None, "fewer than 20 undisturbed steps to compare with"),
            Stamp("healed", "healed", t1 + 5 * S, 5.0, ""),
        ),
        0.1, None, 2.5, 2.7, None, None, 1, 0,
        # two ranks did steps 4 and 5 again, 0.1 s each, and each lost 0.05 s of step 6
        Lost(2, 4, 5, pytest.approx(0.5), "partial step included"),
        (
            Bucket("detect", "until the broken attempt had ended", 0.35, ""),
            Bucket("queue", "waiting for Slurm to run the job again", 2.0, NO_START),
            Bucket("start", "start and load, to the first new step", 0.15, ""),
            Bucket("recompute", "until past the highest step before", 0.2, ""),
        ),
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


# --- where the time went ------------------------------------------------------------------------------------


def shares(campaign: factory.Campaign, folder: Path) -> list[tuple[float | None, str]]:
    """Seconds and reason of detect, queue, start and recompute; what is known adds up to the time to recover."""
    found = told(campaign, folder)
    assert [b.name for b in found.buckets] == ["detect", "queue", "start", "recompute"]
    times = [b.time_s for b in found.buckets]
    if found.time_to_recover_s is not None and None not in times[1:]:
        assert sum(t or 0 for t in times) == pytest.approx(found.time_to_recover_s)
    return [(None if t is None else round(t, 6), b.why) for t, b in zip(times, found.buckets, strict=True)]


def hit_and_next(campaign: factory.Campaign) -> tuple[Row, Row]:
    first, again = campaign.tables["attempts"]
    return first, again


def test_the_queue_ends_when_the_job_of_the_next_attempt_begins(tmp_path: Path) -> None:
    campaign = one_fault()
    first, again = hit_and_next(campaign)
    again.update(job_key=first["job_key"], slurm_job_id=first["slurm_job_id"], restart=1)
    for attempt, wall_ns in ((first, -S), (again, 2 * S)):
        factory.started(campaign, attempt, factory.START_NS + wall_ns)
    campaign.event(None, -1, -1, "job.started", factory.START_NS + S, "n1", job_id="another", restart=1)
    campaign.event(None, -1, -1, "job.started", factory.START_NS + S, "n1", job_id=first["slurm_job_id"])
    assert shares(campaign, tmp_path) == [(0.35, ""), (1.0, ""), (1.15, ""), (0.2, "")]
    assert told(campaign, tmp_path).restart_work_s == pytest.approx(1.7)


def test_the_queue_of_a_local_job_is_found_by_its_key_and_is_not_slurms(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.attributes["launcher"] = "local"
    again = hit_and_next(campaign)[1]
    again.update(job_key="0001", slurm_job_id="", restart=1)
    campaign.event(
        None, -1, -1, "job.started", factory.START_NS + 2 * S, "n1", job_id="local-0001", restart=1
    )
    found = told(campaign, tmp_path).buckets[1]
    assert found == Bucket("queue", "waiting for the job to run again", 1.0, "")


def test_without_the_end_of_the_broken_attempt_the_queue_begins_at_the_injection(tmp_path: Path) -> None:
    campaign = one_fault()
    hit_and_next(campaign)[0]["end_wall_ns"] = 0
    assert shares(campaign, tmp_path) == [
        (None, "it is part of the queue: nobody wrote when attempt 0 ended"),
        (2.35, f"from the injection on: nobody wrote when attempt 0 ended; {NO_START}"),
        (0.15, ""),
        (0.2, ""),
    ]


def test_without_the_injection_the_detection_is_unknown_and_the_rest_is_not(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["faults"][0]["injected_wall_ns"] = 0
    expected = [(None, "when it was injected is not recorded"), (2.0, NO_START), (0.15, ""), (0.2, "")]
    assert shares(campaign, tmp_path) == expected
    assert told(campaign, tmp_path).restart_work_s is None


def test_without_injection_and_end_the_queue_is_unknown_too(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["faults"][0]["injected_wall_ns"] = 0
    hit_and_next(campaign)[0]["end_wall_ns"] = 0
    missing = "nobody wrote when attempt 0 ended"
    expected = [(None, missing), (None, f"{missing}; {NO_START}"), (0.15, ""), (0.2, "")]
    assert shares(campaign, tmp_path) == expected


def test_each_wait_of_several_attempts_is_queue(tmp_path: Path) -> None:
    """Attempt 1 went on for 0.85 s after its first step; attempt 2 waited 0.5 s and needed 0.3 s more."""
    campaign = one_fault()
    case = campaign.find("cases", case_id="c")
    second = hit_and_next(campaign)[1]
    campaign.attempt(case, ["n1", "n3"], factory.START_NS + 4500 * S // 1000, factory.START_NS + 6 * S)
    campaign.tables["faults"][0]["recovered_wall_ns"] = factory.START_NS + 4800 * S // 1000
    third = "until attempt 2 began: nobody wrote when its job did"
    assert shares(campaign, tmp_path) == [(0.35, ""), (2.5, f"{NO_START}; {third}"), (0.15, ""), (1.15, "")]
    second["end_wall_ns"] = 0
    assert shares(campaign, tmp_path) == [
        (0.35, ""),
        (None, f"{NO_START}; nobody wrote when attempt 1 ended; {third}"),
        (0.15, ""),
        (None, "nobody wrote when an attempt between ended"),
    ]


def test_an_attempt_after_the_recovery_is_no_part_of_it(tmp_path: Path) -> None:
    campaign = one_fault()
    begin = factory.START_NS + 9 * S
    campaign.attempt(campaign.find("cases", case_id="c"), ["n1", "n3"], begin, begin + S)
    assert shares(campaign, tmp_path) == [(0.35, ""), (2.0, NO_START), (0.15, ""), (0.2, "")]


def test_a_job_that_goes_on_waits_for_nobody(tmp_path: Path) -> None:
    campaign = one_fault()
    first, again = hit_and_next(campaign)
    again.update(job_key=first["job_key"], slurm_job_id=first["slurm_job_id"], epoch=1)
    assert shares(campaign, tmp_path) == [(0.35, ""), (0.0, "its job went on"), (2.15, ""), (0.2, "")]


def test_what_never_recovered_says_which_bucket_is_open(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["faults"][0]["recovered_wall_ns"] = 0
    never = (None, "it never passed the step reached before")
    assert shares(campaign, tmp_path) == [(0.35, ""), (2.0, NO_START), (0.15, ""), never]
    campaign.tables["faults"][0]["first_step_wall_ns"] = 0
    no_step = (None, "no new step is recorded")
    assert shares(campaign, tmp_path) == [(0.35, ""), (2.0, NO_START), no_step, never]
    campaign.tables["attempts"].pop()
    nothing = (None, "no attempt followed")
    assert shares(campaign, tmp_path) == [(0.35, ""), nothing, nothing, nothing]


def test_clocks_that_disagree_give_no_bucket(tmp_path: Path) -> None:
    campaign = one_fault()
    factory.started(campaign, hit_and_next(campaign)[1], factory.START_NS + S // 2)
    bad = (None, "invalid: a stamp is 500 ms before the one it follows, so the clocks disagree")
    assert shares(campaign, tmp_path) == [bad] * 4


def test_what_was_refused_and_what_is_unhealed_say_why(tmp_path: Path) -> None:
    campaign = one_fault()
    said = {
        "fault.refused": {"why": "power off failed"},
        "fault.unhealed": {"evidence": {"why": "not seen to be healed within 60 s"}},
    }
    campaign.tables["faults"][0].update(
        observed=False, observed_wall_ns=0, healed=False, healed_wall_ns=0, evidence=json.dumps(said)
    )
    found = told(campaign, tmp_path)
    assert (found.stamp("t1v").why, found.stamp("healed").why) == (
        "refused, it could not be done: power off failed",
        "unhealed, it was tried: not seen to be healed within 60 s",
    )


def test_a_recovery_of_bounded_length_counts_as_one_and_has_no_time(tmp_path: Path) -> None:
    campaign = one_fault()
    campaign.tables["faults"][0]["injected_wall_ns"] = 0
    assert recovery.overview([told(campaign, tmp_path)]) == {
        "faults": 1, "counted": 1, "recovered": 1, "never_recovered": 0,
        "rate_95": [pytest.approx(0.2065, abs=1e-4), 1.0],
    }  # fmt: skip


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
        "queue_s": dict.fromkeys(("p50", "p95", "max"), pytest.approx(5.831521882)) | {"n": 1},
        "restart_work_s": dict.fromkeys(("p50", "p95", "max"), pytest.approx(3.168478118)) | {"n": 1},
    }  # fmt: skip


def test_words_name_both_attempts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(one_fault().write(tmp_path / "r.h5"))
    assert recovery.main([path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "g/n2/r0: f0, node.power_off on node n2 at step 5, expected: recovered",
        "  requested, observed, healed",
    ]
    assert lines[16:25] == [
        "  time to restart                                  2.50 s",
        "  time to recover                                  2.70 s",
        "  degraded tail                                    unknown",
        "    detect: until the broken attempt had ended     350 ms",
        f"    queue: waiting for Slurm to run the job again  2.00 s ({NO_START})",
        "    start: start and load, to the first new step   150 ms",
        "    recompute: until past the highest step before  200 ms",
        "  restart work: all of it but the queue            700 ms",
        "  lost work                                        2 steps, 0.500 rank-seconds (partial step included)",
    ]
    assert lines[-5:] == [
        "",
        "all faults: 1 of 1 that were observed recovered (95 %: 20.7 % to 100.0 %), 0 never",
        "  time to recover                                  median 2.70 s, p95 2.70 s, longest 2.70 s, n=1",
        "  queue: of it waiting                             median 2.00 s, p95 2.00 s, longest 2.00 s, n=1",
        "  restart work: the rest                           median 700 ms, p95 700 ms, longest 700 ms, n=1",
    ]
    assert lines[25:27] == [
        "  attempt 0 (job 101) on n1,n2: steps 0 to 5, node_lost",
        "  attempt 1 (job 102) on n1,n3: steps 4 to 9, completed",
    ]
    assert recovery.main([path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overview"]["recovered"] == 1
