"""Every rule of judgement is seen to fire, on a campaign that passes and is made wrong in one place."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import rules
from analysis.results import load
from analysis.verdict import CaseVerdict, judge, main
from analysis.view import View
from harness.model.verdict import Verdict
from tests.unit import results_factory as factory
from tests.unit.results_tables import Campaign
from tests.unit.wrong_campaigns import (
    FAULTY,
    TWIN,
    WRONG,
    attempts,
    check_failed,
    declared_to_fail,
    drop,
    events,
    evidence_missing,
    malformed,
    never_committed,
    not_healed,
    not_observed,
    not_run,
    say,
    twin_differs,
)


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
                "2 streams of samples, whole",
                "2 ranks on n1, n2",
                "pass: 2 checks of the answer hold on both ranks",
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
                "samples of n2 in attempt 0 end early, as expected: the fault took the node",
                "2 ranks on n1, n3",
                "pass: fault f0 (node.power_off on node n2) requested, observed, healed; recovered in 9.00 s",
                "pass: 4 answers equal to those of its twin train/n2/r0, bit for bit",
                "pass: state of step 20 restored on 2 ranks with the digest that was committed",
                "pass: 2 checks of the answer hold on both ranks",
            ),
        ),
    }  # fmt: skip


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
    # These have tests of their own: test_analysis_gates, test_expected, test_analysis_proof.
    fired = {"limits", "of_site", "states", "batches", "controls"}
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
    assert found.evidence[1:3] == (
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


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_figure_that_is_no_number_makes_the_case_invalid(value: str, tmp_path: Path) -> None:
    campaign = factory.small()
    losses = campaign.samples["torch.train", "steps"]["loss"]
    losses[0] = losses[0] * 0 + float(value)
    losses[1] = losses[0]
    found = verdicts(campaign, tmp_path)["train-r0"]
    assert (found.verdict, found.why.split(" over ")[0]) == (
        Verdict.INVALID, "loss is no finite number: its median",
    )  # fmt: skip


# --- how it is printed -----------------------------------------------------------------------------------------

LONG = " ".join(f"reason{number}" for number in range(150))  # 1400 characters


def _long(folder: Path) -> Path:
    """A file whose first case fails for a reason that is longer than any line."""
    campaign = factory.small()
    check_failed(campaign)
    next(c for c in campaign.tables["checks"] if not c["passed"])["detail"] = LONG
    return campaign.write(folder / "results.h5")


@pytest.mark.parametrize("module", ["analysis.verdict", "harness"])
def test_a_reason_is_not_cut_where_nobody_looks_at_a_terminal(tmp_path: Path, module: str) -> None:
    verb = ["judge"] if module == "harness" else []
    done = subprocess.run(
        [sys.executable, "-m", module, *verb, str(_long(tmp_path))],
        capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 1
    assert [line.count(LONG) for line in done.stdout.splitlines() if line.startswith("FAIL")] == [1]


@pytest.mark.parametrize("width", [60, 150])
def test_on_a_terminal_a_reason_is_wrapped_at_its_width(tmp_path: Path, width: int) -> None:
    path = _long(tmp_path)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "analysis.verdict", str(path)], stdout=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    try:
        while True:
            said += os.read(ours, 65536)
    except OSError:  # the other end is closed: it has ended
        pass
    finally:
        os.close(ours)
        process.wait(timeout=60)
    lines = said.decode().splitlines()
    assert max(map(len, lines)) <= width
    assert LONG in " ".join(" ".join(lines).split())


def test_summaries_have_the_whole_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(_long(tmp_path)), "--json"]) == 1
    whys = [case["why"] for case in json.loads(capsys.readouterr().out)["cases"]]
    assert [why.count(LONG) for why in whys if LONG[:20] in why] == [1]
