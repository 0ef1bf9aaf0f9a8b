"""The supervisor: one a job, what the batch script exec's. Walks the job's cases, attempt by attempt.

It claims the job's folder, starts one agent a node, starts each attempt, injects the declared faults,
decides by the case's recovery policy, and writes down what happened before it acts on it. It can be
killed at any moment: a restarted one reads the same files and goes on. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import failures
from harness.model import attempt as at
from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case, Job, Plan
from harness.model.event import Event
from harness.rundir import RunDir, append_line, private, read_lines, takes_no_more, write_atomic, write_json
from harness.runtime import detect, recover, succession
from harness.runtime.attempt_run import AttemptRun
from harness.runtime.fault_runner import FaultRunner
from harness.runtime.launcher import EXIT_REQUEUE, Launcher, LocalLauncher, SlurmLauncher
from harness.runtime.links import Links
from harness.slurm.commands import CommandError, run_command

EXIT_STEPPED_DOWN = 70  # another node goes on
LEASE_S = 5.0  # where the campaign says nothing
REQUEUE_BY_SLURM_S = 90.0  # how long Slurm may take to notice a dead node itself
REQUEUE_TAKEN_S = 180.0


class Supervisor:
    """One job's supervisor."""

    def __init__(
        self, run: RunDir, job: Job, plan: Plan, site: dict[str, Any], launcher: Launcher, round_: int = 0
    ) -> None:
        self.run, self.job, self.plan, self.site, self.launcher = run, job, plan, site, launcher
        self.round = round_
        self.redo: frozenset[str] = (
            frozenset()
        )  # cases that failed in an earlier round, and are done once more
        first_restart = 0
        if round_:
            why = run.read_json(run.round(job.key, round_), "cases", "first_restart")
            self.redo, first_restart = frozenset(why["cases"]), int(why["first_restart"])
        self.first_restart = first_restart
        # Counted on over rounds, so that what an older start commits late is always the older one.
        self.restart = first_restart + launcher.restart
        self.host = launcher.nodes[0]
        cases = [plan.case(case_id) for case_id in job.case_ids]
        self.links = Links(self, min(c.detection.get("lease_s", LEASE_S) for c in cases))
        self.stepped_down = False
        self.histories: dict[str, detect.History] = {}  # case -> what its attempts have taught
        lost = os.environ.get("HARNESS_LOST", "").split(",")
        self.lost_before = [node for node in launcher.nodes if node in lost]
        self.generation = int(os.environ.get("HARNESS_GENERATION", "0"))  # successors in this restart
        self._left_steps: list[asyncio.subprocess.Process] = []
        self.faults = FaultRunner(self)
        self.signal = asyncio.Event()
        self.signal_name = ""

    # --- records --------------------------------------------------------------------------------------

    def event(
        self,
        kind: str,
        case_id: str = "",
        attempt: int = -1,
        rank: int = -1,
        *,
        wall_ns: int = 0,
        **data: Any,
    ) -> Event:
        """Write one event, durably, before anything that follows from it; ``wall_ns`` where it was earlier than now."""
        now_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        if wall_ns:
            mono_ns -= now_ns - wall_ns
        event = Event(kind, wall_ns or now_ns, mono_ns, self.host, "supervisor", case_id, attempt, rank, data)
        self._append(self.run.events(self.job.key), event.to_json())
        return event

    def _append(self, path: Path, line: Mapping[str, Any]) -> None:
        """Append to the job's records; nothing once another node goes on: from then on they are that one's."""
        if not self.is_superseded():
            append_line(path, line)

    def history(self, case_id: str) -> tuple[list[Attempt], str]:
        """Attempts of a case that were started, the newest state of each; and the case's outcome, if it has one."""
        attempts: dict[int, Attempt] = {}
        outcome = ""
        for line in read_lines(self.run.attempts(self.job.key)):
            if line.get("what") == "attempt" and line["attempt"]["case_id"] == case_id:
                attempt = Attempt.from_json(line["attempt"])
                attempts[attempt.index] = attempt
            elif line.get("what") == "case_ended" and line["case_id"] == case_id:
                void = case_id in self.redo and line.get("round", 0) < self.round
                outcome = "" if void and line["outcome"] != at.COMPLETED else line["outcome"]
        return [attempts[i] for i in sorted(attempts)], outcome

    def write_attempt(self, attempt: Attempt) -> None:
        """Append the present state of an attempt."""
        self._append(self.run.attempts(self.job.key), {"what": "attempt", "attempt": attempt.to_json()})

    # --- the job --------------------------------------------------------------------------------------

    def claim(self) -> bool:
        """Take this key for this Slurm job; False when another job has it: execution is at most once."""
        folder = self.run.job(self.job.key)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = folder / f".claim.{os.getpid()}.{self.host}"
        write_json(mine, {"job_id": self.launcher.job_id, "wall_ns": time.time_ns()})
        try:
            os.link(mine, self.run.claim(self.job.key, self.round))
        except FileExistsError:
            pass
        finally:
            mine.unlink()
        claim = self.run.read_json(self.run.claim(self.job.key, self.round))
        return bool(claim["job_id"] == self.launcher.job_id)

    async def serve(self) -> int:
        """Run the job; returns the exit code of the batch script."""
        if not self.claim():
            print(f"{self.job.key} is claimed by another job; nothing to do here", flush=True)
            return 0
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        write_atomic(self.run.token(self.job.key), secrets.token_hex(32).encode())
        self.event(
            ev.JOB_STARTED,
            job_id=self.launcher.job_id,
            restart=self.restart,
            round=self.round,
            nodes=list(self.launcher.nodes),
            generation=self.generation,
            python=sys.version.split()[0],
            pid=os.getpid(),
        )
        failed = 0
        try:
            await self.links.start()
            for case_id in self.job.case_ids:
                case = self.plan.case(case_id)
                outcome = await self._case(case)
                if self.stepped_down:
                    return await self._stay_silent()
                if outcome is None:
                    return EXIT_REQUEUE
                failed += outcome != at.COMPLETED
                if self.signal.is_set():
                    return (
                        1  # the job is being taken away: what is left is not begun, and no last word is said
                    )
        except Exception:
            if not self.is_superseded():
                raise
            return await self._stay_silent()
        finally:
            await self.faults.stop()
            await self.links.stop()
            for step in self._left_steps:
                if step.returncode is None:
                    step.kill()
        if self.is_superseded():
            return await self._stay_silent()
        self.event(ev.JOB_ENDED, failed_cases=failed)
        write_json(
            self.run.end(self.job.key, self.round),
            {
                "wall_ns": time.time_ns(),
                "job_id": self.launcher.job_id,
                "restart": self.restart,
                "failed_cases": failed,
                # Whoever reads this elsewhere may not see yet what was written before it: harness.arrival.
                "attempts_bytes": self.run.attempts(self.job.key).stat().st_size,
                "events_bytes": self.run.events(self.job.key).stat().st_size,
            },
        )
        return 1 if failed else 0

    async def _stay_silent(self) -> int:
        """Wait for Slurm: to leave would end the job as soon as Slurm hears of it, under whoever took over."""
        self.signal.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.signal.wait(), 60.0 * self.job.time_limit_min)
        return EXIT_STEPPED_DOWN

    def _on_signal(self, number: int) -> None:
        self.signal_name = signal.Signals(number).name
        self.event(ev.JOB_SIGNALLED, signal=self.signal_name)
        self.signal.set()

    async def _case(self, case: Case) -> str | None:
        """Bring one case to its end; None when the job must be started again for that."""
        attempts, outcome = self.history(case.case_id)
        if outcome:
            return outcome
        if attempts and not attempts[-1].outcome:
            # Whoever ran it died before it could say how it ended.
            attempts[-1] = replace(
                attempts[-1], outcome=at.LOST, reason="its supervisor ended without a word"
            )
            self.write_attempt(attempts[-1])
            for node in self.lost_before[-1:]:  # whose supervisor heard nothing of it: it was on that node
                self.event(
                    ev.DETECTED,
                    case.case_id,
                    attempts[-1].index,
                    what=detect.SILENT,
                    node=node,
                    step=-1,
                    evidence="its supervisor was silent for a lease; this node took over",
                )
        if attempts:
            await self.faults.look_again(case)
        if any(a.restart >= self.first_restart for a in attempts):  # of this round
            decision = self._decide(case, attempts)
            if decision.what == recover.END:
                return await self._close(case, decision.outcome, decision.reason)
        policy = "first" if not attempts else case.recovery if self.generation else "requeue"
        while not self.is_superseded():
            epoch = sum(1 for a in attempts if a.restart == self.restart)
            attempt = await AttemptRun(self, case, index=len(attempts), epoch=epoch, policy=policy).go()
            attempts.append(attempt)
            if self.stepped_down:
                return None
            decision = self._decide(case, attempts)
            if decision.what == recover.END:
                return await self._close(case, decision.outcome, decision.reason)
            if decision.what == recover.REQUEUE:
                return await self._requeue(case, attempt)
            policy = case.recovery
            self.event(
                ev.RECOVERY_BEGUN,
                case.case_id,
                attempt.index,
                policy=policy,
                why=attempt.reason,
                nodes=self.links.live()[: case.nodes],
            )
            self.faults.moment(case, attempt)
        return None

    def _decide(self, case: Case, attempts: Sequence[Attempt]) -> recover.Decision:
        return recover.decide(
            case,
            attempts,
            live=len(self.links.live()),
            first_restart=self.first_restart,
            requeue=self.job.requeue,
        )

    def known_step(self, case_id: str) -> int:
        """The newest checkpoint on shared storage that any attempt left; 0 for none."""
        attempts, _ = self.history(case_id)
        return max((a.saved_step for a in attempts), default=0)

    def succession(self) -> dict[str, str]:
        """What agents are told so that one can take over from a lost supervisor; nothing where that cannot be."""
        in_place = all(self.plan.case(case_id).in_place for case_id in self.job.case_ids)
        if not in_place or self.site["launcher"] != "slurm" or self.site.get("container"):
            return {}
        submission = next(s.name for s in self.plan.submissions if self.job in s.jobs)
        return succession.variables(self.run, self.job.key, submission, self.restart, self.generation)

    def step_down(self) -> None:
        """This node is cut off from all others: end what runs here, and say no last word."""
        if not self.stepped_down and self.succession():
            self._step_down("no word from any other node: this one is cut off")

    def is_superseded(self) -> bool:
        """Whether another node goes on, or is to: then this one writes nothing more, also when its link is back.

        It steps down here where another has taken over while this process stood still.
        """
        claimed = self.run.successor(self.job.key, self.restart, self.generation + 1)
        if not self.stepped_down and claimed.exists():
            self._step_down("word that another node has taken over")
        return self.stepped_down

    def _step_down(self, why: str) -> None:
        self.stepped_down, self.signal_name = True, why
        self.signal.set()

    def leave_step(self, step: asyncio.subprocess.Process) -> None:
        """Wait for a broken step no longer; it ends by itself, its ranks are gone."""
        self._left_steps.append(step)

    async def _close(self, case: Case, outcome: str, reason: str) -> str:
        """A case has ended for good: undo its faults, write it down."""
        await self.faults.heal_all(case)
        self._append(
            self.run.attempts(self.job.key),
            {
                "what": "case_ended",
                "case_id": case.case_id,
                "outcome": outcome,
                "reason": reason,
                "round": self.round,
                "wall_ns": time.time_ns(),
                "events_bytes": self.run.events(self.job.key).stat().st_size,
            },
        )
        return outcome

    async def _requeue(self, case: Case, attempt: Attempt) -> str | None:
        """Have this job started again: by Slurm, which notices a dead node itself, or else by asking."""
        if attempt.outcome == at.NODE_LOST and self.links.silent_nodes() and not self.signal.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.signal.wait(), REQUEUE_BY_SLURM_S)
        if self.signal.is_set() and self.signal_name != "SIGUSR2":
            return None  # Slurm takes the job away; whether it starts it again, it knows alone
        await self.faults.proofs()
        self.event(ev.JOB_REQUEUE_ASKED, case.case_id, attempt.index, reason=attempt.reason)
        self.signal.clear()
        problem = await self.launcher.requeue()
        if problem:
            return await self._close(case, at.FAILED, f"{attempt.reason}; requeue was refused: {problem}")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.signal.wait(), REQUEUE_TAKEN_S)
        if not self.signal.is_set():
            return await self._close(
                case, at.FAILED, f"{attempt.reason}; Slurm took the requeue and did not act on it"
            )
        return None

    def progress(self, case: Case, attempt: int, step: int, state: str, steps: int = 0) -> None:
        """Tell whoever watches how far the case is; lost without harm."""
        if self.stepped_down:
            return
        path = self.run.progress(self.job.key)
        temporary = path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            told = {
                "case_id": case.case_id,
                "attempt": attempt,
                "step": step,
                "steps": max(steps, case.steps),
                "state": state,
                "wall_ns": time.time_ns(),
                "restart": self.restart,
            }
            with open(temporary, "w", encoding="utf-8", opener=private) as file:
                json.dump(told, file)
            temporary.replace(path)


