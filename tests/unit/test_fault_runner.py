"""Which faults may strike in an attempt: those that have not, and that wait for none of this attempt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case, Fault
from harness.rundir import RunDir, append_line
from harness.runtime.fault_runner import FaultRunner

FAULTS = (
    Fault("a", "rank.kill", "rank.kill", "recovered", rank=0, at_step=3),
    Fault("b", "rank.kill", "rank.kill", "recovered", rank=0, at_step=3, after=("a",)),
    Fault("c", "rank.kill", "rank.kill", "recovered", rank=0, at_step=9),
    Fault("d", "rank.kill", "rank.kill", "recovered", rank=0, at_step=1, after=("b", "c")),
)
CASE = Case("c", "g", "torch.train", 2, 1, 0, 1, 50, 0, {}, faults=FAULTS)


def armed(folder: Path, attempt: int, **struck: int) -> tuple[int, ...]:
    run = RunDir(folder)
    run.job("0000").mkdir(parents=True)
    for fault, when in struck.items():
        line = {"kind": ev.FAULT_REQUESTED, "case_id": "c", "attempt": when, "data": {"fault_id": fault}}
        append_line(run.events("0000"), line)
        append_line(run.events("0000"), {**line, "case_id": "other", "data": {"fault_id": "a"}})
    supervisor: Any = SimpleNamespace(run=run, job=SimpleNamespace(key="0000"))
    return FaultRunner(supervisor).armed(CASE, attempt)


@pytest.mark.parametrize(
    ("struck", "attempt", "numbers"),
    [
        ({}, 0, (1, 3)),
        ({"a": 0}, 0, (3,)),  # not twice at the same step of one attempt
        ({"a": 0}, 1, (2, 3)),
        ({"a": 0, "c": 0}, 1, (2,)),
        ({"a": 0, "c": 0, "b": 1}, 1, ()),
        ({"a": 0, "c": 0, "b": 1}, 2, (4,)),
        ({"a": 0, "c": 0, "b": 1, "d": 2}, 3, ()),
    ],
)
def test_what_may_strike_is_told_by_what_is_on_record(
    struck: dict[str, int], attempt: int, numbers: tuple[int, ...], tmp_path: Path
) -> None:
    assert armed(tmp_path, attempt, **struck) == numbers


def test_a_fault_during_recovery_hits_the_nodes_of_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Fault("e", "node.power_off", "node.power_off", "recovered", node=1, at_event="recovery.begin")
    case = replace(CASE, faults=(again,))
    ended = Attempt("c", 0, "0000", "12", 0, 0, ("n1", "n2"), (), ("n1", "n2"), 0, 0)
    run = RunDir(tmp_path)
    run.job("0000").mkdir(parents=True)
    links = SimpleNamespace(live=lambda: ["n1", "n3", "n4"])
    supervisor: Any = SimpleNamespace(run=run, job=SimpleNamespace(key="0000"), links=links)
    runner = FaultRunner(supervisor)
    struck: list[Attempt] = []
    monkeypatch.setattr(runner, "_strike", lambda case, attempt, fault: struck.append(attempt))
    monkeypatch.setattr(runner, "_begin", lambda work: None)
    runner.moment(case, ended)
    assert [(a.nodes, a.rank_nodes) for a in struck] == [(("n1", "n3"), ("n1", "n3"))]
