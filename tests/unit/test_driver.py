"""What the driver decides, as a pure function of plan, ledger and what is seen."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from harness import ledger
from harness.driver import Driver
from harness.ledger import Ledger
from harness.model.case import Case, Job, Plan, Policy, Submission
from harness.model.design import Lot, Question
from harness.reconcile import Again, End, Judge, LookUp, Over, Seen, Submit, Weigh, complete, reconcile
from harness.rundir import IDENTITY_KEYS, SITE_KEYS, RunDir, write_json
from harness.slurm.commands import CALLS
from harness.slurm.query import JobRow


def _case(name: str) -> Case:
    return Case(name, "g", "mpi.halo", 1, 1, 0, 1, 10, 1, {})


SINGLE = Submission("0000", (Job("0000", 1, 1, 5, ("a",), False),), "mpi.sh.j2")
ARRAY = Submission(
    "0001", (Job("0001_0", 1, 1, 5, ("b",), False), Job("0001_1", 1, 1, 5, ("c",), False)), "mpi.sh.j2"
)
PLAN = Plan((_case("a"), _case("b"), _case("c")), (SINGLE, ARRAY))
NOTHING = Seen({}, {}, 0)


def _row(job_id: str, state: str) -> JobRow:
    return JobRow(job_id, "n", state, "0:0", "p1", "s", "e")


def test_a_new_run_submits_everything_in_the_plans_order() -> None:
    assert reconcile(PLAN, Ledger(), NOTHING) == [Submit(SINGLE), Submit(ARRAY)]


def test_on_one_machine_one_submission_runs_at_a_time() -> None:
    assert reconcile(PLAN, Ledger(), NOTHING, one_at_a_time=True) == [Submit(SINGLE)]
    running = Ledger(submitting={"0000": 1}, submitted={"0000": "1"})
    assert reconcile(PLAN, running, NOTHING, one_at_a_time=True) == []


def test_a_submission_of_unknown_outcome_is_looked_up_and_not_repeated() -> None:
    known = Ledger(submitting={"0000": 1, "0001": 1}, submitted={"0001": "7"})
    assert reconcile(PLAN, known, NOTHING) == [LookUp((SINGLE,))]


def test_a_refused_submission_ends_its_jobs_with_the_reason() -> None:
    known = Ledger(
        submitting={"0000": 1, "0001": 1}, submitted={"0000": "5"}, refused={"0001": "bad account"}
    )
    facts = {"state": "REFUSED", "reason": "bad account"}
    assert reconcile(PLAN, known, NOTHING) == [End("0001_0", facts), End("0001_1", facts)]


BOTH = Ledger(submitting={"0000": 1, "0001": 1}, submitted={"0000": "5", "0001": "6"})


def test_a_job_that_slurm_calls_over_ends_and_one_it_calls_alive_does_not() -> None:
    seen = Seen(
        {
            "0000": _row("5", "COMPLETED"),
            "0001_0": _row("6_0", "NODE_FAIL"),
            "0001_1": _row("6_1", "SUSPENDED"),
        },
        {"0000": {"job_id": "5"}},
        0,
    )
    common = {"exit_code": "0:0", "nodes": "p1", "start": "s", "end": "e"}
    assert reconcile(PLAN, BOTH, seen) == [
        End("0000", {"state": "COMPLETED", "job_id": "5", "reason": "", **common}),
        Over("0001_0", "NODE_FAIL"),
    ]
    noted = dataclasses.replace(BOTH, over={"0001_0": 0})
    failed = End(
        "0001_0",
        {"state": "NODE_FAIL", "job_id": "6_0", "reason": "Slurm says NODE_FAIL (exit code 0:0)", **common},
    )
    assert reconcile(PLAN, noted, seen)[1:] == [failed]


def test_a_last_word_has_time_to_be_seen_after_slurm_calls_the_job_over() -> None:
    known = dataclasses.replace(BOTH, over={"0000": 100 * 10**9})
    rows = {"0000": _row("5", "COMPLETED")}
    assert reconcile(PLAN, known, Seen(rows, {}, 159 * 10**9), visible_after_s=60) == []
    late = reconcile(
        PLAN, known, Seen(rows, {"0000": {"job_id": "5", "wall_ns": 0}}, 159 * 10**9), visible_after_s=60
    )
    assert [(a.key, a.facts["reason"]) for a in late if isinstance(a, End)] == [("0000", "")]
    never = reconcile(PLAN, known, Seen(rows, {}, 160 * 10**9), visible_after_s=60)
    assert [(a.key, a.facts["reason"]) for a in never if isinstance(a, End)] == [
        ("0000", "Slurm says COMPLETED (exit code 0:0)")
    ]


def test_a_job_of_which_slurm_says_nothing_is_not_over() -> None:
    assert reconcile(PLAN, BOTH, NOTHING) == []


def test_an_unknown_state_is_not_over() -> None:
    assert reconcile(PLAN, BOTH, Seen({"0000": _row("5", "NEW_STATE")}, {}, 0)) == []


def test_the_supervisors_last_word_ends_a_job_that_slurm_does_not_speak_of() -> None:
    seen = Seen({}, {"0000": {"job_id": "5", "wall_ns": 0}}, 16 * 10**9)
    assert reconcile(PLAN, BOTH, seen) == [End("0000", {"state": "", "reason": "", "job_id": "5"})]


def test_a_job_that_nobody_knows_any_more_has_ended_for_an_unknown_reason() -> None:
    gone = dataclasses.replace(_row("5", ""), gone=True, exit_code="", nodes="", start="", end="")
    known = dataclasses.replace(BOTH, over={"0000": 0})
    why = "Slurm knows no such job any more, and its supervisor left no last word"
    facts = {"state": "", "exit_code": "", "nodes": "", "start": "", "end": "", "job_id": "5", "reason": why}
    assert reconcile(PLAN, known, Seen({"0000": gone}, {}, 1)) == [End("0000", facts)]


def test_slurm_has_some_seconds_to_call_a_job_ended_whose_supervisor_said_its_last_word() -> None:
    rows, ends = {"0000": _row("5", "RUNNING")}, {"0000": {"job_id": "5", "wall_ns": 0}}
    assert reconcile(PLAN, BOTH, Seen(rows, ends, 14 * 10**9)) == []
    assert reconcile(PLAN, BOTH, Seen(rows, ends, 16 * 10**9)) == [
        End("0000", {"state": "", "reason": "", "job_id": "5"})
    ]


def test_an_ended_job_is_not_ended_again() -> None:
    known = Ledger(BOTH.submitting, BOTH.submitted, ended={"0000": {}, "0001_0": {}, "0001_1": {}})
    assert reconcile(PLAN, known, Seen({"0000": _row("5", "COMPLETED")}, {}, 0)) == []


# ---- once more ----


def _failed(plan: Plan, **failures: str) -> Ledger:
    """All jobs have ended; these cases failed for the first time, each in its class."""
    homes = {case: job.key for s in plan.submissions for job in s.jobs for case in job.case_ids}
    ended = {key: {"failures": {}} for key in homes.values()}
    for case, failure in failures.items():
        ended[homes[case]]["failures"][case] = failure
    return dataclasses.replace(BOTH, ended=ended, failures=dict.fromkeys(failures.items(), 1))


RETRYING = dataclasses.replace(PLAN, policy=Policy(retry={"machine": 1, "unknown": 2}))


def test_a_failure_is_tried_again_as_often_as_its_class_allows() -> None:
    known = _failed(RETRYING, b="machine", c="program")
    assert reconcile(RETRYING, known, NOTHING) == [Again("0001", 1, {"0001_0": {"b": "machine"}})]
    assert not complete(RETRYING, known)
    twice = dataclasses.replace(known, failures={("b", "machine"): 2, ("c", "program"): 1})
    assert reconcile(RETRYING, twice, NOTHING) == []
    assert complete(RETRYING, twice)


def test_classes_are_counted_apart() -> None:
    known = dataclasses.replace(
        _failed(RETRYING, b="unknown"), failures={("b", "machine"): 1, ("b", "unknown"): 2}
    )
    assert reconcile(RETRYING, known, NOTHING) == [Again("0001", 1, {"0001_0": {"b": "unknown"}})]


def test_a_round_submits_some_jobs_of_the_planned_script_under_a_name_of_its_own() -> None:
    line = {"of": "0001", "round": 1, "keys": ["0001_1"]}
    ended = {"0000": {}, "0001_0": {}}
    known = dataclasses.replace(BOTH, ended=ended, rounds=(line,))
    (action,) = reconcile(RETRYING, known, NOTHING)
    assert isinstance(action, Submit)
    again = action.submission
    assert (again.name, again.script, again.round, again.tasks, again.is_array) == (
        "0001.1",
        "0001",
        1,
        (1,),
        True,
    )
    assert again.jobs == (ARRAY.jobs[1],)
    assert again.task_id(0, "77") == "77_1"


# ---- what groups wait for, and how much may be queued ----


def _in(group: str, name: str) -> Case:
    return dataclasses.replace(_case(name), group=group)


def _waiting(**waits: tuple[str, ...]) -> Plan:
    later = dataclasses.replace(ARRAY, **waits)
    return Plan((_in("first", "a"), _in("second", "b"), _in("second", "c")), (SINGLE, later))


def test_a_group_waits_until_those_before_it_have_ended() -> None:
    plan = _waiting(after=("first",))
    assert reconcile(plan, Ledger(), NOTHING) == [Submit(SINGLE)]
    done = Ledger(submitting={"0000": 1}, submitted={"0000": "5"}, ended={"0000": {}})
    assert reconcile(plan, done, NOTHING) == [Submit(plan.submissions[1])]


def test_a_group_that_others_need_is_judged_when_it_has_ended_and_they_run_if_it_passed() -> None:
    plan = _waiting(needs=("first",))
    done = Ledger(submitting={"0000": 1}, submitted={"0000": "5"}, ended={"0000": {}})
    assert reconcile(plan, done, NOTHING) == [Judge("first", ("a",))]
    passed = dataclasses.replace(done, judged={"first": {"a": "pass"}})
    assert reconcile(plan, passed, NOTHING) == [Submit(plan.submissions[1])]


def test_a_group_whose_need_did_not_pass_is_never_run_and_says_why() -> None:
    plan = _waiting(needs=("first",))
    for verdict in ("fail", "unknown", "invalid"):
        known = Ledger(
            submitting={"0000": 1},
            submitted={"0000": "5"},
            ended={"0000": {}},
            judged={"first": {"a": verdict}},
        )
        facts = {"state": "SKIPPED", "reason": f"not run: it needs first, and first/n1/r0 is {verdict}"}
        assert reconcile(plan, known, NOTHING) == [End("0001_0", facts), End("0001_1", facts)]


# ---- repeats that are added until they are enough ----

FIRST = Submission("0000", (Job("0000", 1, 1, 5, ("a",), False),), "mpi.sh.j2")
MORE_OF_IT = tuple(
    Submission(
        f"000{wave}", (Job(f"000{wave}", 1, 1, 5, (case,), False),), "mpi.sh.j2", lot="g/n1", wave=wave
    )
    for wave, case in ((1, "b"), (2, "c"))
)
LOT = Lot("g/n1", "g", Question("loss", "median"), 0.02, 0.95, 1, 3, 1, None, {"g/n1": ("a", "b", "c")})
REPEATED = Plan(PLAN.cases, (FIRST, *MORE_OF_IT), lots=(LOT,))
FIRST_ENDED = Ledger(submitting={"0000": 1}, submitted={"0000": "5"}, ended={"0000": {}})


def test_more_repeats_wait_for_those_before_them() -> None:
    assert reconcile(REPEATED, Ledger(), NOTHING) == [Submit(FIRST)]
    assert reconcile(REPEATED, dataclasses.replace(FIRST_ENDED, ended={}), NOTHING) == []


def test_when_repeats_have_ended_it_is_asked_once_whether_the_next_wave_is_needed() -> None:
    assert reconcile(REPEATED, FIRST_ENDED, NOTHING) == [Weigh(LOT, 1)]
    asked = dataclasses.replace(FIRST_ENDED, weighed={"g/n1": 1})
    assert reconcile(REPEATED, asked, NOTHING) == [Submit(MORE_OF_IT[0])]


def test_repeats_that_are_to_be_tried_again_have_not_ended() -> None:
    plan = dataclasses.replace(REPEATED, policy=Policy(retry={"machine": 1}))
    failed = dataclasses.replace(
        FIRST_ENDED, ended={"0000": {"failures": {"a": "machine"}}}, failures={("a", "machine"): 1}
    )
    assert reconcile(plan, failed, NOTHING) == [Again("0000", 1, {"0000": {"a": "machine"}})]


def test_when_repeats_are_enough_the_others_are_closed_with_the_reason() -> None:
    known = dataclasses.replace(
        FIRST_ENDED, weighed={"g/n1": 1}, closed={"g/n1": ("enough", "interval ±1.4 % after 9 repeats")}
    )
    facts = {"state": "NOT_NEEDED", "reason": "not needed: interval ±1.4 % after 9 repeats"}
    assert reconcile(REPEATED, known, NOTHING) == [End("0001", facts), End("0002", facts)]
    ended = dataclasses.replace(known, ended={"0000": {}, "0001": facts, "0002": facts})
    assert complete(REPEATED, ended)


def test_repeats_that_could_never_be_enough_are_not_run_and_that_is_no_pass() -> None:
    known = dataclasses.replace(FIRST_ENDED, weighed={"g/n1": 1}, closed={"g/n1": ("never", "no figure")})
    facts = {"state": "SKIPPED", "reason": "not run: no figure"}
    assert reconcile(REPEATED, known, NOTHING) == [End("0001", facts), End("0002", facts)]


def test_a_group_whose_further_repeats_were_not_needed_is_judged_by_those_that_ran() -> None:
    later = Submission("0009", (Job("0009", 1, 1, 5, ("z",), False),), "mpi.sh.j2", needs=("g",))
    cases = (*REPEATED.cases, dataclasses.replace(_case("z"), group="later"))
    plan = dataclasses.replace(REPEATED, cases=cases, submissions=(*REPEATED.submissions, later))
    spared = {"state": "NOT_NEEDED", "reason": "not needed: x"}
    known = dataclasses.replace(FIRST_ENDED, ended={"0000": {}, "0001": spared, "0002": spared})
    assert reconcile(plan, known, NOTHING) == [Judge("g", ("a",))]


def test_without_the_plan_of_its_lot_a_wave_waits_for_nothing() -> None:
    replayed = Plan(PLAN.cases, (MORE_OF_IT[1],))
    assert reconcile(replayed, Ledger(), NOTHING) == [Submit(MORE_OF_IT[1])]


def test_the_ledger_keeps_how_far_a_lot_was_asked_about_and_why_it_was_closed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    ledger.write(run, ledger.WEIGHED, "g/n1", wave=1, answer="more", why="too few")
    assert (ledger.read(run).weighed, ledger.read(run).closed) == ({"g/n1": 1}, {})
    ledger.write(run, ledger.WEIGHED, "g/n1", wave=2, answer="enough", why="narrow")
    known = ledger.read(run)
    assert (known.weighed, known.closed) == ({"g/n1": 2}, {"g/n1": ("enough", "narrow")})


def test_no_more_jobs_are_queued_than_allowed_and_nothing_overtakes() -> None:
    plan = Plan(PLAN.cases, (ARRAY, SINGLE), Policy(max_jobs_in_queue=2))
    assert reconcile(plan, Ledger(), NOTHING) == [Submit(ARRAY)]
    queued = Ledger(submitting={"0001": 1}, submitted={"0001": "6"}, ended={"0001_0": {}})
    assert reconcile(plan, queued, NOTHING) == [Submit(SINGLE)]


def test_after_not_now_nothing_is_submitted_for_a_while() -> None:
    known = Ledger(deferred={"0000": 10 * 10**9})
    assert reconcile(PLAN, known, Seen({}, {}, 69 * 10**9)) == []
    assert reconcile(PLAN, known, Seen({}, {}, 71 * 10**9)) == [Submit(SINGLE), Submit(ARRAY)]


# ---- jobs that wait ----


class _Held:
    """A scheduler whose one job is held."""

    one_at_a_time = False
    free = False

    def __init__(self) -> None:
        self.asked = 0

    def rows(self, jobs: Any, finished: Any, settled: Any = ()) -> dict[str, JobRow]:
        return {key: _row(job_id, "PENDING") for key, job_id in jobs.items()}

    def reasons(self, jobs: Any) -> dict[str, str]:
        self.asked += 1
        CALLS["squeue"] += 1
        return dict.fromkeys(jobs, "JobHeldAdmin")


def test_a_job_that_waits_for_what_may_never_come_is_told_and_asked_of_once_in_a_while(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path)
    site: dict[str, Any] = {key: {} for key in SITE_KEYS} | {"scheduler": {"poll_s": 1}, "launcher": "slurm"}
    write_json(run.site, site)
    write_json(run.plan, Plan((_case("a"),), (SINGLE,)).to_json())
    write_json(run.identity, dict.fromkeys(IDENTITY_KEYS, "") | {"run_id": "ab"})
    ledger.write(run, ledger.SUBMITTING, "0000")
    ledger.write(run, ledger.SUBMITTED, "0000", job_id="5")
    held: Any = _Held()
    driver = Driver(run, held)
    driver.step(ask=True)
    assert (driver.words, held.asked) == ("", 0)  # it has only just been queued
    long_ago = json.loads(run.ledger.read_text().splitlines()[1]) | {"wall_ns": 0}
    run.ledger.write_text(run.ledger.read_text().splitlines()[0] + "\n" + json.dumps(long_ago) + "\n")
    for _ in range(3):
        driver.step(ask=True)
    assert driver.words == "job 5 waits for what may never come: Slurm says JobHeldAdmin"
    assert held.asked == 1
