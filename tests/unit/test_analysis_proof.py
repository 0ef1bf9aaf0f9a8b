"""The proof step by step: states and batches against the twin, negative controls, decoys, and declared reasons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.results import load
from analysis.verdict import CaseVerdict, judge
from harness.model.verdict import Verdict
from tests.unit import results_factory as factory
from tests.unit.results_tables import Campaign, Row

FAULTY = "train-fault-r0"


def judged(campaign: Campaign, folder: Path, case_id: str = FAULTY) -> CaseVerdict:
    with load(campaign.write(folder / "r.h5")) as results:
        return next(v for v in judge(results) if v.case_id == case_id)


def digests(campaign: Campaign, case_id: str, attempt: int, steps: range) -> None:
    for step in steps:
        for rank in (0, 1):
            campaign.add(
                "digests", case_id=case_id, attempt=attempt, rank=rank, step=step, digest=f"d{step}r{rank}"
            )


def proven() -> Campaign:
    """The small campaign with states of each fifth step."""
    campaign = factory.small()
    digests(campaign, "train-r0", 0, range(5, 41, 5))
    digests(campaign, FAULTY, 0, range(5, 21, 5))
    digests(campaign, FAULTY, 1, range(25, 41, 5))
    return campaign


def test_equal_states_in_every_attempt_are_evidence(tmp_path: Path) -> None:
    found = judged(proven(), tmp_path)
    assert found.verdict is Verdict.PASS
    assert "pass: 16 states at 8 steps equal to those of its twin, bit for bit" in found.evidence


@pytest.mark.parametrize("attempt, step", [(0, 15), (1, 30)])
def test_a_state_that_differs_fails_wherever_it_was(attempt: int, step: int, tmp_path: Path) -> None:
    campaign = proven()
    campaign.find("digests", case_id=FAULTY, attempt=attempt, step=step, rank=1)["digest"] = "other"
    found = judged(campaign, tmp_path)
    words = f"the state after {step} steps on rank 1 in attempt {attempt} has digest other, its twin's has d{step}r1"
    assert (found.verdict, found.why) == (Verdict.FAIL, words)


def test_states_of_an_attempt_with_fewer_ranks_are_not_compared(tmp_path: Path) -> None:
    campaign = proven()
    campaign.find("digests", case_id=FAULTY, attempt=1, step=30, rank=1)["digest"] = "other"
    campaign.find("attempts", case_id=FAULTY, index=1)["world"] = 1
    found = judged(campaign, tmp_path)
    assert found.verdict is Verdict.PASS
    assert "attempt 1 ran with fewer ranks: its states are not compared" in found.evidence


def test_a_twin_with_two_states_after_one_step_proves_nothing(tmp_path: Path) -> None:
    campaign = proven()
    campaign.add("digests", case_id="train-r0", attempt=0, rank=0, step=5, digest="another")
    found = judged(campaign, tmp_path)
    assert (found.verdict, found.why) == (
        Verdict.UNKNOWN,
        "its twin train/n2/r0 had two states after 5 steps on rank 0: it is not deterministic, and proves nothing",
    )


# --- batches --------------------------------------------------------------------------------------------------


def with_batches(change: dict[tuple[int, int, int], int] | None = None) -> Campaign:
    """The small campaign with the batch of each step; ``change`` is (attempt, rank, step) -> another batch."""
    campaign = factory.small()
    columns = campaign.samples["torch.train", "steps"]
    columns["batch_id"] = []
    for number, step in enumerate(columns["step"]):
        attempt, rank = int(columns["attempt"][number][0]), int(columns["rank"][number][0])
        ids = np.asarray(step) * 10 + rank + 1000
        for (a, r, s), batch in (change or {}).items():
            if (a, r) == (attempt - 1, rank):  # row 0 of /attempts is the twin's
                ids = np.where(step == s, batch, ids)
        columns["batch_id"].append(ids)
    return campaign


def test_batches_of_the_final_lineage_as_the_twins_pass(tmp_path: Path) -> None:
    # Step 21 of the broken attempt was done again: what it saw there counts for nothing.
    found = judged(with_batches({(0, 1, 21): 7}), tmp_path)
    assert found.verdict is Verdict.PASS
    assert "pass: 80 batches as its twin's: none skipped, none twice" in found.evidence


@pytest.mark.parametrize(
    "change, words",
    [
        ({(1, 1, 30): 1311}, "rank 1 saw another batch in step 30 than its twin: that of its twin's step 31"),
        ({(0, 0, 12): 5}, "rank 0 saw another batch in step 12 than its twin: one that its twin never saw"),
    ],
)
def test_a_batch_that_differs_fails(
    change: dict[tuple[int, int, int], int], words: str, tmp_path: Path
) -> None:
    found = judged(with_batches(change), tmp_path)
    assert (found.verdict, found.why) == (Verdict.FAIL, words)


def test_a_step_left_out_or_done_twice_fails(tmp_path: Path) -> None:
    for wrong, words in (
        ("again", "rank 1 did step 30 twice in one attempt"),
        ("gone", "rank 1 never did step 30"),
    ):
        campaign = with_batches()
        columns = campaign.samples["torch.train", "steps"]
        last = len(columns["step"]) - 1  # rank 1 of the last attempt
        place = int(np.flatnonzero(columns["step"][last] == 30)[0])
        for parts in columns.values():
            parts[last] = (
                np.delete(parts[last], place)
                if wrong == "gone"
                else np.insert(parts[last], place, parts[last][place])
            )
        assert judged(campaign, tmp_path).why == words


def test_batches_that_a_lost_node_took_with_it_are_not_skipped(tmp_path: Path) -> None:
    campaign = with_batches()
    columns = campaign.samples["torch.train", "steps"]
    hit = next(
        i for i, a in enumerate(columns["attempt"]) if (int(a[0]), int(columns["rank"][i][0])) == (1, 1)
    )
    for (
        parts
    ) in columns.values():  # rank 1 of attempt 0, on the node that was lost: its records end after step 15
        parts[hit] = parts[hit][:16]
    found = judged(campaign, tmp_path)
    assert found.verdict is Verdict.PASS
    words = "pass: 76 batches as its twin's: none skipped, none twice; 4 more the lost node took with it"
    assert words in found.evidence
    campaign.find("streams", case_id=FAULTY, node="n2")["status"] = "complete"
    assert judged(campaign, tmp_path).why.startswith("rank 1 never did step 16")


# --- expectations ---------------------------------------------------------------------------------------------


def expect(campaign: Campaign, outcome: str, kind: str = "node.power_off", because: str = "") -> Row:
    """Let the fault be another one, of another expectation; returns its row."""
    case = campaign.find("cases", case_id=FAULTY)
    declared = json.loads(case["faults"])
    declared[0].update(expect=outcome, kind=kind, requested_kind=kind, because=because)
    case["faults"] = json.dumps(declared)
    fault = campaign.tables["faults"][0]
    fault.update(expect=outcome, kind=kind, requested_kind=kind, because=because)
    return fault


def undisturbed(campaign: Campaign) -> Row:
    """Let the case have one attempt, that of its twin, and a decoy; returns the fault's row."""
    fault = expect(campaign, "unharmed", "rank.slow_step")
    campaign.tables["attempts"] = [
        a for a in campaign.tables["attempts"] if a["case_id"] != FAULTY or a["index"]
    ]
    second = campaign.find("attempts", case_id=FAULTY, index=1)
    second.update(index=0, restored_step=-1, first_step=0)
    for name in ("events", "checks"):
        for row in campaign.tables[name]:
            if row["case_id"] == FAULTY and row["attempt"] == 1:
                row["attempt"] = 0
    campaign.tables["streams"] = [
        {**s, "attempt": 0} for s in campaign.tables["streams"] if s["case_id"] != FAULTY or s["attempt"]
    ]
    campaign.tables["events"] = [
        e for e in campaign.tables["events"] if not e["kind"].startswith("checkpoint.")
    ]
    fault.update(
        target="rank 1", nodes='["n2"]', detected_wall_ns=0, first_step_wall_ns=0, recovered_wall_ns=0
    )
    return fault


