"""The driver: compares plan, ledger and cluster, decides in a pure function, acts once, and again.

It can be killed at any instruction; started again on the same run folder it goes on. One driver at a
time holds the run's lock. It asks the scheduler one question a poll, and reads how far cases are from
the run folder, which costs the scheduler nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import healing, ledger
from harness.ledger import Ledger
from harness.model.case import Job, Plan, Submission
from harness.rundir import RunDir, RunFolderError, write_json
from harness.scheduler import Scheduler, create
from harness.slurm.commands import CALLS, CommandError, is_refusal
from harness.slurm.query import JobRow
from harness.slurm.states import is_over
from harness.views import CaseView, task_id, views

MAX_POLL_S = 15.0
LOOKUP_WAIT_S = 5.0
MAX_TRIES = 8  # of an sbatch whose outcome is unknown each time, with the controller answering in between
GIVE_UP_S = 1800.0  # of a scheduler that does not answer: then whoever started us should know
SETTLE_S = 15.0  # after a supervisor's last word: how long Slurm may take to call its job ended


@dataclass(frozen=True)
class Submit:
    """Call sbatch for a submission that is certainly not in the queue."""

    submission: Submission


@dataclass(frozen=True)
class LookUp:
    """Ask whether a submission of unknown outcome is in the queue."""

    submissions: tuple[Submission, ...]


@dataclass(frozen=True)
class End:
    """A job has ended; write it down."""

    key: str
    facts: Mapping[str, Any]


Action = Submit | LookUp | End


@dataclass(frozen=True)
class Seen:
    """What is known of the cluster and the run folder at one moment."""

    rows: Mapping[str, JobRow]  # job key -> Slurm's word
    ends: Mapping[str, Mapping[str, Any]]  # job key -> the supervisor's last word
    wall_ns: int


def reconcile(plan: Plan, known: Ledger, seen: Seen, *, one_at_a_time: bool = False) -> list[Action]:
    """What to do next. Pure; the order is the plan's.

    A submission that was begun and has no job id is looked up before anything else is done with it. A
    job is over when its supervisor said so, or when Slurm says so in a state that cannot change.
    """
    actions: list[Action] = []
    unclear = unclear_submissions(plan, known)
    if unclear:
        actions.append(LookUp(unclear))
    busy = False
    for submission in plan.submissions:
        name = submission.name
        if name in known.refused:
            for job in submission.jobs:
                if job.key not in known.ended:
                    actions.append(End(job.key, {"state": "REFUSED", "reason": known.refused[name]}))
            continue
        if name not in known.submitted:
            if name not in known.submitting and not (one_at_a_time and busy):
                actions.append(Submit(submission))
                busy = True
            continue
        for job in submission.jobs:
            if job.key in known.ended:
                continue
            row, end = seen.rows.get(job.key), seen.ends.get(job.key)
            if row is not None and is_over(row.state):
                actions.append(End(job.key, _facts(row, end)))
            elif end is not None and (row is None or seen.wall_ns - end["wall_ns"] > SETTLE_S * 1e9):
                actions.append(End(job.key, {"state": "", "reason": "", "job_id": end["job_id"]}))
            else:
                busy = True
    return actions


def unclear_submissions(plan: Plan, known: Ledger) -> tuple[Submission, ...]:
    """Submissions that were begun, and of which nobody knows whether they are in the queue."""
    return tuple(
        s
        for s in plan.submissions
        if s.name in known.submitting and s.name not in known.submitted and s.name not in known.refused
    )


@contextlib.contextmanager
def interrupts_wait() -> Iterator[None]:
    """Hold back a first Ctrl-C until the block has ended (which is bounded by time); a second one is not held."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def note(number: int, frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def read_calls(run: RunDir) -> dict[str, int]:
    """Slurm's commands that were run for a run, by name; empty before the first."""
    try:
        return {str(k): int(v) for k, v in run.read_json(run.calls).items()}
    except (RunFolderError, ValueError, TypeError):
        return {}


def _facts(row: JobRow, end: Mapping[str, Any] | None) -> dict[str, Any]:
    reason = "" if end is not None else f"Slurm says {row.state} (exit code {row.exit_code or 'unknown'})"
    return {
        "state": row.state,
        "exit_code": row.exit_code,
        "nodes": row.nodes,
        "start": row.start,
        "end": row.end,
        "job_id": row.job_id,
        "reason": reason,
    }


class SchedulerAway(Exception):
    """The scheduler has not answered for so long that waiting on is a person's decision."""


