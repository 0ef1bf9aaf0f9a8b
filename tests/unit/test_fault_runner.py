"""Which faults may strike in an attempt: those that have not, and that wait for none of this attempt."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case, Fault
from harness.rundir import RunDir, append_line
from harness.runtime import fault_runner
from harness.runtime.fault_runner import FaultRunner
from harness.runtime.page import GO_ON

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
    case = replace(CASE, faults=(again, replace(again, fault_id="f", at_count=2)))
    ended = Attempt("c", 0, "0000", "12", 0, 0, ("n1", "n2"), (), ("n1", "n2"), 0, 0)
    run = RunDir(tmp_path)
    run.job("0000").mkdir(parents=True)
    append_line(run.events("0000"), {"kind": ev.RECOVERY_BEGUN, "case_id": "other", "data": {}})
    append_line(run.events("0000"), {"kind": ev.RECOVERY_BEGUN, "case_id": "c", "data": {}})
    links = SimpleNamespace(live=lambda: ["n1", "n3", "n4"])
    supervisor: Any = SimpleNamespace(run=run, job=SimpleNamespace(key="0000"), links=links)
    runner = FaultRunner(supervisor)
    struck: list[Attempt] = []
    monkeypatch.setattr(runner, "_strike", lambda case, attempt, fault: struck.append(attempt))
    monkeypatch.setattr(runner, "_begin", lambda work: None)
    runner.moment(case, ended)
    assert [(a.nodes, a.rank_nodes) for a in struck] == [(("n1", "n3"), ("n1", "n3"))]


def leave(tmp_path: Path, effect_after_s: float, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], float]:
    """A supervisor stops while an effect is still to be seen: what it saw, and how long it stayed."""
    monkeypatch.setattr(fault_runner, "PROOF_S", 0.3)
    seen: list[str] = []

    async def proof() -> None:
        await asyncio.sleep(effect_after_s)
        seen.append("observed")

    async def go() -> float:
        runner = FaultRunner(SimpleNamespace())  # type: ignore[arg-type]
        runner._begin(proof())
        began = time.monotonic()
        await runner.stop()
        return time.monotonic() - began

    return seen, asyncio.run(go())


def test_an_effect_that_is_about_to_be_seen_is_waited_for_before_the_job_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, _ = leave(tmp_path, 0.1, monkeypatch)
    assert seen == ["observed"]


def test_an_effect_that_does_not_come_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, took_s = leave(tmp_path, 60.0, monkeypatch)
    assert seen == []
    assert took_s < 10


class Outside:
    """A fault from outside that takes until it is told, and its effect at once."""

    def __init__(self) -> None:
        self.struck, self.ready = asyncio.Event(), asyncio.Event()

    async def inject(self, lent: Any, hit: Any) -> dict[str, Any]:
        self.struck.set()
        await self.ready.wait()
        return {}

    async def verify_effect(self, lent: Any, hit: Any) -> dict[str, Any]:
        return {}


def test_ranks_that_hold_at_a_step_go_on_once_it_was_injected_and_late_ones_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(
        CASE, faults=(Fault("e", "node.power_off", "node.power_off", "recovered", node=1, at_step=3),)
    )
    attempt = Attempt("c", 0, "0000", "12", 0, 0, ("n1", "n2"), (), ("n1", "n2"), 0, 0)
    run = RunDir(tmp_path)
    run.job("0000").mkdir(parents=True)
    sent: list[tuple[str, int, int]] = []
    said: list[tuple[str, Any]] = []
    supervisor: Any = SimpleNamespace(
        run=run,
        job=SimpleNamespace(key="0000"),
        site={"launcher": "local"},
        launcher=SimpleNamespace(restart=0, nodes=()),
        signal=asyncio.Event(),
        links=SimpleNamespace(send=lambda node, what, rank, word: sent.append((node, rank, word))),
        event=lambda kind, case_id, index, **data: said.append((kind, data.get("step"))),
        history=lambda case_id: ([], []),
    )
    outside = Outside()
    monkeypatch.setattr("harness.faults.create", lambda kind: outside)
    of_attempt: Any = SimpleNamespace(
        case=case, attempt=attempt, own_steps=True, ranks=[SimpleNamespace(node=n) for n in ("n1", "n2")]
    )

    async def go() -> list[int]:
        runner = FaultRunner(supervisor)
        runner.attach(of_attempt)
        runner.waits(of_attempt, 0, 1)
        runner.poll(2, 2)  # the other has not begun it
        counts = [len(runner._tasks)]
        runner.poll(3, 2)
        await asyncio.wait_for(outside.struck.wait(), 5)
        counts.append(len(sent))
        outside.ready.set()
        await runner.proofs(5)
        counts.append(len(sent))
        runner.waits(of_attempt, 1, 1)
        return counts

    assert asyncio.run(go()) == [0, 0, 1]
    assert sent == [("n1", 0, 1 + GO_ON), ("n2", 1, 1 + GO_ON)]
    assert said == [(ev.FAULT_REQUESTED, 3), (ev.FAULT_INJECTED, None), (ev.FAULT_OBSERVED, None)]