def test_a_decoy_that_was_ridden_out_passes(tmp_path: Path) -> None:
    campaign = factory.small()
    undisturbed(campaign)
    found = judged(campaign, tmp_path)
    assert found.verdict is Verdict.PASS
    words = (
        "pass: fault f0 (rank.slow_step on rank 1) requested, observed, ridden out: no detection, no restart"
    )
    assert words in found.evidence


def test_a_decoy_that_a_detector_fell_for_is_a_false_alarm(tmp_path: Path) -> None:
    campaign = factory.small()
    fault = undisturbed(campaign)
    campaign.add("detections", case_id=FAULTY, rank=1, node="n2", what="hung", fault_id=fault["fault_id"])
    found = judged(campaign, tmp_path)
    assert (found.verdict, found.why) == (
        Verdict.FAIL,
        "false alarm: fault f0 (rank.slow_step on rank 1) was harmless, but rank 1 was called hung",
    )


def test_a_decoy_after_which_the_case_started_again_is_a_false_alarm(tmp_path: Path) -> None:
    campaign = factory.small()
    expect(campaign, "unharmed", "rank.slow_step")
    found = judged(campaign, tmp_path)
    assert (found.verdict, found.why) == (
        Verdict.FAIL,
        "false alarm: fault f0 (rank.slow_step on node n2) was harmless, but another attempt followed",
    )


