"""One attempt of one case, from its folder to its last record. Standard library only.

This is its course. What agents say of it is ``attempt_told``; its ranks are started by ``attempt_start``, judged by
``attempt_blame`` and ended by ``attempt_end``.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from harness import failures
from harness.model import attempt as at
from harness.model import event as ev
from harness.model import fault
from harness.model.attempt import Attempt
from harness.model.case import Case
from harness.runtime import armed, page
from harness.runtime.attempt_blame import Blame, Ending
from harness.runtime.attempt_end import End
from harness.runtime.attempt_start import Start
from harness.runtime.attempt_told import POLL_S, Told
from harness.runtime.channel import Message
from harness.runtime.rank_view import blame_s, culprit
from harness.slurm.commands import CommandError

if TYPE_CHECKING:
    from harness.runtime.supervisor import Supervisor

PREPARE_S = 150.0
GRACE_S = 3.0  # after a rank failed: time for the others to say what they saw
BLAME_POLL_S = 0.005
PROGRESS_S = 0.5


class AttemptRun:
    """Runs one attempt."""

    def __init__(self, supervisor: Supervisor, case: Case, index: int, epoch: int, policy: str = "") -> None:
        self.s, self.case = supervisor, case
        nodes = tuple(supervisor.links.live()[: case.nodes])
        self.attempt = Attempt(
            case_id=case.case_id,
            index=index,
            job_key=supervisor.job.key,
            slurm_job_id=_slurm_id(supervisor),
            restart=supervisor.restart,
            epoch=epoch,
            nodes=nodes,
            step_ids=(),
            rank_nodes=tuple(n for n in nodes for _ in range(case.ranks_per_node)),
            start_wall_ns=time.time_ns(),
            start_mono_ns=time.monotonic_ns(),
            policy=policy,
        )
        self.folder = supervisor.run.attempt(supervisor.job.key, case.case_id, self.attempt.folder)
        self.own_loop = case.command is None
        self.own_steps = self.own_loop or armed.cooperates(case)  # its ranks strike themselves at a step
        self._told = Told(supervisor, self.attempt, self._on_fault)
        self.ranks, self.finished, self.felt = self._told.ranks, self._told.finished, self._told.felt
        self._start = Start(supervisor, case, self.attempt, self.folder, self._told)
        self._blame = Blame(supervisor, case, self.attempt, self._told, self._start)
        self._end = End(supervisor, case, self.attempt, self.folder, self._told)
        self._first_step_ns = 0  # when a step was first seen to be finished, wall
        self.over = 0.0  # when its end was decided, monotonic

    async def go(self) -> Attempt:
        """Run it; returns the attempt as it ended, written down."""
        self._told.listen()
        self.folder.mkdir(mode=0o700, parents=True)
        self.s.write_attempt(self.attempt)
        self.s.event(
            ev.ATTEMPT_STARTED,
            self.case.case_id,
            self.attempt.index,
            nodes=list(self.attempt.nodes),
            restart=self.attempt.restart,
            epoch=self.attempt.epoch,
        )
        self.s.faults.attach(self)
        ending = await self._run()
        self.over = time.monotonic()
        ending, streams = await self._end.settle(self._start, ending)
        self.attempt = replace(
            self.attempt,
            streams=streams,
            outcome=ending.outcome,
            reason=ending.reason,
            end_wall_ns=time.time_ns(),
            end_mono_ns=time.monotonic_ns(),
            last_step=self._told.slowest().finished if self.ranks else -1,  # none: no node was usable
            last_begun=max((r.begun for r in self.ranks), default=-1),
            blamed_step=self._blame.step(),
            first_step_wall_ns=self._first_step_ns,
            moments=self._moments(),
            saved_step=self._end.saved_step(),
            fell_silent=(number := culprit(self.ranks)) is not None and self.ranks[number].fell_silent,
            failure=self._blame.failure(ending),
        )
        self.s.write_attempt(self.attempt)
        self.s.event(
            ev.ATTEMPT_ENDED,
            self.case.case_id,
            self.attempt.index,
            outcome=ending.outcome,
            reason=ending.reason,
        )
        self._told.leave()
        return self.attempt

    def _moments(self) -> dict[str, int]:
        """How many of each moment the case has had now: what earlier attempts had, and the furthest of these ranks."""
        here = [max((r.moments[i] for r in self.ranks), default=0) for i in range(len(fault.MOMENTS))]
        before = self.s.faults.moments(self.case)
        return {m: before[m] + n for m, n in zip(fault.MOMENTS, here, strict=True)}

    def _on_fault(self, message: Message) -> None:
        """A rank does a fault, or waits for one."""
        rank, number = message["rank"], message["fault"]
        if message["type"] == "fault_fired":
            self.s.faults.struck(self, rank, number, message["wall_ns"], message["step"])
        else:
            self.s.faults.waits(self, rank, number)

    # --- the course of it -----------------------------------------------------------------------------

    async def _run(self) -> Ending:
        if len(self.attempt.nodes) < (1 if self.case.shrink else self.case.nodes):
            return await self._blame.too_few_nodes()
        deadline = time.monotonic() + self.case.time_limit_min * 60
        self._start.prepare()
        if (ending := await self._until_prepared(deadline)) is not None:
            return ending
        if problem := self._start.without_gpus():
            return Ending(at.FAILED, problem, failures.PROGRAM)
        try:
            await self._start.ranks()
        except CommandError as error:
            return Ending(at.FAILED, str(error))
        return await self._follow(deadline)

    async def _until_prepared(self, deadline: float) -> Ending | None:
        """Wait until every node is ready; else why the attempt ends before its ranks begin."""
        ready_by = min(deadline, time.monotonic() + PREPARE_S)
        prepared = self._told.prepared
        while len(prepared) < len(self.attempt.nodes):
            if problem := self._told.lost_node():
                return await self._blame.lost(problem)
            if self.s.signal.is_set():
                return Ending(at.INTERRUPTED, f"received {self.s.signal_name} while starting")
            if time.monotonic() > ready_by:
                missing = sorted(set(self.attempt.nodes) - set(prepared))
                return Ending(at.FAILED, f"not ready within {PREPARE_S:g} s: {', '.join(missing)}")
            await self._told.tick()
        for node, answer in prepared.items():
            if answer["problem"]:
                return Ending(at.FAILED, f"{node}: {answer['problem']}")
        return None

    async def _follow(self, deadline: float) -> Ending:
        """Until the ranks have ended, or are to be."""
        told = 0.0
        failed_at: float | None = None
        while True:
            if self.s.signal.is_set():
                saved = await self._end.save(self._blame.step_s())
                return Ending(at.INTERRUPTED, f"received {self.s.signal_name}{saved}")
            if problem := self._told.lost_node():
                return await self._blame.lost(problem)
            if all(r.ended for r in self.ranks):
                return await self._blame.ended()
            if any(r.ended and r.state != page.DONE for r in self.ranks):
                failed_at = failed_at or time.monotonic()
                wait_s = blame_s(self.ranks) if self.case.in_place else GRACE_S
                if time.monotonic() - failed_at > wait_s:
                    return await self._blame.ended()
            if finding := self._blame.look():
                return Ending(at.FAILED, finding)
            if await self._start.again():
                continue
            if self._start.step_code() is not None:
                failed_at = failed_at or time.monotonic()
                if time.monotonic() - failed_at > GRACE_S:
                    return await self._blame.ended()
            if time.monotonic() > deadline:
                return self._too_late()
            self._poll_faults()
            if time.monotonic() - told > PROGRESS_S:
                told = time.monotonic()
                self._tell_progress()
            await self._told.tick(POLL_S if failed_at is None else BLAME_POLL_S)

    def _too_late(self) -> Ending:
        slowest = self._told.slowest()
        reason = (
            f"not finished within its {self.case.time_limit_min} minutes; slowest rank is at step "
            f"{slowest.finished + 1} of {max(slowest.of, self.case.steps)}"
        )
        return Ending(at.FAILED, reason, failures.TIME_LIMIT)

    def _poll_faults(self) -> None:
        """Note the first step, and have done what is due by now."""
        finished = max((r.finished for r in self.ranks), default=-1)
        if finished >= 0:
            self._first_step_ns = self._first_step_ns or time.time_ns()
        self.s.faults.poll(self._told.slowest().begun, finished)

    def _tell_progress(self) -> None:
        slowest = self._told.slowest()
        done = slowest.finished + 1
        state = page.STATES[slowest.state]
        self.s.progress(self.case, self.attempt.index, done, state, max(slowest.of, done))


def _slurm_id(supervisor: Supervisor) -> str:
    return supervisor.launcher.job_id if supervisor.site["launcher"] == "slurm" else ""
