"""Ways to make a campaign of results wrong in one place, and the verdict that each must get. Not a test."""

from __future__ import annotations

import json
from collections.abc import Callable

from harness.model.verdict import Verdict
from tests.unit.results_tables import START_NS, Campaign, Row

TWIN, FAULTY = "train-r0", "train-fault-r0"


def attempts(campaign: Campaign, case_id: str) -> list[Row]:
    return [a for a in campaign.tables["attempts"] if a["case_id"] == case_id]


def end(campaign: Campaign, case_id: str, outcome: str, reason: str) -> None:
    attempts(campaign, case_id)[-1].update(outcome=outcome, reason=reason)


def drop(campaign: Campaign, table: str, **wanted: object) -> None:
    rows = campaign.tables[table]
    rows[:] = [r for r in rows if not all(r[k] == v for k, v in wanted.items())]


def events(campaign: Campaign, kind: str, **wanted: object) -> list[Row]:
    rows = campaign.tables["events"]
    return [e for e in rows if e["kind"] == kind and all(e[k] == v for k, v in wanted.items())]


def say(event: Row, **data: object) -> None:
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
        START_NS,
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


def no_time(c: Campaign) -> None:
    times = c.samples["torch.train", "steps"]["step_time_ns"]
    times[0] = times[0] * ([1] * (len(times[0]) - 3) + [0, -1, 0])


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
    (no_time, TWIN, Verdict.INVALID, "3 of 74 step times are not above zero: no clock gives that"),
]  # fmt: skip
