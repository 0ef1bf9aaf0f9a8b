"""Why a case did not end well: a class for every way, told by those who were there before Slurm is believed."""

from typing import Any

import pytest

from harness import failures
from harness.slurm.states import STATES, Kind


def _attempt(outcome: str, failure: str = "", case_id: str = "a") -> dict[str, Any]:
    return {"what": "attempt", "attempt": {"case_id": case_id, "outcome": outcome, "failure": failure}}


def _ended(outcome: str, case_id: str = "a") -> dict[str, Any]:
    return {"what": "case_ended", "case_id": case_id, "outcome": outcome}


@pytest.mark.parametrize(
    ("lines", "state", "expected"),
    [
        (
            [_attempt("completed"), _ended("completed")],
            "NODE_FAIL",
            "",
        ),  # it was done before the job was lost
        ([_attempt("failed", "program"), _ended("failed")], "FAILED", "program"),
        ([_attempt("failed"), _ended("failed")], "FAILED", "program"),  # of an older harness
        ([_attempt("failed", "memory"), _ended("failed")], "FAILED", "memory"),
        ([_attempt("failed", "time_limit"), _ended("failed")], "FAILED", "time_limit"),
        ([_attempt("node_lost", "machine"), _ended("node_lost")], "FAILED", "machine"),
        ([_attempt("node_lost"), _ended("node_lost")], "FAILED", "machine"),
        ([_attempt("interrupted", "time_limit"), _ended("interrupted")], "TIMEOUT", "time_limit"),
        ([_attempt("interrupted"), _ended("interrupted")], "PREEMPTED", "preempted"),
        ([_attempt("interrupted"), _ended("interrupted")], "CANCELLED by 0", "cancelled"),
        ([_attempt("interrupted"), _ended("interrupted")], "", "unknown"),
        ([_attempt("")], "NODE_FAIL", "machine"),  # nobody lived to write its end
        ([_attempt("")], "OUT_OF_MEMORY", "memory"),
        ([_attempt("")], "TIMEOUT", "time_limit"),
        ([_attempt("")], "", "unknown"),  # gone from Slurm as well
        ([], "BOOT_FAIL", "machine"),
        ([], "LAUNCH_FAILED", "machine"),
        ([], "DEADLINE", "time_limit"),
        ([], "FAILED", "unknown"),  # the prologue, perhaps
        ([], "A_STATE_OF_NEXT_YEAR", "unknown"),
        ([_ended("completed", "b")], "CANCELLED by 1", "cancelled"),  # another case of the job
        ([_ended("failed"), _attempt("completed"), _ended("completed")], "COMPLETED", ""),  # a later round
    ],
)
def test_each_way_to_fail_has_its_class(lines: list[dict[str, Any]], state: str, expected: str) -> None:
    assert failures.of_case("a", lines, state) == expected


def test_every_documented_final_state_gives_a_class_to_a_case_that_it_left_undone() -> None:
    final = [s for s, kind in STATES.items() if kind not in (Kind.ALIVE, Kind.UNKNOWN) and s != "COMPLETED"]
    found = {state: failures.of_case("a", [], state) for state in final}
    assert set(found.values()) <= set(failures.CLASSES)
    assert {state for state, failure in found.items() if failure == "unknown"} == {"FAILED", "REVOKED"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("MemoryError: ", "memory"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "memory"),
        ("torch.OutOfMemoryError: CUDA out of memory", "memory"),
        ("killed for memory: its cgroup reached the job's limit", "memory"),
        ("ValueError: not a MemoryError", "program"),
        ("", "program"),
    ],
)
def test_a_ranks_last_words_tell_memory_from_other_errors(words: str, expected: str) -> None:
    assert failures.of_words(words) == expected


def _silent(node: str, why: str = "no beat from its agent for 5.0 s") -> dict[str, Any]:
    return {"kind": "node.silent", "data": {"node": node, "how": "silent", "why": why}}


def test_nodes_that_fell_silent_are_blamed_and_those_of_other_failures_are_not() -> None:
    events = [_silent("p2"), {"kind": "job.started", "data": {}}]
    assert failures.lost_nodes(events, "p[1-2]", ["machine"]) == {"p2": "its agent fell silent"}
    assert failures.lost_nodes(events, "p[1-2]", ["program", "preempted"]) == {}


def test_the_only_node_of_a_job_is_blamed_and_of_several_none() -> None:
    assert failures.lost_nodes([], "p3", ["machine"]) == {"p3": "its job was ended by the machine"}
    assert failures.lost_nodes([], "p[1-2]", ["machine"]) == {}
    assert failures.lost_nodes([], "", ["machine"]) == {}


def test_no_node_is_blamed_for_a_controller_that_is_away() -> None:
    why = "its agent ended with code 1: srun: error: Unable to confirm allocation: Unable to contact slurm controller"
    assert failures.lost_nodes([_silent("p1", why)], "p[1-2]", ["machine"]) == {}


def test_names_that_the_cluster_does_not_know_are_never_excluded() -> None:
    assert failures.exclusion(["p9", "p1"], ["p2", "gone"], ["p1", "p2", "p3"], 1) == (["p1", "p2"], [])


def test_suspects_are_let_in_when_too_few_nodes_would_be_left_but_what_the_site_excludes_is_not() -> None:
    cluster = ["p1", "p2", "p3", "p4"]
    assert failures.exclusion(["p1"], ["p2", "p3"], cluster, 2) == (["p1", "p2"], ["p3"])
