"""Strikes the declared faults of a case when they are due, proves each, and heals it. Standard library only.

Every fault runs beside the attempt that it hits: nobody waits for its proof. What a rank does to itself is told by
its agent after it happened; what is done from outside is on record before it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import faults
from harness.faults import FaultError, Hit, guard, tools
from harness.model import event as ev
from harness.model import fault as model
from harness.model.attempt import Attempt
from harness.model.case import Case, Fault
from harness.rundir import read_lines
from harness.runtime import world
from harness.runtime.page import GO_ON
from harness.runtime.rank_effects import Effects, OtherEnd, gone
from harness.runtime.strike_pace import Pace

if TYPE_CHECKING:
    from harness.runtime.attempt_run import AttemptRun
    from harness.runtime.supervisor import Supervisor

OBSERVE_S = 30.0
HEAL_S = 60.0
LOOK_S = 0.1
DELAYED_S = 0.5  # what is later than this is said to be
RANK_LOOK_S = 0.05
PROOF_S = 2.0  # before the job is left: how long an effect may take to be seen
TAKEN_S = 3.0  # the same where the job is being taken away
DRAIN_S = 45.0  # at the end of a case: what its faults' proofs may still take


class FaultRunner:
    """Lends faults their tools, and keeps their three facts."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._s = supervisor
        self._tasks: set[asyncio.Task[None]] = set()
        self._requested: dict[
            str, dict[str, int]
        ] = {}  # case -> faults that were requested -> in which attempt
        self._waiting: dict[int, list[int]] = {}  # fault -> ranks of the attempt that hold at its step
        self._done: set[int] = set()  # faults at a step of the attempt that were injected, or refused
        self._begun = -1  # the step that every rank of the attempt has begun
        self._first_step_ns: dict[
            str, int
        ] = {}  # case -> when its first step was seen to be finished, wall ns
        self._paces: dict[str, Pace] = {}
        self._delayed_s: dict[str, float] = {}  # fault -> how much later than drawn it was struck
        self._run: AttemptRun | None = None
        self._runs: dict[tuple[str, int], AttemptRun] = {}  # of this supervisor, by case and attempt

    # --- tools ------------------------------------------------------------------------------------------

    async def power(self, action: str, node: str) -> dict[str, Any]:
        """See ``harness.faults.Tools``."""
        means, slots = self._s.site.get("power"), self._s.run.powered_off
        if action == "off":
            allowed = self._s.run.may_power_off()
            job_id = self._s.launcher.job_id if self._s.site["launcher"] == "slurm" else ""
            await guard.may_switch_off(self, self._s.site, allowed, slots, node, job_id)
        answer = await tools.power(means, action, node)
        if answer["said"] == "on":
            guard.give_back(slots, node)
        return answer

    async def emulated(self, arguments: Sequence[str]) -> dict[str, Any]:
        """See ``harness.faults.Tools``."""
        return await tools.emulated(self._s.site, arguments)

    async def slurm(self, command: Sequence[str]) -> str:
        """See ``harness.faults.Tools``."""
        return await tools.slurm(self._s.site, command)

    def tell_agent(self, node: str, message: str) -> None:
        """See ``harness.faults.Tools``."""
        self._s.links.send(node, message)

    def lost(self, node: str) -> str:
        """See ``harness.faults.Tools``."""
        return self._s.links.lost(node) if node in self._s.links.links else "not in this job any more"

    async def slurm_state(self, node: str) -> str:
        """See ``harness.faults.Tools``."""
        return "" if self._s.site["launcher"] == "local" else await tools.slurm_state(node)

    # --- what is due ------------------------------------------------------------------------------------

    def facts(self, case: Case) -> dict[str, dict[str, Any]]:
        """What is on record of each fault of a case: fact -> the event's data; over all attempts."""
        found: dict[str, dict[str, Any]] = {f.fault_id: {} for f in case.faults}
        for line in read_lines(self._s.run.events(self._s.job.key)):
            if line["case_id"] == case.case_id and line["kind"].startswith("fault."):
                found.setdefault(line["data"]["fault_id"], {})[line["kind"]] = line["data"]
        return found

    def armed(self, case: Case, attempt: int) -> tuple[int, ...]:
        """Numbers, from 1, of the faults that may strike in an attempt: those that have not, and wait for none."""
        struck = self._requests(case)
        return tuple(
            number
            for number, fault in enumerate(case.faults, 1)
            if fault.fault_id not in struck and all(struck.get(f, attempt) < attempt for f in fault.after)
        )

    def _requests(self, case: Case) -> dict[str, int]:
        if case.case_id not in self._requested:
            self._requested[case.case_id] = {
                line["data"]["fault_id"]: line["attempt"]
                for line in read_lines(self._s.run.events(self._s.job.key))
                if line["case_id"] == case.case_id and line["kind"] == ev.FAULT_REQUESTED
            }
        return self._requested[case.case_id]

    def attach(self, run: AttemptRun) -> None:
        """An attempt has begun; what is told of its ranks comes to ``struck`` and ``waits``."""
        self._run, self._begun = run, -1
        self._waiting, self._done = {}, set()
        self._runs[run.case.case_id, run.attempt.index] = run

    def moments(self, case: Case) -> dict[str, int]:
        """How many of each moment the case has had in the attempts before, as far as is known of them."""
        attempts, _ = self._s.history(case.case_id)
        return {m: max((a.moments.get(m, 0) for a in attempts), default=0) for m in model.MOMENTS}

    def poll(self, begun: int, finished: int) -> None:
        """Strike what is due in the attempt that runs.

        Args:
            begun: the step that every rank has begun.
            finished: the highest step that any rank has finished.
        """
        run = self._run
        if run is None or not run.case.faults:
            return
        case, self._begun = run.case, begun
        since_s = self._since_first_step_s(case) if finished >= 0 else -1.0
        at_peace = self._pace(case).may_strike(time.monotonic(), finished)
        for number in self.armed(case, run.attempt.index):
            fault = case.faults[number - 1]
            kind = model.KINDS[fault.kind]
            in_time = 0 <= fault.at_s <= since_s
            if in_time and fault.may_miss:
                if not at_peace:
                    continue
                at_peace = False
            if in_time:
                self._delayed_s[fault.fault_id] = since_s - fault.at_s
            if kind.where == model.JOB and (in_time or 0 <= fault.at_step <= begun):
                self._begin(self._strike(case, run.attempt, fault, then=partial(self._release, run, number)))
            elif kind.where == model.RANK and (
                in_time or (0 <= fault.at_step <= begun and not run.own_steps)
            ):
                self._strike_rank(run, number, fault)

    def _since_first_step_s(self, case: Case) -> float:
        """Seconds since the case's first step, those of earlier attempts included; a step is known to be finished."""
        if case.case_id not in self._first_step_ns:
            attempts, _ = self._s.history(case.case_id)
            known = [a.first_step_wall_ns for a in attempts if a.first_step_wall_ns]
            self._first_step_ns[case.case_id] = min(known, default=time.time_ns())
        return (time.time_ns() - self._first_step_ns[case.case_id]) / 1e9

    def _pace(self, case: Case) -> Pace:
        return self._paces.setdefault(case.case_id, Pace())

    def _request(self, case: Case, attempt: int, data: dict[str, Any], wall_ns: int = 0) -> None:
        """Put on record that a fault strikes; how much later than it was drawn, where that is much."""
        self._pace(case).struck(time.monotonic())
        if (late_s := self._delayed_s.get(data["fault_id"], 0.0)) > DELAYED_S:
            data = {**data, "delayed_s": round(late_s, 3)}
        self._s.event(ev.FAULT_REQUESTED, case.case_id, attempt, wall_ns=wall_ns, **data)

    def moment(self, case: Case, attempt: Attempt) -> None:
        """A recovery begins; what strikes hits the nodes of the attempt that is about to be made."""
        nodes = tuple(self._s.links.live()[: case.nodes])
        attempt = replace(
            attempt, nodes=nodes, rank_nodes=tuple(n for n in nodes for _ in range(case.ranks_per_node))
        )
        count = sum(
            line["case_id"] == case.case_id and line["kind"] == ev.RECOVERY_BEGUN
            for line in read_lines(self._s.run.events(self._s.job.key))
        )
        for number in self.armed(case, attempt.index + 1):
            fault = case.faults[number - 1]
            if fault.at_event == model.RECOVERY and fault.at_count <= count:
                self._begin(self._strike(case, attempt, fault))

    def waits(self, run: AttemptRun, rank: int, number: int) -> None:
        """A rank waits at a moment or step for a fault from outside; at a step it strikes once all have begun it."""
        fault = run.case.faults[number - 1]
        if fault.at_step >= 0 and number not in self._done:
            self._waiting.setdefault(number, []).append(rank)
            return
        if number not in self.armed(run.case, run.attempt.index):
            return self._go_on(run, rank, number)

        async def strike() -> None:
            await self._strike(run.case, run.attempt, fault, then=lambda: self._go_on(run, rank, number))

        self._begin(strike())

    def _release(self, run: AttemptRun, number: int) -> None:
        """A fault was injected, or never will be: ranks that hold for it at its step go on."""
        if run is self._run:
            self._done.add(number)
            for rank in self._waiting.pop(number, ()):
                self._go_on(run, rank, number)

    def _go_on(self, run: AttemptRun, rank: int, number: int) -> None:
        self._s.links.send(run.ranks[rank].node, "command", rank=rank, word=number + GO_ON)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what a rank does to itself ---------------------------------------------------------------------

    def _strike_rank(self, run: AttemptRun, number: int, fault: Fault) -> None:
        rank = 0 if fault.role else fault.rank
        if rank >= len(run.ranks) or run.ranks[rank].ended:
            return
        self._requests(run.case)[fault.fault_id] = run.attempt.index
        self._pace(run.case).struck(time.monotonic())
        node = run.ranks[rank].node
        signal = model.KINDS[fault.kind].signal
        if signal and not (signal == "SIGTERM" and run.case.recovery == "requeue"):  # which its ranks ignore
            self._s.links.send(node, "signal", rank=rank, signal=signal, fault=number)
        else:
            self._s.links.send(node, "command", rank=rank, word=number)

    def struck(self, run: AttemptRun, rank: int, number: int, wall_ns: int, step: int) -> None:
        """An agent tells that a rank does a fault, since ``wall_ns`` by its node\'s clock."""
        case, fault = run.case, run.case.faults[number - 1]
        self._requests(case)[fault.fault_id] = run.attempt.index
        node = run.ranks[rank].node
        hit = Hit(fault.kind, (node,), rank, fault.duration_s, fault.params)
        common = _common(fault, hit)
        index = run.attempt.index
        self._request(case, index, {**common, "step": step}, wall_ns)
        injected = {**common, "evidence": {"step": step}}
        self._s.event(ev.FAULT_INJECTED, case.case_id, index, wall_ns=wall_ns, **injected)
        self._begin(self._prove_rank(run, rank, number, hit))

    def _say(self, kind: str, case: Case, attempt: int, **data: Any) -> None:
        """Put on record that an effect is there, or never will be."""
        self._pace(case).seen(time.monotonic())
        self._s.event(kind, case.case_id, attempt, **data)

    async def _prove_rank(self, run: AttemptRun, rank: int, number: int, hit: Hit) -> None:
        fault = run.case.faults[number - 1]
        effects = Effects(run, rank, number, fault.kind, fault.duration_s)
        began, continued = time.monotonic(), False
        ends = model.KINDS[fault.kind].lasts and fault.duration_s > 0  # by itself, and the rank goes on
        seen: dict[str, Any] | None = None

        def say(kind: str, **data: Any) -> None:
            self._say(kind, run.case, run.attempt.index, **_common(fault, hit), **data)

        while time.monotonic() - began < OBSERVE_S + fault.duration_s:
            try:
                if seen is None and (seen := effects.seen()) is not None:
                    say(ev.FAULT_OBSERVED, evidence=seen)
            except OtherEnd as error:
                return say(ev.FAULT_REFUSED, why=str(error))
            due = time.monotonic() - began >= fault.duration_s
            if model.KINDS[fault.kind].signal == "SIGSTOP" and ends and due and not continued:
                continued = True
                self._s.links.send(hit.node, "signal", rank=rank, signal="SIGCONT")
            if seen is not None and not ends:
                return
            if seen is not None and due and (moves := effects.moves_again()) is not None:
                return say(ev.FAULT_HEALED, evidence=moves)
            if run.over and (seen is not None or time.monotonic() - run.over > 1.0):
                return
            await asyncio.sleep(RANK_LOOK_S)

    # --- the course of a fault from outside -------------------------------------------------------------

    def _hit(self, attempt: Attempt, fault: Fault, case: Case) -> Hit:
        nodes: tuple[str, ...] = ()
        if fault.role == "batch_host":
            nodes = (self._s.host,)
        elif fault.rank >= 0 or fault.role:
            rank = max(fault.rank, 0)
            nodes = (attempt.rank_nodes[min(rank, len(attempt.rank_nodes) - 1)],)
        elif fault.node >= 0 or fault.nodes:
            of_attempt = [attempt.nodes[i] for i in fault.nodes or (fault.node,) if i < len(attempt.nodes)]
            nodes = tuple(of_attempt)
        return Hit(
            kind=fault.kind,
            nodes=nodes,
            rank=fault.rank,
            duration_s=fault.duration_s,
            params={**fault.params, "restarts_before": self._s.launcher.restart},
            lease=fault.fault_id,
            checkpoints=str(self._checkpoints(case)),
            job_id=self._s.launcher.job_id if self._s.site["launcher"] == "slurm" else "",
            job_nodes=self._s.launcher.nodes,
        )

    def _checkpoints(self, case: Case) -> Path:
        """Where the case's checkpoints on shared storage are."""
        key, run = self._s.job.key, self._s.run
        if case.command is None:
            return run.checkpoints(key, case.case_id)
        return world.checkpoints_of(case, str(run.program_case(key, case.case_id)))

    async def _strike(self, case: Case, attempt: Attempt, fault: Fault, then: Any = lambda: None) -> None:
        if fault.fault_id in self._requests(case):
            return
        self._requests(case)[fault.fault_id] = attempt.index
        hit = self._hit(attempt, fault, case)
        kind = faults.create(fault.kind)
        common = _common(fault, hit)
        self._request(case, attempt.index, {**common, "step": self._begun})
        seen = None
        try:
            evidence = await kind.inject(self, hit)
            self._s.event(ev.FAULT_INJECTED, case.case_id, attempt.index, **common, evidence=evidence)
            then()
            end = time.monotonic() + OBSERVE_S
            while seen is None and time.monotonic() < end:
                seen = self._taken(fault) or await kind.verify_effect(self, hit)
                if seen is None:
                    await asyncio.sleep(LOOK_S)
        except FaultError as error:
            self._say(ev.FAULT_REFUSED, case, attempt.index, **common, why=str(error))
            then()
            return
        if seen is not None:
            self._say(ev.FAULT_OBSERVED, case, attempt.index, **common, evidence=seen)

    def _taken(self, fault: Fault) -> dict[str, Any] | None:
        """Of a fault of the job: that Slurm has come for it. There is no time to ask more."""
        if model.KINDS[fault.kind].hits != "job" or not self._s.signal.is_set():
            return None
        return {"supervisor": f"received {self._s.signal_name}"}

    async def look_again(self, case: Case) -> None:
        """After a restart: look for the effect of faults whose supervisor did not live to see it.

        Only what can still be seen counts, such as a node that is off; when it happened is not known.
        """
        known = self.facts(case)
        for fault in case.faults:
            facts = known[fault.fault_id]
            if ev.FAULT_REQUESTED not in facts or {ev.FAULT_OBSERVED, ev.FAULT_HEALED} & set(facts):
                continue
            if model.KINDS[fault.kind].where == model.RANK:
                continue  # its process is gone, and with it what could be seen
            hit = hit_of(facts[ev.FAULT_REQUESTED])
            try:
                seen = await faults.create(fault.kind).verify_effect(self, hit)
            except FaultError:
                continue
            if seen is not None:
                evidence = {**seen, "seen": "after the restart"}
                self._s.event(ev.FAULT_OBSERVED, case.case_id, -1, **_common(fault, hit), evidence=evidence)

    async def heal_all(self, case: Case) -> None:
        """Let proofs come to their end, then undo every fault of the case that was requested and is not healed yet."""
        await self.proofs(DRAIN_S if not self._s.signal.is_set() else TAKEN_S)
        known = self.facts(case)
        for fault in case.faults:
            facts = known[fault.fault_id]
            if ev.FAULT_REQUESTED not in facts or ev.FAULT_HEALED in facts:
                continue
            hit = hit_of(facts[ev.FAULT_REQUESTED])
            if model.KINDS[hit.kind].where == model.RANK:
                run = self._runs.get((case.case_id, self._requests(case)[fault.fault_id]))
                proof = gone(run, hit.rank)
                healed, evidence = proof is not None, proof or {"why": "its process still runs"}
            else:
                healed, evidence = await heal(self, hit)
            kind = ev.FAULT_HEALED if healed else ev.FAULT_UNHEALED
            self._s.event(kind, case.case_id, -1, **_common(fault, hit), evidence=evidence)

    async def proofs(self, at_most_s: float | None = None) -> None:
        """Let what was struck be seen before this supervisor leaves: its successor has no means to see it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PROOF_S if at_most_s is None else at_most_s)

    async def stop(self) -> None:
        """Leave what still runs."""
        await self.proofs()
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _common(fault: Fault, hit: Hit) -> dict[str, Any]:
    return {
        "fault_id": fault.fault_id,
        "fault": fault.kind,
        "node": hit.node,
        "rank": hit.rank,
        "hit": hit.to_json(),
    }


def hit_of(requested: Mapping[str, Any]) -> Hit:
    """What a fault hit, from the data of its ``fault.requested``."""
    if "hit" in requested:
        return Hit.from_json(requested["hit"])
    return Hit(requested["fault"], (requested["node"],))  # by a harness that knew only nodes


async def heal(lent: faults.Tools, hit: Hit) -> tuple[bool, dict[str, Any]]:
    """Undo one fault and look until it is undone, for at most a minute; whether it is, and the evidence."""
    if model.KINDS[hit.kind].where == model.RANK:
        return True, {"nothing_to_undo": "the process that it hit has ended, or went on"}
    kind = faults.create(hit.kind)
    end = time.monotonic() + HEAL_S
    try:
        await kind.heal(lent, hit)
        while time.monotonic() < end:
            evidence = await kind.verify_healed(lent, hit)
            if evidence is not None:
                return True, evidence
            await asyncio.sleep(0.2)
    except FaultError as error:
        return False, {"why": str(error)}
    return False, {"why": f"not seen to be healed within {HEAL_S:g} s"}
