"""Rows of /faults, /detections, /checkpoints and /digests from events whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness import collect_proofs
from harness.collect_faults import rows
from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case
from harness.model.event import Event
from harness.model.fault import Fault

MS = 1_000_000
START = 1_760_000_000_000 * MS


def event(kind: str, at_ms: int, attempt: int = 0, rank: int = -1, case_id: str = "c", **data: Any) -> Event:
    return Event(kind, START + at_ms * MS, at_ms * MS, "n1", "supervisor", case_id, attempt, rank, data)


def attempt(index: int, nodes: Sequence[str], start_ms: int, end_ms: int, outcome: str = "failed") -> Attempt:
    return Attempt(
        "c", index, "0001", "7", 0, index, ("n1", "n2", "n3"), (), tuple(nodes), START + start_ms * MS, 0,
        START + end_ms * MS, 0, outcome,
    )  # fmt: skip


def fault(number: int = 0, kind: str = "rank.kill", expect: str = "recovered", **values: Any) -> Fault:
    return Fault(f"c-f{number}", kind, kind, expect, **{"rank": 1, "at_step": 5, **values})


def case(*faults: Fault) -> Case:
    return Case(
        "c", "g", "torch.train", 2, 1, 0, 1, 20, 0, {}, faults=faults, recovery="warm-restart", max_restarts=3
    )


def facts(number: int, t1_ms: int, attempt: int = 0, **hit: Any) -> list[Event]:
    said = {"fault_id": f"c-f{number}", "hit": hit}
    return [
        event(ev.FAULT_REQUESTED, t1_ms - 5, attempt, **said),
        event(ev.FAULT_INJECTED, t1_ms, attempt, **said),
        event(ev.FAULT_OBSERVED, t1_ms + 3, attempt, **said),
    ]


def detected(at_ms: int, what: str, rank: int = -1, node: str = "", attempt: int = 0) -> Event:
    return event(ev.DETECTED, at_ms, attempt, what=what, rank=rank, node=node, step=5, evidence={"saw": "it"})


def steps(first: int, last: int, begin_ms: int) -> list[tuple[int, int]]:
    return [(s, START + (begin_ms + 10 * (s - first + 1)) * MS) for s in range(first, last + 1)]


PROGRESS = {
    ("c", 0): {0: steps(0, 5, 0), 1: steps(0, 4, 0)},
    ("c", 1): {0: steps(4, 19, 300), 1: steps(4, 19, 302)},
}
ATTEMPTS = [attempt(0, ["n1", "n2"], 0, 120), attempt(1, ["n1", "n2"], 150, 600, "completed")]


def restarted() -> list[Event]:
    """Attempt 0 left, attempt 1 running on both ranks and loaded."""
    return [
        event(ev.ATTEMPT_LEFT, 110),
        *(event(ev.RANK_RUNNING, 200 + 5 * rank, 1, rank) for rank in (0, 1)),
        *(event(ev.CHECKPOINT_RESTORED, 240 + 5 * rank, 1, rank, step=4, digest="d") for rank in (0, 1)),
    ]


def stamps(row: dict[str, Any]) -> dict[str, int]:
    """Stamps of a row of /faults in ms since START; those that are 0 are left out."""
    names = ("requested", "injected", "observed", "detected", "blamed", "left", "running", "loaded", "first_step",
             "recovered", "healed")  # fmt: skip
    return {n: (row[f"{n}_wall_ns"] - START) // MS for n in names if row[f"{n}_wall_ns"]}


def test_every_stamp_of_a_rank_that_was_killed() -> None:
    events = [*facts(0, 60, rank=1), detected(64, "dead", 1), *restarted()]
    (row,), (seen,) = rows(case(fault()), ATTEMPTS, events, [], PROGRESS)
    assert stamps(row) == {
        "requested": 55, "injected": 60, "observed": 63, "detected": 64, "blamed": 64, "left": 110, "running": 205,
        "loaded": 245, "first_step": 312, "recovered": 332,
    }  # fmt: skip
    assert {k: row[k] for k in ("target", "nodes", "trigger", "detector", "blamed", "policy")} == {
        "target": "rank 1", "nodes": '["n2"]', "trigger": "step 5", "detector": "dead", "blamed": "rank 1 on n2",
        "policy": "warm-restart",
    }  # fmt: skip
    assert (seen["fault_id"], seen["what"], seen["node"], json.loads(seen["evidence"])) == (
        "c-f0", "dead", "n2", {"saw": "it"},
    )  # fmt: skip


def test_who_is_blamed_wrongly_is_told_and_gives_no_t3() -> None:
    events = [*facts(0, 60, rank=1), detected(64, "hung", 0)]
    (row,), _ = rows(case(fault()), ATTEMPTS, events, [], PROGRESS)
    assert (row["blamed"], row["blamed_wall_ns"], row["detected_wall_ns"] > 0) == ("rank 0 on n1", 0, True)


def test_a_node_fault_is_blamed_by_its_node_or_a_rank_on_it() -> None:
    declared = fault(0, "node.power_off", rank=-1, node=1)
    for said in (detected(70, "silent", node="n2"), detected(70, "dead", 1)):
        events = [*facts(0, 60, nodes=["n2"]), said]
        (row,), _ = rows(case(declared), ATTEMPTS, events, [], PROGRESS)
        assert (row["target"], row["blamed_wall_ns"]) == ("node n2", START + 70 * MS)


def test_a_node_that_falls_silent_is_a_sign_for_the_case_that_had_it() -> None:
    declared = fault(0, "node.power_off", rank=-1, node=1)
    silent = [event(ev.NODE_SILENT, at, -1, case_id="", node=node) for at, node in ((62, "n9"), (75, "n2"))]
    (row,), _ = rows(case(declared), ATTEMPTS, facts(0, 60, nodes=["n2"]), silent, PROGRESS)
    assert row["detected_wall_ns"] == START + 75 * MS


def test_without_a_checkpoint_loading_ends_when_processes_run() -> None:
    events = [*facts(0, 60, rank=1), *(e for e in restarted() if e.kind != ev.CHECKPOINT_RESTORED)]
    (row,), _ = rows(case(fault()), ATTEMPTS, events, [], PROGRESS)
    assert row["loaded_wall_ns"] == row["running_wall_ns"] == START + 205 * MS


def test_a_detection_with_nothing_going_on_is_a_false_alarm() -> None:
    events = [
        detected(30, "hung", 0),
        *facts(0, 60, rank=1),
        detected(64, "dead", 1),
        detected(400, "frozen", 0, attempt=1),
    ]
    _, seen = rows(case(fault()), ATTEMPTS, events, [], PROGRESS)
    assert [(d["what"], d["fault_id"]) for d in seen] == [("hung", ""), ("dead", "c-f0"), ("frozen", "")]


def test_of_two_faults_at_once_each_has_its_own_detection() -> None:
    declared = (fault(0), fault(1, "rank.freeze", rank=0))
    events = [
        *facts(0, 60, rank=1),
        *facts(1, 65, rank=0),
        detected(70, "frozen", 0),
        detected(90, "dead", 1),
    ]
    (first, second), _ = rows(case(*declared), ATTEMPTS, events, [], PROGRESS)
    assert (stamps(first)["detected"], stamps(second)["detected"]) == (90, 70)


def test_a_decoy_has_no_signs_of_another_fault() -> None:
    declared = (fault(0, "rank.slow_step", "unharmed", duration_s=0.01), fault(1))
    events = [
        *facts(0, 20, rank=1),
        *facts(1, 5060, rank=1),
        event(ev.RANK_EXITED, 5062, rank=1),
        detected(5064, "dead", 1),
    ]
    (decoy, kill), (seen,) = rows(case(*declared), ATTEMPTS, events, [], PROGRESS)
    assert stamps(decoy) == {"requested": 15, "injected": 20, "observed": 23}
    assert (seen["fault_id"], stamps(kill)["detected"]) == ("c-f1", 5062)


def test_a_fault_that_its_attempt_survived_is_recovered_from_by_the_next_steps() -> None:
    one = [attempt(0, ["n1", "n2"], 0, 600, "completed")]
    progress = {("c", 0): {0: steps(0, 19, 0), 1: steps(0, 19, 1)}}
    (row,), _ = rows(case(fault(0, "controller.away", rank=-1)), one, facts(0, 45), [], progress)
    assert (stamps(row)["first_step"], stamps(row)["recovered"]) == (51, 51)


def test_a_damaged_checkpoint_is_noticed_by_the_restore_that_refuses_it() -> None:
    declared = (fault(0, "checkpoint.flip_bit", rank=-1), fault(1))
    refused = event(ev.CHECKPOINT_REFUSED, 230, 1, 0, why="step-00000004.0.0: rank-1.pt is damaged")
    events = [*facts(0, 50), *facts(1, 60, rank=1), detected(64, "dead", 1), refused, *restarted()]
    (damage, kill), _ = rows(case(*declared), ATTEMPTS, events, [], PROGRESS)
    assert (stamps(damage)["detected"], stamps(kill)["detected"]) == (230, 64)


def test_a_fault_that_was_never_requested_has_no_stamp() -> None:
    (row,), _ = rows(case(fault()), ATTEMPTS, [], [], PROGRESS)
    assert (row["requested"], row["attempt"], row["target"], stamps(row)) == (False, -1, "", {})


# --- checkpoints and digests ----------------------------------------------------------------------------------


def test_checkpoints_are_told_with_level_engine_and_reason() -> None:
    events = [
        event(
            ev.CHECKPOINT_COMMITTED,
            1,
            0,
            0,
            step=4,
            digest="d",
            bytes=9,
            level="shared",
            engine="dcp",
            times_s={"total": 7e-9},
        ),
        event(ev.CHECKPOINT_REFUSED, 2, 1, 0, why="step-4: damaged"),
        event(ev.CHECKPOINT_RESTORED, 3, 1, 0, step=4, digest="d"),
    ]
    found = collect_proofs.checkpoints(events)
    assert [
        (r["event"], r["step"], r["level"], r["engine"], r["bytes"], r["time_ns"], r["why"]) for r in found
    ] == [
        ("committed", 4, "shared", "dcp", 9, 7, ""),
        ("refused", -1, "", "", -1, -1, "step-4: damaged"),
        ("restored", 4, "", "", -1, -1, ""),
    ]


def test_a_state_that_is_told_twice_stands_once() -> None:
    events = [
        event(ev.STATE_DIGEST, 1, 0, 0, step=4, digest="d"),
        event(ev.CHECKPOINT_COMMITTED, 2, 0, 0, step=4, digest="d", bytes=9),
        event(ev.STATE_DIGEST, 3, 0, 1, step=4, digest="e"),
    ]
    assert [(r["rank"], r["step"], r["digest"]) for r in collect_proofs.digests(events)] == [
        (0, 4, "d"),
        (1, 4, "e"),
    ]
