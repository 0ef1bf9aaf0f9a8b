"""What follows an attempt that did not complete."""

from __future__ import annotations

from typing import Any

import pytest

from harness.model import attempt as at
from harness.model.attempt import Attempt
from harness.model.case import Case
from harness.runtime.checkpoint_files import NONE_USABLE
from harness.runtime.recover import AGAIN, END, REQUEUE, Decision, decide


def case(recovery: str, **more: Any) -> Case:
    values: dict[str, Any] = {"max_restarts": 0 if recovery == "none" else 2, **more}
    return Case("c", "g", "torch.train", 2, 1, 0, 1, 50, 0, {}, recovery=recovery, **values)


def attempt(
    outcome: str, index: int = 0, *, begun: int = 7, blamed: int = 7, restart: int = 0, reason: str = "why"
) -> Attempt:
    return Attempt(
        "c", index, "0000", "12", restart, index, ("a", "b"), (), ("a", "b"), 1, 1,
        outcome=outcome, reason=reason, last_begun=begun, blamed_step=blamed,
    )  # fmt: skip


def after(
    what: Case, *attempts: Attempt, live: int = 2, first_restart: int = 0, requeue: bool = True
) -> Decision:
    return decide(what, attempts, live=live, first_restart=first_restart, requeue=requeue)


@pytest.mark.parametrize("recovery", ["none", "requeue", "new-step", "warm-restart"])
def test_what_completed_has_ended(recovery: str) -> None:
    assert after(case(recovery), attempt(at.COMPLETED, reason="")) == Decision(END, at.COMPLETED, "")


@pytest.mark.parametrize("outcome", [at.FAILED, at.NODE_LOST, at.INTERRUPTED])
@pytest.mark.parametrize(
    ("recovery", "then"), [("none", END), ("requeue", REQUEUE), ("new-step", AGAIN), ("warm-restart", AGAIN)]
)
def test_each_policy_has_its_own_way(outcome: str, recovery: str, then: str) -> None:
    if recovery in ("new-step", "warm-restart") and outcome == at.INTERRUPTED:
        then = END  # the allocation is being taken away
    expected = Decision(END, outcome, "why") if then == END else Decision(then)
    assert after(case(recovery), attempt(outcome)) == expected


def test_a_requeue_that_the_job_does_not_allow_is_the_end() -> None:
    assert after(case("requeue"), attempt(at.NODE_LOST), requeue=False) == Decision(END, at.NODE_LOST, "why")


@pytest.mark.parametrize("recovery", ["requeue", "new-step", "warm-restart"])
def test_a_program_that_failed_before_it_computed_is_not_tried_again(recovery: str) -> None:
    assert after(case(recovery), attempt(at.FAILED, begun=-1)) == Decision(END, at.FAILED, "why")
    assert after(case(recovery), attempt(at.NODE_LOST, begun=-1)).what != END


def test_a_second_failure_in_the_midst_of_a_recovery_is_recovered_from() -> None:
    history = attempt(at.NODE_LOST), attempt(at.FAILED, 1, begun=-1)
    assert after(case("new-step"), *history) == Decision(AGAIN)


def test_a_case_of_which_every_checkpoint_is_damaged_is_not_tried_again() -> None:
    reason = f"rank 0: {NONE_USABLE}: all refused"
    assert after(case("warm-restart"), attempt(at.FAILED, reason=reason)) == Decision(END, at.FAILED, reason)


def test_a_failure_that_comes_again_ends_with_its_step_and_how_often() -> None:
    history = [attempt(at.FAILED, n) for n in range(3)]
    assert after(case("warm-restart"), *history[:2]) == Decision(AGAIN)
    assert after(case("warm-restart"), *history) == Decision(
        END,
        at.FAILED,
        "why; not recovered after 3 attempts (max_restarts 2), each time at step 7",
    )


def test_the_step_that_is_named_is_the_blamed_ranks_and_not_the_furthest() -> None:
    history = [attempt(at.FAILED, n, begun=8 + n, blamed=7) for n in range(3)]
    assert after(case("warm-restart"), *history).reason.endswith("(max_restarts 2), each time at step 7")


def test_failures_at_other_steps_are_not_called_the_same() -> None:
    history = [attempt(at.FAILED, n, blamed=n) for n in range(3)]
    assert after(case("requeue"), *history).reason == "why; not recovered after 3 attempts (max_restarts 2)"


def test_attempts_of_an_earlier_round_count_no_more() -> None:
    history = [attempt(at.FAILED, n, restart=n) for n in range(3)]
    assert after(case("requeue"), *history, first_restart=1) == Decision(REQUEUE)


@pytest.mark.parametrize(
    ("spares", "live", "expected"),
    [
        (1, 2, Decision(AGAIN)),
        (1, 1, Decision(END, at.NODE_LOST, "why; 1 of its nodes are left, it needs 2 and had 1 spare")),
        (0, 1, Decision(END, at.NODE_LOST, "why; 1 of its nodes are left, it needs 2 and had 0 spares")),
    ],
)
def test_without_a_spare_left_it_has_ended(spares: int, live: int, expected: Decision) -> None:
    assert after(case("new-step", spares=spares), attempt(at.NODE_LOST), live=live) == expected


def test_a_workload_that_can_goes_on_with_fewer_nodes_but_not_with_none() -> None:
    shrinking = case("new-step", shrink=True)
    assert after(shrinking, attempt(at.NODE_LOST), live=1) == Decision(AGAIN)
    assert after(shrinking, attempt(at.NODE_LOST), live=0).what == END
