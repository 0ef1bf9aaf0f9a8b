"""Every rule of judgement is seen to fire, on a campaign that passes and is made wrong in one place."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import results_factory as factory
from results_factory import Campaign

from analysis import rules
from analysis.results import load
from analysis.verdict import CaseVerdict, judge, main
from analysis.view import View
from harness.model.verdict import Verdict

TWIN, FAULTY = "train-r0", "train-fault-r0"


def verdicts(campaign: Campaign, folder: Path) -> dict[str, CaseVerdict]:
    """Judge a campaign through its file."""
    with load(campaign.write(folder / "results.h5")) as results:
        return {v.case_id: v for v in judge(results)}


def test_a_campaign_that_is_right_passes_with_all_its_evidence(tmp_path: Path) -> None:
    found = verdicts(factory.small(), tmp_path)
    assert found == {
        TWIN: CaseVerdict(
            TWIN, "train/n2/r0", Verdict.PASS, "4.17 k tokens/s, 123 ms a step, n=37",
            "2 checks of the answer hold on both ranks",
            (
                "completed in attempt 0, 1 attempt in all",
                "2 ranks on n1, n2",
                "pass: 2 checks of the answer hold on both ranks",
                "2 streams of samples, whole",
            ),
        ),
        FAULTY: CaseVerdict(
            FAULTY, "train-fault/n2/r0", Verdict.PASS,
            "recovered from 1 fault in 9.00 s (5.83 s of it in the queue), 1 restart",
            "fault f0 (node.power_off on node n2) requested, observed, healed; recovered in 9.00 s; "
            "4 answers equal to those of its twin train/n2/r0, bit for bit; "
            "state of step 20 restored on 2 ranks with the digest that was committed",
            (
                "completed in attempt 1, 2 attempts in all",
                "2 ranks on n1, n3",
                "pass: fault f0 (node.power_off on node n2) requested, observed, healed; recovered in 9.00 s",
                "pass: 4 answers equal to those of its twin train/n2/r0, bit for bit",
                "pass: state of step 20 restored on 2 ranks with the digest that was committed",
                "pass: 2 checks of the answer hold on both ranks",
                "samples of n2 in attempt 0 end early, as expected: the fault took the node",
            ),
        ),
    }  # fmt: skip


# --- one place made wrong ------------------------------------------------------------------------------------


def attempts(campaign: Campaign, case_id: str) -> list[factory.Row]:
    return [a for a in campaign.tables["attempts"] if a["case_id"] == case_id]


def end(campaign: Campaign, case_id: str, outcome: str, reason: str) -> None:
    attempts(campaign, case_id)[-1].update(outcome=outcome, reason=reason)


def drop(campaign: Campaign, table: str, **wanted: object) -> None:
    rows = campaign.tables[table]
    rows[:] = [r for r in rows if not all(r[k] == v for k, v in wanted.items())]


def events(campaign: Campaign, kind: str, **wanted: object) -> list[factory.Row]:
    rows = campaign.tables["events"]
    return [e for e in rows if e["kind"] == kind and all(e[k] == v for k, v in wanted.items())]


def say(event: factory.Row, **data: object) -> None:
    event["data"] = json.dumps({**json.loads(event["data"]), **data})


def not_run(c: Campaign) -> None:
    drop(c, "attempts", case_id=TWIN)
    c.find("cases", case_id=TWIN).update(
        outcome="not_run", reason="not run: its job was cancelled in the queue"
    )


def program_failed(c: Campaign) -> None:
    end(c, TWIN, "failed", "rank 1 exited with 1")
    c.event(
        c.find("cases", case_id=TWIN),
        0,
        1,
        "rank.raised",
        factory.START_NS,
        "n2",
        error="ValueError: no such batch",
    )


def machine_took_it(c: Campaign) -> None:
    end(c, TWIN, "node_lost", "node n2 is DOWN")


def interrupted(c: Campaign) -> None:
    end(c, TWIN, "interrupted", "time limit")


def lost(c: Campaign) -> None:
    end(c, TWIN, "lost", "")


def short(c: Campaign) -> None:
    attempts(c, TWIN)[-1]["last_step"] = 17


def case_failed_afterwards(c: Campaign) -> None:
    c.find("cases", case_id=TWIN).update(outcome="failed", reason="an agent could not be stopped")


def case_lost_afterwards(c: Campaign) -> None:
    c.find("cases", case_id=TWIN).update(outcome="lost", reason="nobody wrote how it ended")


def evidence_missing(c: Campaign) -> None:
    c.find("cases", case_id=TWIN)["evidence"] = "unknown: attempt 0 has no records of ranks [1]"


def evidence_unsaid(c: Campaign) -> None:
    c.find("cases", case_id=TWIN)["evidence"] = ""


def stream_short(c: Campaign) -> None:
    c.find("streams", case_id=TWIN, node="n2").update(status="short", detail="100 bytes of 4096")


def stream_foreign(c: Campaign) -> None:
    c.find("streams", case_id=TWIN, node="n2").update(
        status="foreign", detail="its records are of case c00001; it was left out"
    )


def gap_without_a_fault(c: Campaign) -> None:
    c.find("streams", case_id=TWIN, node="n2").update(status="gap", detail="its node was lost")


def check_failed(c: Campaign) -> None:
    c.find("checks", case_id=TWIN, rank=1).update(
        passed=False, expected="4096", observed="4095", detail="step 7"
    )


def no_evidence(c: Campaign) -> None:
    drop(c, "checks", case_id=TWIN)
    drop(c, "events", case_id=TWIN)


def compared_with_nothing(c: Campaign) -> None:
    drop(c, "checks", case_id=TWIN)
    c.find("cases", case_id=FAULTY)["twin"] = ""


def wrong_world(c: Campaign) -> None:
    c.event(c.find("cases", case_id=TWIN), 0, 1, "world.wrong_size", 5, "n2", message="1 rank of 2 joined")


def hosts_missing(c: Campaign) -> None:
    attempts(c, TWIN)[-1]["rank_nodes"] = '["n1"]'


def one_node(c: Campaign) -> None:
    attempts(c, TWIN)[-1]["rank_nodes"] = '["n1", "n1"]'


def never_requested(c: Campaign) -> None:
    c.tables["faults"].clear()


def refused(c: Campaign) -> None:
    c.tables["faults"].clear()
    c.event(
        c.find("cases", case_id=FAULTY),
        0,
        -1,
        "fault.refused",
        5,
        "n1",
        fault_id="train-fault-r0-f0",
        why="this site is production",
    )


def not_observed(c: Campaign) -> None:
    c.tables["faults"][0].update(observed=False, observed_wall_ns=0)


def not_healed(c: Campaign) -> None:
    c.tables["faults"][0].update(healed=False, healed_wall_ns=0)


def requested_and_refused(c: Campaign) -> None:
    not_observed(c)
    case = c.find("cases", case_id=FAULTY)
    c.event(case, 0, -1, "fault.refused", 5, "n1", fault_id="train-fault-r0-f0", why="power off failed")


def unhealed(c: Campaign) -> None:
    not_healed(c)
    case = c.find("cases", case_id=FAULTY)
    for wall_ns, why in ((7, "node n2 is off"), (5, "not seen to be healed within 60 s")):
        about = {"fault_id": "train-fault-r0-f0", "fault": "node.power_off", "node": "n2"}
        c.event(case, -1, -1, "fault.unhealed", wall_ns, "n1", **about, evidence={"why": why})


def never_passed(c: Campaign) -> None:
    c.tables["faults"][0]["recovered_wall_ns"] = 0


def did_not_recover(c: Campaign) -> None:
    drop(c, "attempts", case_id=FAULTY, index=1)


def still_queued(c: Campaign) -> None:
    did_not_recover(c)
    c.find("jobs", job_key=attempts(c, FAULTY)[0]["job_key"])["state"] = "REQUEUED"


def cancelled(c: Campaign) -> None:
    machine_took_it(c)
    c.find("jobs", job_key=attempts(c, TWIN)[0]["job_key"])["state"] = "CANCELLED by 61000"


def cancelled_after_a_signal(c: Campaign) -> None:
    cancelled(c)
    end(c, TWIN, "interrupted", "received SIGTERM")


def cancelled_without_a_last_word(c: Campaign) -> None:
    cancelled(c)
    end(c, TWIN, "lost", "")


def cancelled_after_a_fault(c: Campaign) -> None:
    did_not_recover(c)
    c.find("jobs", job_key=attempts(c, FAULTY)[0]["job_key"])["state"] = "CANCELLED by 61000"


def cancelled_before_its_fault(c: Campaign) -> None:
    cancelled_after_a_fault(c)
    c.tables["faults"].clear()


def failed_before_it_was_cancelled(c: Campaign) -> None:
    cancelled(c)
    program_failed(c)


def declared_to_fail(c: Campaign) -> None:
    c.tables["faults"][0]["expect"] = "failed"
    case = c.find("cases", case_id=FAULTY)
    case["faults"] = case["faults"].replace("recovered", "failed")


def twin_differs(c: Campaign) -> None:
    say(events(c, "result", case_id=FAULTY, rank=1)[1], value="4.3820266723632813")


def twin_missing(c: Campaign) -> None:
    c.find("cases", case_id=FAULTY)["twin"] = "gone"


def twin_failed(c: Campaign) -> None:
    end(c, TWIN, "failed", "out of memory")


def answer_missing(c: Campaign) -> None:
    c.tables["events"].remove(events(c, "result", case_id=FAULTY, rank=1)[1])


def no_answers(c: Campaign) -> None:
    drop(c, "events", kind="result")


def digest_without_determinism(c: Campaign) -> None:
    c.find("cases", case_id=FAULTY)["deterministic"] = False
    say(events(c, "result", case_id=FAULTY, rank=0)[0], value="another")


def number_without_determinism(c: Campaign) -> None:
    c.find("cases", case_id=FAULTY)["deterministic"] = False
    say(events(c, "result", case_id=FAULTY, rank=0)[1], value="4.39")


def wrong_state(c: Campaign) -> None:
    say(events(c, "checkpoint.restored", rank=1)[0], digest="random-state-not-restored")


def never_committed(c: Campaign) -> None:
    drop(c, "events", kind="checkpoint.committed", rank=1)


def restored_without_digest(c: Campaign) -> None:
    say(events(c, "checkpoint.restored", rank=1)[0], digest="")


def rank_without_record(c: Campaign) -> None:
    drop(c, "events", kind="checkpoint.restored", rank=1)


def other_folder(c: Campaign) -> None:
    """Two commits of step 20: the digest must be that of the folder that was restored."""
    for event in events(c, "checkpoint.restored"):
        say(event, path="step-00000020.0.9")
    case = c.find("cases", case_id=FAULTY)
    for rank in (0, 1):
        c.event(
            case, 0, rank, "checkpoint.committed", 5, "n1", step=20, digest="other", path="step-00000020.0.9"
        )


def malformed(c: Campaign) -> None:
    events(c, "result", case_id=FAULTY, rank=1)[0]["data"] = "{"


WRONG: list[tuple[Callable[[Campaign], None], str, Verdict, str]] = [
    (not_run, TWIN, Verdict.UNKNOWN, "it was not run: its job was cancelled in the queue"),
    (program_failed, TWIN, Verdict.FAIL, "failed: rank 1 exited with 1; rank 1 on n2: ValueError: no such batch"),
    (machine_took_it, TWIN, Verdict.UNKNOWN, "the machine took it: node n2 is DOWN"),
    (interrupted, TWIN, Verdict.UNKNOWN, "interrupted: time limit"),
    (lost, TWIN, Verdict.UNKNOWN, "lost: no reason recorded"),
    (short, TWIN, Verdict.UNKNOWN, "it says completed, but its last step is 17 and not 39"),
    (case_failed_afterwards, TWIN, Verdict.FAIL,
     "its last attempt completed, but the case ended as failed: an agent could not be stopped"),
    (case_lost_afterwards, TWIN, Verdict.UNKNOWN,
     "its last attempt completed, but the case ended as lost: nobody wrote how it ended"),
    (evidence_missing, TWIN, Verdict.UNKNOWN, "evidence is not complete: attempt 0 has no records of ranks [1]"),
    (evidence_unsaid, TWIN, Verdict.UNKNOWN, "evidence is not complete: the file does not say what is there"),
    (stream_short, TWIN, Verdict.UNKNOWN, "samples of n2 in attempt 0 are not whole: short (100 bytes of 4096)"),
    (stream_foreign, TWIN, Verdict.UNKNOWN,
     "samples of n2 in attempt 0 are not whole: foreign (its records are of case c00001; it was left out)"),
    (gap_without_a_fault, TWIN, Verdict.UNKNOWN, "samples of n2 in attempt 0 are not whole: gap (its node was lost)"),
    (check_failed, TWIN, Verdict.FAIL,
     "check \"every batch once\" failed on rank 1: expected 4096, observed 4095 (step 7)"),
    (no_evidence, TWIN, Verdict.UNKNOWN, "no evidence that the answer is right: no check and no result"),
    (compared_with_nothing, TWIN, Verdict.UNKNOWN,
     "no evidence that the answer is right: 4 results, compared with nothing"),
    (wrong_world, TWIN, Verdict.FAIL, "the world had the wrong size on rank 1: 1 rank of 2 joined"),
    (hosts_missing, TWIN, Verdict.UNKNOWN, "hosts are recorded for 1 rank, the case has 2"),
    (one_node, TWIN, Verdict.UNKNOWN, "its ranks ran on 1 node, the case asks for 2"),
    (never_requested, FAULTY, Verdict.INVALID, "fault f0 (node.power_off at step 22) was never requested"),
    (refused, FAULTY, Verdict.INVALID,
     "fault f0 (node.power_off at step 22) was refused, it could not be done: this site is production"),
    (not_observed, FAULTY, Verdict.INVALID,
     "fault f0 (node.power_off on node n2) was requested, but its effect was not observed"),
    (requested_and_refused, FAULTY, Verdict.INVALID,
     "fault f0 (node.power_off on node n2) was requested, but refused, it could not be done: power off failed"),
    (unhealed, FAULTY, Verdict.FAIL,
     "fault f0 (node.power_off on node n2) was not healed, which ends the campaign: it is unhealed, node n2 is off"),
    (cancelled, TWIN, Verdict.UNKNOWN, "its job was cancelled (Slurm says CANCELLED by 61000)"),
    (cancelled_after_a_signal, TWIN, Verdict.UNKNOWN, "its job was cancelled (Slurm says CANCELLED by 61000)"),
    (cancelled_without_a_last_word, TWIN, Verdict.UNKNOWN,
     "its job was cancelled (Slurm says CANCELLED by 61000)"),
    (cancelled_before_its_fault, FAULTY, Verdict.UNKNOWN, "its job was cancelled (Slurm says CANCELLED by 61000)"),
    (cancelled_after_a_fault, FAULTY, Verdict.FAIL,
     "did not recover from fault f0 (node.power_off on node n2): node n2 stopped answering; "
     "its job was cancelled (Slurm says CANCELLED by 61000)"),
    (failed_before_it_was_cancelled, TWIN, Verdict.FAIL,
     "failed: rank 1 exited with 1; rank 1 on n2: ValueError: no such batch"),
    (not_healed, FAULTY, Verdict.FAIL,
     "fault f0 (node.power_off on node n2) was not healed, which ends the campaign"),
    (never_passed, FAULTY, Verdict.FAIL,
     "did not recover from fault f0 (node.power_off on node n2): it never passed the step reached before"),
    (did_not_recover, FAULTY, Verdict.FAIL,
     "did not recover from fault f0 (node.power_off on node n2): node n2 stopped answering"),
    (still_queued, FAULTY, Verdict.UNKNOWN, "the machine took it: node n2 stopped answering"),
    (declared_to_fail, FAULTY, Verdict.FAIL,
     "fault f0 (node.power_off on node n2) was declared to fail it, but it completed"),
    (twin_differs, FAULTY, Verdict.FAIL,
     'final_loss of rank 1 differs from its twin: "4.3820266723632813", twin train/n2/r0 has "4.3820266723632812"'),
    (twin_missing, FAULTY, Verdict.UNKNOWN, "its twin gone is not in this file"),
    (twin_failed, FAULTY, Verdict.UNKNOWN, "its twin train/n2/r0 did not complete (failed)"),
    (answer_missing, FAULTY, Verdict.UNKNOWN, "it recorded no answer final_loss of rank 1"),
    (no_answers, FAULTY, Verdict.UNKNOWN, "neither it nor its twin train/n2/r0 recorded an answer"),
    (digest_without_determinism, FAULTY, Verdict.UNKNOWN,
     'params_digest of rank 0 differs, but the case is not deterministic: "another", twin train/n2/r0 has '
     '"c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee"'),
    (number_without_determinism, FAULTY, Verdict.FAIL,
     'final_loss of rank 0 differs from its twin: "4.39", twin train/n2/r0 has "4.3820266723632812"'),
    (wrong_state, FAULTY, Verdict.FAIL,
     "checkpoint of step 20 on rank 1: restored digest random-state-not-restored, committed d20r1"),
    (never_committed, FAULTY, Verdict.UNKNOWN,
     "checkpoint of step 20 on rank 1 was restored, but nobody recorded committing it"),
    (restored_without_digest, FAULTY, Verdict.UNKNOWN,
     "checkpoint of step 20 on rank 1 was restored without recording a digest"),
    (rank_without_record, FAULTY, Verdict.UNKNOWN,
     "attempt 1 began from a checkpoint, but rank 1 recorded none"),
    (other_folder, FAULTY, Verdict.FAIL,
     "checkpoint of step 20 on rank 0: restored digest d20r0, committed other (and 1 more)"),
]  # fmt: skip


@pytest.mark.parametrize("wrong, case_id, verdict, why", WRONG, ids=[w[0].__name__ for w in WRONG])
def test_a_campaign_that_is_wrong_in_one_place(
    wrong: Callable[[Campaign], None], case_id: str, verdict: Verdict, why: str, tmp_path: Path
) -> None:
    campaign = factory.small()
    wrong(campaign)
    found = verdicts(campaign, tmp_path)[case_id]
    assert (found.verdict, found.why) == (verdict, why)
    assert f"{verdict.value}: {why.removesuffix(' (and 1 more)')}" in found.evidence


def test_every_rule_was_seen_to_fire(tmp_path: Path) -> None:
    # These have tests of their own: test_analysis_gates, test_analysis_proof.
    fired = {"limits", "states", "batches", "controls"}
    for wrong, case_id, verdict, _ in WRONG:
        campaign = factory.small()
        wrong(campaign)
        with load(campaign.write(tmp_path / f"{wrong.__name__}.h5")) as results:
            case = results.case(case_id)
            assert case is not None
            view = View.of(results, case)
            fired |= {rule.__name__ for rule in rules.RULES for f in rule(view) if f.verdict is verdict}
    assert fired == {rule.__name__ for rule in rules.RULES}


# --- what is not wrong ---------------------------------------------------------------------------------------


def test_a_case_that_fails_as_declared_passes(tmp_path: Path) -> None:
    campaign = factory.small()
    declared_to_fail(campaign)
    campaign.tables["faults"][0]["because"] = "n2 stopped"
    drop(campaign, "attempts", case_id=FAULTY, index=1)
    drop(campaign, "checks", case_id=FAULTY, attempt=1)
    found = verdicts(campaign, tmp_path)[FAULTY]
    why = "ended as declared after fault f0 (node.power_off on node n2): node n2 stopped answering"
    assert (found.verdict, found.why) == (Verdict.PASS, why)


def test_a_case_that_was_to_fail_for_nobody_says_what_is_unknown(tmp_path: Path) -> None:
    campaign = factory.small()
    declared_to_fail(campaign)
    drop(campaign, "attempts", case_id=FAULTY, index=1)
    found = verdicts(campaign, tmp_path)[FAULTY]
    why = (
        "fault f0 (node.power_off on node n2) was declared to fail it, and nobody declared for what reason: "
        "node n2 stopped answering"
    )
    assert (found.verdict, found.why) == (Verdict.UNKNOWN, why)


@pytest.mark.parametrize(
    "trigger, observed_ns, expected",
    [
        ("recovery.begin, time 1", 0, True),
        ("step 30", 10**6, True),  # seen when the next attempt had begun
        ("step 30", -(10**6), False),
    ],
)
def test_a_node_that_a_fault_took_between_two_attempts_ends_early_in_the_second(
    trigger: str, observed_ns: int, expected: bool, tmp_path: Path
) -> None:
    campaign = factory.small()
    second = attempts(campaign, FAULTY)[1]
    first = campaign.tables["faults"][0]
    campaign.tables["faults"].append(
        {**first, "fault_id": f"{FAULTY}-f1", "nodes": '["n3"]', "target": "node n3", "trigger": trigger,
         "observed_wall_ns": second["start_wall_ns"] + observed_ns}
    )  # fmt: skip
    campaign.find("streams", case_id=FAULTY, node="n3").update(status="gap", detail="")
    found = verdicts(campaign, tmp_path)[FAULTY]
    assert (found.verdict is Verdict.PASS) == expected
    words = "samples of n3 in attempt 1 end early, as expected: the fault took the node"
    assert (words if expected else "unknown: samples of n3 in attempt 1 are not whole: gap") in found.evidence


def test_answers_within_the_tolerance_pass_where_bits_may_differ(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.find("cases", case_id=FAULTY)["deterministic"] = False
    say(events(campaign, "result", case_id=FAULTY, rank=1)[1], value="4.3820266723632999")
    found = verdicts(campaign, tmp_path)[FAULTY]
    assert found.verdict is Verdict.PASS
    assert "pass: 4 answers equal to those of its twin train/n2/r0, within 1e-06" in found.evidence


@pytest.mark.parametrize(
    "ranks, recorded, words",
    [
        (1, {0: ["a", "b"]}, "2 checks of the answer hold on its one rank"),
        (1, {0: ["a"]}, "1 check of the answer holds on its one rank"),
        (4, {0: ["a", "b"]}, "2 checks of the answer hold (recorded by rank 0)"),
        (4, {0: ["a"], 2: ["a"], 3: ["a"]}, "3 checks of the answer hold (recorded by ranks 0, 2-3)"),
        (2, {0: ["a", "b"], 1: ["a"]}, "3 checks of the answer hold (recorded by ranks 0-1)"),
        (2, {0: ["a"], 1: ["a"]}, "2 checks of the answer hold on both ranks"),
        (4, {r: ["a", "b", "c"] for r in range(4)}, "12 checks of the answer hold on all 4 ranks"),
    ],
)
def test_who_recorded_the_checks_is_told(
    ranks: int, recorded: dict[int, list[str]], words: str, tmp_path: Path
) -> None:
    campaign = Campaign()
    case = campaign.case("c", ranks_per_node=ranks, ranks=ranks)
    campaign.attempt(case, ["n1"], factory.START_NS, factory.START_NS + factory.S)
    for rank, checks in recorded.items():
        for name in checks:
            campaign.check(case, 0, rank, name)
    found = verdicts(campaign, tmp_path)["c"]
    assert (found.verdict, found.why) == (Verdict.PASS, words)


def test_a_twin_is_proved_by_the_case_that_equals_it(tmp_path: Path) -> None:
    campaign = factory.small()
    drop(campaign, "checks", case_id=TWIN)
    found = verdicts(campaign, tmp_path)[TWIN]
    assert (found.verdict, found.why) == (Verdict.PASS, "4 answers equal to those of train-fault/n2/r0")


def test_the_manifest_proves_a_commit_whose_event_the_node_took_with_it(tmp_path: Path) -> None:
    campaign = factory.small()
    never_committed(campaign)
    say(events(campaign, "checkpoint.restored", rank=1)[0], committed_digest="d20r1")
    assert verdicts(campaign, tmp_path)[FAULTY].verdict is Verdict.PASS


def test_a_gap_in_an_attempt_that_the_machine_ended_is_information(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.find("streams", case_id=FAULTY, node="n1", attempt=0)["status"] = "gap"
    found = verdicts(campaign, tmp_path)[FAULTY]
    assert found.verdict is Verdict.PASS
    assert "samples of n1 in attempt 0 end early: the machine took that attempt" in found.evidence


def test_a_stray_file_beside_complete_streams_is_named_and_does_not_count(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.add(
        "streams", case_id=TWIN, attempt=0, node="stranger", status="foreign", bytes=9, expected_bytes=-1,
        expected_records=-1, detail="no node of this attempt is called stranger; it was left out",
    )  # fmt: skip
    found = verdicts(campaign, tmp_path)[TWIN]
    assert found.verdict is Verdict.PASS
    assert found.evidence[-2:] == (
        "2 streams of samples, whole",
        "stranger.stream in attempt 0 does not count: no node of this attempt is called stranger; it was left out",
    )


def test_a_substitute_fault_is_told(tmp_path: Path) -> None:
    campaign = factory.small()
    campaign.tables["faults"][0]["kind"] = "node.kill_processes"
    found = verdicts(campaign, tmp_path)[FAULTY]
    words = "fault f0 (node.kill_processes on node n2) stands in for node.power_off, as the campaign allows"
    assert words in found.evidence


def test_the_worst_finding_decides(tmp_path: Path) -> None:
    campaign = factory.small()
    not_observed(campaign)
    evidence_missing(campaign)
    assert verdicts(campaign, tmp_path)[FAULTY].verdict is Verdict.INVALID
    twin_differs(campaign)
    assert verdicts(campaign, tmp_path)[FAULTY].verdict is Verdict.FAIL


def test_a_rule_that_crashes_makes_the_case_unknown_and_names_the_exception(tmp_path: Path) -> None:
    campaign = factory.small()
    malformed(campaign)
    found = verdicts(campaign, tmp_path)
    assert found[FAULTY].verdict is Verdict.UNKNOWN
    assert found[FAULTY].why.startswith(
        "the rule 'twin' crashed on this case: JSONDecodeError: Expecting property name"
    )
    assert found[TWIN].verdict is Verdict.PASS


def test_a_crashing_rule_does_not_hide_a_failure(tmp_path: Path) -> None:
    campaign = factory.small()
    malformed(campaign)
    not_healed(campaign)
    assert verdicts(campaign, tmp_path)[FAULTY].verdict is Verdict.FAIL


def test_a_key_figure_that_crashes_does_not_change_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> str:
        raise ZeroDivisionError("no steps")

    monkeypatch.setattr("analysis.keyfigure.of_case", crash)
    found = verdicts(factory.small(), tmp_path)[TWIN]
    assert (found.verdict, found.key_figure) == (Verdict.PASS, "no figure: ZeroDivisionError: no steps")


def test_a_case_without_a_figure_says_why(tmp_path: Path) -> None:
    campaign = factory.small()
    not_run(campaign)
    assert verdicts(campaign, tmp_path)[TWIN].key_figure == "no figure: not run"


@pytest.mark.parametrize(
    "wrong, code",
    [(None, 0), (check_failed, 1), (evidence_missing, 3), (not_observed, 3)],
    ids=["all well", "a check failed", "evidence missing", "not observed"],
)
def test_the_exit_code_is_that_of_the_worst_case(
    wrong: Callable[[Campaign], None] | None, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = factory.small()
    if wrong:
        wrong(campaign)
    assert main([str(campaign.write(tmp_path / "r.h5")), "--json"]) == code
    printed = json.loads(capsys.readouterr().out)
    assert (printed["schema"], printed["exit_code"], len(printed["cases"])) == (1, code, 2)


def test_a_file_without_cases_is_no_pass(tmp_path: Path) -> None:
    assert main([str(Campaign().write(tmp_path / "r.h5"))]) == 3
