"""Every documented Slurm state has one meaning, and an unknown one is never "done"."""

import pytest

from harness.slurm.states import STATES, Kind, is_over, kind_of, node_is_usable

# squeue(1) JOB STATE CODES and sacct(1) of Slurm 25.05, by what they mean for whoever waits.
TABLE = {
    Kind.ALIVE: "PENDING CONFIGURING RUNNING SUSPENDED STOPPED COMPLETING RESIZING SIGNALING STAGE_OUT REQUEUED "
    "REQUEUE_FED REQUEUE_HOLD SPECIAL_EXIT RESV_DEL_HOLD POWER_UP_NODE EXPEDITING UPDATE_DB",
    Kind.ENDED_WELL: "COMPLETED",
    Kind.ENDED_BY_PROGRAM: "FAILED OUT_OF_MEMORY TIMEOUT",
    Kind.ENDED_BY_MACHINE: "NODE_FAIL BOOT_FAIL LAUNCH_FAILED RECONFIG_FAIL PREEMPTED",
    Kind.ENDED_BY_PERSON: "CANCELLED DEADLINE REVOKED",
}


def test_the_table_of_states_is_complete() -> None:
    assert {s: k for k, names in TABLE.items() for s in names.split()} == STATES


@pytest.mark.parametrize("state", [s for s, k in STATES.items() if k is Kind.ALIVE])
def test_a_job_in_a_living_state_is_not_over(state: str) -> None:
    assert not is_over(state)


@pytest.mark.parametrize("state", [s for s, k in STATES.items() if k is not Kind.ALIVE])
def test_a_job_in_an_ended_state_is_over(state: str) -> None:
    assert is_over(state)


@pytest.mark.parametrize("state", ["", "UNKNOWN", "SOMETHING_NEW", "?"])
def test_an_unknown_state_is_never_over(state: str) -> None:
    assert (kind_of(state), is_over(state)) == (Kind.UNKNOWN, False)


@pytest.mark.parametrize(
    ("printed", "kind"),
    [
        ("CANCELLED by 1000", Kind.ENDED_BY_PERSON),
        ("RUNNING+", Kind.ALIVE),
        ("completed", Kind.ENDED_WELL),
        (" NODE_FAIL ", Kind.ENDED_BY_MACHINE),
    ],
)
def test_what_clients_add_to_a_state_does_not_change_it(printed: str, kind: Kind) -> None:
    assert kind_of(printed) is kind


@pytest.mark.parametrize(
    "state", ["IDLE", "ALLOCATED", "MIXED", "IDLE+PLANNED", "MIXED+PLANNED", "IDLE+COMPLETING"]
)
def test_a_node_that_slurm_gives_to_jobs_is_usable(state: str) -> None:
    assert node_is_usable(state)


@pytest.mark.parametrize(
    "state",
    [
        "DOWN",
        "DOWN*",
        "IDLE*",
        "IDLE+DRAIN",
        "ALLOCATED+DRAIN",
        "IDLE+NOT_RESPONDING",
        "IDLE+POWERED_DOWN",
        "IDLE~",
        "UNKNOWN",
        "FUTURE",
        "IDLE+MAINTENANCE",
        "IDLE+SOMETHING_NEW",
        "",
    ],
)
def test_a_node_that_does_not_answer_or_is_taken_out_is_not_usable(state: str) -> None:
    assert not node_is_usable(state)
