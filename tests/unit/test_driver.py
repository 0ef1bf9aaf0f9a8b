"""What the driver decides, as a pure function of plan, ledger and what is seen."""

from harness.driver import End, LookUp, Seen, Submit, reconcile
from harness.ledger import Ledger
from harness.model.case import Case, Job, Plan, Submission
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
        End(
            "0001_0",
            {
                "state": "NODE_FAIL",
                "job_id": "6_0",
                "reason": "Slurm says NODE_FAIL (exit code 0:0)",
                **common,
            },
        ),
    ]


def test_a_job_of_which_slurm_says_nothing_is_not_over() -> None:
    assert reconcile(PLAN, BOTH, NOTHING) == []


def test_an_unknown_state_is_not_over() -> None:
    assert reconcile(PLAN, BOTH, Seen({"0000": _row("5", "NEW_STATE")}, {}, 0)) == []


def test_the_supervisors_last_word_ends_a_job_that_slurm_does_not_speak_of() -> None:
    seen = Seen({}, {"0000": {"job_id": "5", "wall_ns": 0}}, 0)
    assert reconcile(PLAN, BOTH, seen) == [End("0000", {"state": "", "reason": "", "job_id": "5"})]


def test_slurm_has_some_seconds_to_call_a_job_ended_whose_supervisor_said_its_last_word() -> None:
    rows, ends = {"0000": _row("5", "RUNNING")}, {"0000": {"job_id": "5", "wall_ns": 0}}
    assert reconcile(PLAN, BOTH, Seen(rows, ends, 14 * 10**9)) == []
    assert reconcile(PLAN, BOTH, Seen(rows, ends, 16 * 10**9)) == [
        End("0000", {"state": "", "reason": "", "job_id": "5"})
    ]


def test_an_ended_job_is_not_ended_again() -> None:
    known = Ledger(BOTH.submitting, BOTH.submitted, ended={"0000": {}, "0001_0": {}, "0001_1": {}})
    assert reconcile(PLAN, known, Seen({"0000": _row("5", "COMPLETED")}, {}, 0)) == []