def end_headless_job(launcher: Launcher) -> None:
    """End a job whose batch host was lost: Slurm waits for its batch script, which nobody runs any more."""
    with contextlib.suppress(CommandError):
        run_command(["scancel", launcher.job_id], timeout_s=30)


def main(arguments: list[str]) -> int:
    """``python -m harness.runtime.supervisor RUN SUBMISSION``."""
    run, name = RunDir(arguments[0]), arguments[1]
    plan = run.read_plan()
    submission = next(s for s in plan.submissions if s.name == name)
    site = run.read_site(submission.partition)
    local = site["launcher"] == "local"
    index = os.environ.get("HARNESS_ARRAY_INDEX" if local else "SLURM_ARRAY_TASK_ID", "0")
    job = submission.jobs[int(index)]
    round_ = int(os.environ.get("HARNESS_ROUND", "0"))
    launcher: Launcher = (
        LocalLauncher(os.environ, job.nodes) if local else SlurmLauncher.of_run(run, site, os.environ)
    )

    async def serve() -> int:
        return await Supervisor(run, job, plan, site, launcher, round_).serve()

    try:
        code = asyncio.run(serve())
        if int(os.environ.get("HARNESS_GENERATION", "0")):
            end_headless_job(launcher)
        return code
    except (
        Exception
    ) as error:  # the last word of a supervisor that cannot go on; its job's log is what people look at
        with contextlib.suppress(OSError):  # its log may be on the storage that takes no more
            traceback.print_exc()
        with contextlib.suppress(OSError):
            append_line(
                run.events(job.key),
                Event(
                    "supervisor.failed",
                    time.time_ns(),
                    time.monotonic_ns(),
                    launcher.nodes[0],
                    "supervisor",
                    data={"trace": traceback.format_exc()[-4000:]},
                ).to_json(),
            )
        full = isinstance(error, OSError) and takes_no_more(error)
        return failures.EXIT_STORAGE if full else 70


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