def test_a_control_that_the_proof_noticed_passes(tmp_path: Path) -> None:
    campaign = proven()
    expect(campaign, "caught", "control.random_state")
    campaign.find("digests", case_id=FAULTY, attempt=1, step=25, rank=0)["digest"] = "other"
    found = judged(campaign, tmp_path)
    assert (found.verdict, found.why) == (
        Verdict.PASS,
        "the proof noticed fault f0 (control.random_state on node n2): the state after 25 steps on rank 0 in attempt 1 "
        "has digest other, its twin's has d25r0",
    )


def test_a_control_that_nothing_noticed_fails(tmp_path: Path) -> None:
    campaign = proven()
    expect(campaign, "caught", "control.random_state")
    found = judged(campaign, tmp_path)
    assert (found.verdict, found.why) == (
        Verdict.FAIL,
        "the proof did not notice fault f0 (control.random_state on node n2): nothing differs from its twin",
    )


def test_a_control_that_did_not_land_is_invalid(tmp_path: Path) -> None:
    campaign = proven()
    expect(campaign, "caught", "control.random_state").update(observed=False, observed_wall_ns=0)
    assert judged(campaign, tmp_path).verdict is Verdict.INVALID


@pytest.mark.parametrize(
    "because, verdict", [("no spare", Verdict.PASS), ("every checkpoint is damaged", Verdict.FAIL)]
)
def test_a_case_must_fail_for_the_declared_reason(because: str, verdict: Verdict, tmp_path: Path) -> None:
    campaign = factory.small()
    expect(campaign, "failed", because=because)
    row = campaign.find("attempts", case_id=FAULTY, index=1)
    row.update(outcome="failed", reason="no spare is left for n2")
    campaign.find("cases", case_id=FAULTY).update(outcome="failed", reason="no spare is left for n2")
    found = judged(campaign, tmp_path)
    assert found.verdict is verdict
    if verdict is Verdict.FAIL:
        assert found.why == (
            'fault f0 (node.power_off on node n2) was declared to fail it for "every checkpoint is damaged", '
            "but the reason is: no spare is left for n2"
        )


def test_a_fault_that_leaves_nothing_outside_the_job_needs_no_healing(tmp_path: Path) -> None:
    campaign = factory.small()
    expect(campaign, "recovered", "rank.kill").update(healed=False, healed_wall_ns=0, target="rank 1")
    found = judged(campaign, tmp_path)
    assert found.verdict is Verdict.PASS
    assert "pass: fault f0 (rank.kill on rank 1) requested, observed; recovered in 9.00 s" in found.evidence


def test_damage_that_no_restore_met_is_invalid(tmp_path: Path) -> None:
    campaign = factory.small()
    expect(campaign, "recovered", "checkpoint.flip_bit").update(target="the job")
    found = judged(campaign, tmp_path)
    words = "was done, but no restore met the damage: nothing was refused after it"
    assert (found.verdict, found.why) == (
        Verdict.INVALID,
        f"fault f0 (checkpoint.flip_bit on the job) {words}",
    )