class Driver:
    """Drives one run."""

    def __init__(self, run: RunDir, scheduler: Scheduler | None = None) -> None:
        self.run = run
        self.plan = run.read_plan()
        self.site = run.read_site()
        self.identity = run.read_identity()
        self.scheduler = scheduler or create(run, self.site, self.identity["run_id"])
        self._counted: Counter[str] = Counter(CALLS)  # of this process, before this run
        self._rows: dict[str, JobRow] = {}  # Slurm's last word, kept between two questions
        self.trouble = ""  # what the scheduler last answered instead of an answer

    # --- cancelling -----------------------------------------------------------------------------------

    def cancel_unsubmitted(self) -> list[str]:
        """Nothing more is submitted; what may be in the queue unknown to us is looked up. Returns what stays unclear.

        Raises:
            CommandError: the controller does not answer, so that nothing can be said of an unclear submission.
        """
        run_id = self.identity["run_id"]
        known = ledger.read(self.run)
        for submission in self.plan.submissions:
            if submission.name in known.submitted or submission.name in known.refused:
                continue
            ledger.write(self.run, ledger.CANCELLED, submission.name)
            if submission.name not in known.submitting:
                ledger.write(
                    self.run, ledger.REFUSED, submission.name, why="cancelled before it was submitted"
                )
        known = ledger.read(self.run)
        unclear = unclear_submissions(self.plan, known)
        if unclear:
            self.trouble = ""
            self._look_up(unclear)
            if self.trouble:
                raise CommandError(
                    f"of unknown outcome: {', '.join(s.job_name(run_id) for s in unclear)}; "
                    f"the controller was asked, and: {self.trouble}; try again when it answers"
                )
        return [s.job_name(run_id) for s in unclear_submissions(self.plan, ledger.read(self.run))]

    # --- one driver at a time -------------------------------------------------------------------------

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the run; the kernel gives it back when this process ends, however it ends.

        Raises:
            RunFolderError: another driver holds it, or the folder cannot be written.
        """
        try:
            descriptor = os.open(self.run.lease, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RunFolderError(
                f"{self.run.path}: cannot be written ({error.strerror}); "
                "a run is driven by the user who planned it"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise RunFolderError(
                f"{self.run.path}: another `harness run` drives it; watch it with `harness status {self.run.path}`"
            ) from None
        try:
            yield
        finally:
            os.close(descriptor)

    # --- looking --------------------------------------------------------------------------------------

    def look(self, known: Ledger, *, ask: bool = True) -> Seen:
        """What is known now; with ``ask``, one question to the scheduler for all open jobs.

        A scheduler that does not answer is not an error: ``trouble`` says so, and its rows are missing.
        """
        rows = {key: row for key, row in self._rows.items() if key not in known.ended}
        ends: dict[str, Mapping[str, Any]] = {}
        jobs: dict[str, str] = {}
        for submission in self.plan.submissions:
            if submission.name not in known.submitted:
                continue
            for index, job in enumerate(submission.jobs):
                if job.key in known.ended:
                    continue
                jobs[job.key] = self._job_id(submission, index, known.submitted[submission.name])
                self._read_end(job.key, ends)
        if jobs and (ask or self.scheduler.free):
            try:
                answer = self.scheduler.rows(jobs, ends)
                new = {key: row for key, row in answer.items() if key not in known.ended}
                rows.update(new)
                self._rows.update(new)
                for key in new:  # a last word may have come while the question was asked
                    self._read_end(key, ends)
            except CommandError as error:
                self.trouble = str(error)
        return Seen(rows, ends, time.time_ns())

    def _read_end(self, key: str, ends: dict[str, Mapping[str, Any]]) -> None:
        if key not in ends and self.run.end(key).exists():
            with contextlib.suppress(RunFolderError):
                ends[key] = self.run.read_json(self.run.end(key), "wall_ns", "job_id")

    def _job_id(self, submission: Submission, index: int, submitted: str) -> str:
        """The job to follow: the one that holds the claim, which need not be the one that was submitted last.

        A submission of unknown outcome may have been sent twice; whichever job starts first executes it.
        """
        if self.scheduler.one_at_a_time:
            return submitted
        with contextlib.suppress(RunFolderError):
            claim = self.run.read_json(self.run.claim(submission.jobs[index].key), "job_id")
            return str(claim["job_id"])
        return task_id(submission, index, submitted)

    # --- acting ---------------------------------------------------------------------------------------

    def apply(self, actions: Sequence[Action]) -> None:
        """Do what was decided, each thing once, each written down before the next."""
        for action in actions:
            if isinstance(action, Submit):
                self._submit(action.submission)
            elif isinstance(action, LookUp):
                self._look_up(action.submissions)
            else:
                ledger.write(self.run, ledger.ENDED, action.key, facts=dict(action.facts))

    def _submit(self, submission: Submission) -> None:
        with interrupts_wait():  # a Ctrl-C must not come between sbatch and the line that names its job
            self._submit_now(submission)

    def _submit_now(self, submission: Submission) -> None:
        ledger.write(self.run, ledger.SUBMITTING, submission.name)
        try:
            job_id = self.scheduler.submit(submission)
        except CommandError as error:
            if is_refusal(error):
                ledger.write(self.run, ledger.REFUSED, submission.name, why=str(error))
            else:
                self.trouble = str(error)  # unknown outcome: it will be looked up
            return
        ledger.write(self.run, ledger.SUBMITTED, submission.name, job_id=job_id)

    def _look_up(self, submissions: Sequence[Submission]) -> None:
        try:
            found = self.scheduler.find(submissions)
        except CommandError as error:
            self.trouble = str(error)
            return
        known = ledger.read(self.run)
        for submission in submissions:
            name = submission.name
            waited_s = (time.time_ns() - known.submitting[name]) / 1e9
            if name in found:
                ledger.write(self.run, ledger.SUBMITTED, name, job_id=found[name], looked_up=True)
            elif name in known.cancelled:
                ledger.write(self.run, ledger.REFUSED, name, why="cancelled before it was submitted")
            elif waited_s > LOOKUP_WAIT_S:  # there was an answer, and it does not know it
                if known.tries[name] >= MAX_TRIES:
                    why = f"submitted {known.tries[name]} times, and none left a job in the queue"
                    ledger.write(self.run, ledger.REFUSED, name, why=why)
                else:
                    self._submit(submission)

    # --- the loop -------------------------------------------------------------------------------------

    def step(self, *, ask: bool) -> Seen:
        """One reconciliation: look, decide, act. With ``ask``, the scheduler is asked; else only the run folder."""
        if ask:
            self.trouble = ""
        known = ledger.read(self.run)
        seen = self.look(known, ask=ask)
        actions = reconcile(self.plan, known, seen, one_at_a_time=self.scheduler.one_at_a_time)
        if not (ask or self.scheduler.free):  # a LookUp is a question as well
            actions = [a for a in actions if not isinstance(a, LookUp)]
        self.apply(actions)
        self._count()
        return seen

    def _count(self) -> None:
        """Add the commands that were run since the last time to the run's own count."""
        new = CALLS - self._counted
        if not new:
            return
        self._counted = Counter(CALLS)
        known = Counter(read_calls(self.run))
        with contextlib.suppress(OSError):  # a count is no reason to stop
            write_json(self.run.calls, dict(known + new))

    def complete(self, known: Ledger) -> bool:
        """Whether every job has ended."""
        return all(job.key in known.ended for s in self.plan.submissions for job in s.jobs)

    def drive(self, tell: Callable[[list[CaseView], str], None]) -> None:
        """Reconcile until every job has ended, then undo faults that are left.

        Args:
            tell: is given the cases and the scheduler's trouble about twice a second.

        Raises:
            SchedulerAway: it has not answered for half an hour; nothing is lost.
        """
        poll_s = float(self.site["scheduler"]["poll_s"])
        next_ask, wait = 0.0, poll_s
        before: object = None
        answered = time.monotonic()
        while True:
            ask = time.monotonic() >= next_ask
            seen = self.step(ask=ask)
            known = ledger.read(self.run)
            tell(views(self.run, self.plan, known, seen.rows), self.trouble)
            if self.complete(known):
                healing.heal_left(self.run, self.plan, self.site)
                return
            if not self.trouble:
                answered = time.monotonic()
            elif time.monotonic() - answered > GIVE_UP_S:
                raise SchedulerAway(
                    f"the scheduler has not answered for {GIVE_UP_S / 60:.0f} minutes: {self.trouble}"
                )
            if ask:
                state = {k: r.state for k, r in seen.rows.items()}, dict(seen.ends)
                wait = poll_s if state != before or seen.ends else min(wait * 1.5, MAX_POLL_S)
                before = state
                next_ask = time.monotonic() + wait * random.uniform(0.9, 1.1)
            elif seen.ends:
                next_ask = min(next_ask, time.monotonic() + poll_s)
            time.sleep(0.4)

    def queued(self) -> list[tuple[str, Job]]:
        """Jobs that may still be in the queue or running, each with its id (on one machine, its runner's)."""
        known = ledger.read(self.run)
        return [
            (self._job_id(submission, index, job_id), job)
            for submission in self.plan.submissions
            if (job_id := known.submitted.get(submission.name)) is not None
            for index, job in enumerate(submission.jobs)
            if job.key not in known.ended
        ]