@pytest.mark.parametrize(
    "refused, unmet",
    [
        ("step-00000020.0.0: rank-1.pt has another content than was committed", ""),
        ("step-00000010.0.0: rank-1.pt is missing", "step-00000010.0.0: rank-1.pt is missing"),
        ("memory/step-00000020.0.0 (memory): missing", "memory/step-00000020.0.0 (memory): missing"),
        ("step-00000020.0.01: damaged", "step-00000020.0.01: damaged"),
    ],
)
def test_damage_is_met_where_the_damaged_checkpoint_itself_is_refused(
    refused: str, unmet: str, tmp_path: Path
) -> None:
    campaign = factory.small()
    fault = expect(campaign, "recovered", "checkpoint.flip_bit")
    damaged = {"fault.injected": {"evidence": {"damaged": [{"checkpoint": "step-00000020.0.0"}]}}}
    fault.update(target="the job", evidence=json.dumps(damaged))
    case = campaign.find("cases", case_id=FAULTY)
    campaign.event(case, 1, 0, "checkpoint.refused", fault["injected_wall_ns"] + 1, "n1", why=refused)
    found = judged(campaign, tmp_path)
    if not unmet:
        assert found.verdict is Verdict.PASS
        return
    words = (
        "fault f0 (checkpoint.flip_bit on the job) was done, but no restore met the damage: it damaged "
        f"step-00000020.0.0, and what was refused after it is another: {unmet}"
    )
    assert (found.verdict, found.why) == (Verdict.INVALID, words)


# --- several that are to fail a case --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "becauses, verdict, named",
    [
        (("stopped answering", "no spare"), Verdict.PASS, ""),
        (("no spare", "no spare"), Verdict.PASS, ""),
        (("no spare", "a full disk"), Verdict.FAIL, "f1"),
        (("stopped answering", "stopped answering"), Verdict.FAIL, "f1"),  # it ended for another reason
    ],
)
def test_each_fault_that_was_to_fail_a_case_must_be_a_reason(
    becauses: tuple[str, str], verdict: Verdict, named: str, tmp_path: Path
) -> None:
    campaign = factory.small()
    first = expect(campaign, "failed", because=becauses[0])
    campaign.tables["faults"].append({**first, "fault_id": f"{FAULTY}-f1", "because": becauses[1]})
    campaign.find("attempts", case_id=FAULTY, index=1).update(outcome="failed", reason="no spare is left")
    campaign.find("cases", case_id=FAULTY).update(outcome="failed", reason="no spare is left")
    found = judged(campaign, tmp_path)
    assert found.verdict is verdict
    if named:
        assert found.why == (
            f'fault {named} (node.power_off on node n2) was declared to fail it for "{becauses[1]}", '
            "but the reason is: no spare is left"
        )


# --- what a program did to itself -----------------------------------------------------------------------------


def own_fault(campaign: Campaign, **values: object) -> Row:
    """Let the fault be one that nobody declared: the program did it to itself."""
    campaign.find("cases", case_id=FAULTY)["faults"] = "[]"
    fault = campaign.tables["faults"][0]
    fault.update({"fault_id": f"{FAULTY}-program-1", "target": "rank 1", "healed": True, **values})
    return fault


def test_a_fault_of_a_program_that_recovered_is_evidence(tmp_path: Path) -> None:
    campaign = factory.small()
    own_fault(campaign, kind="rank.kill", requested_kind="rank.kill")
    found = judged(campaign, tmp_path)
    assert found.verdict is Verdict.PASS
    words = "pass: fault program-1 (rank.kill on rank 1) requested, observed, healed; recovered in 9.00 s"
    assert words in found.evidence


@pytest.mark.parametrize(
    "values, verdict, words",
    [
        ({"kind": "storage.full", "observed": False}, Verdict.INVALID,
         "(storage.full on rank 1) was requested, but its effect was not observed"),
        ({"kind": "rank.kill", "recovered_wall_ns": 0}, Verdict.FAIL,
         "did not recover from fault program-1 (rank.kill on rank 1): it never passed the step reached before"),
        ({"kind": "rank.kill", "expect": "unharmed"}, Verdict.FAIL,
         "(rank.kill on rank 1) was harmless, but another attempt followed"),
    ],
)  # fmt: skip
def test_a_fault_of_a_program_is_judged_as_a_declared_one(
    values: Row, verdict: Verdict, words: str, tmp_path: Path
) -> None:
    campaign = factory.small()
    own_fault(campaign, requested_kind=values["kind"], **values)
    found = judged(campaign, tmp_path)
    assert found.verdict is verdict
    assert words in found.why


def test_a_decoy_of_a_program_explains_no_failure(tmp_path: Path) -> None:
    campaign = factory.small()
    own_fault(campaign, kind="rank.slow_step", requested_kind="rank.slow_step", expect="failed")
    campaign.find("attempts", case_id=FAULTY, index=1).update(outcome="failed", reason="ValueError: no")
    campaign.find("cases", case_id=FAULTY).update(outcome="failed", reason="ValueError: no")
    found = judged(campaign, tmp_path)
    assert (found.verdict, found.why) == (
        Verdict.UNKNOWN,
        "fault program-1 (rank.slow_step on rank 1) was declared to fail it, and nobody declared for what reason: "
        "ValueError: no",
    )


def test_a_fault_before_any_step_is_recovered_from_when_a_later_attempt_completes(tmp_path: Path) -> None:
    campaign = factory.small()
    own_fault(campaign, kind="rank.kill", requested_kind="rank.kill", recovered_wall_ns=0)
    campaign.find("attempts", case_id=FAULTY, index=0)["last_step"] = -1
    found = judged(campaign, tmp_path)
    assert found.verdict is Verdict.PASS
    words = "(rank.kill on rank 1) requested, observed; recovered: no step was reached before, and attempt 1 completed"
    assert f"pass: fault program-1 {words}" in found.evidence


# --- a random process in time ---------------------------------------------------------------------------------


def poisson(campaign: Campaign, at_s: float, **more: object) -> None:
    """Declare a second fault, of a random process, that is not on record."""
    case = campaign.find("cases", case_id=FAULTY)
    second = {"fault_id": f"{FAULTY}-f1", "kind": "rank.kill", "requested_kind": "rank.kill", "expect": "recovered",
              "rank": 1, "at_s": at_s, "may_miss": True}  # fmt: skip
    case["faults"] = json.dumps([*json.loads(case["faults"]), {**second, **more}])


@pytest.mark.parametrize(
    "at_s, may_miss, alone, verdict, words",
    [
        (500.0, True, False, Verdict.PASS,
         "fault f1 (rank.kill at 500 s after the first step) was not due before it ended, which a fault of a random "
         "process may be"),
        (13.5, True, True, Verdict.PASS,
         "fault f1 (rank.kill at 13.5 s after the first step) was not due before it ended, which a fault of a random "
         "process may be"),
        (500.0, False, False, Verdict.INVALID,
         "invalid: fault f1 (rank.kill at 500 s after the first step) was never requested"),
        (1.0, True, False, Verdict.PASS,
         "fault f1 (rank.kill at 1 s after the first step) was waiting for those before it to be over when the case "
         "ended"),
        (1.0, True, True, Verdict.INVALID,
         "invalid: fault f1 (rank.kill at 1 s after the first step) was never requested, though the case went on for "
         "13.9 s after its first step"),
    ],
)  # fmt: skip
def test_a_random_fault_that_the_case_did_not_live_to_see_is_left_out(
    at_s: float, may_miss: bool, alone: bool, verdict: Verdict, words: str, tmp_path: Path
) -> None:
    campaign = factory.small()
    poisson(campaign, at_s, may_miss=may_miss)
    if alone:
        campaign.tables["faults"].clear()
        case = campaign.find("cases", case_id=FAULTY)
        case["faults"] = json.dumps(json.loads(case["faults"])[1:])
    found = judged(campaign, tmp_path)
    assert words in found.evidence
    assert (found.verdict is Verdict.PASS) == (verdict is Verdict.PASS)


@pytest.mark.parametrize("may_miss, right, verdict", [
    (True, True, Verdict.PASS), (True, False, Verdict.FAIL), (False, True, Verdict.FAIL),
])  # fmt: skip
def test_a_random_fault_that_struck_when_the_work_was_done_is_left_out_where_the_answers_are_right(
    may_miss: bool, right: bool, verdict: Verdict, tmp_path: Path
) -> None:
    campaign = factory.small()
    poisson(campaign, 12.0, may_miss=may_miss)
    late = {**campaign.tables["faults"][0], "fault_id": f"{FAULTY}-f1", "kind": "rank.kill", "target": "rank 1",
            "requested_kind": "rank.kill", "attempt": 1, "recovered_wall_ns": 0, "healed": False}  # fmt: skip
    campaign.tables["faults"].append(late)
    if not right:
        campaign.find("events", case_id=FAULTY, attempt=1, kind="result")["data"] = (
            '{"name": "params_digest", "value": "x"}'
        )
    found = judged(campaign, tmp_path)
    assert found.verdict is verdict
    words = "fault f1 (rank.kill on rank 1) struck when the work was done: there was nothing left to recover"
    assert (words in found.evidence) == (verdict is Verdict.PASS)
