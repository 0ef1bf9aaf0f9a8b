"""Follows the jobs of a run that are open: which job it is, how it is, why it waits, how often it was started.

It asks the scheduler one question a poll for all of them, and reads how far they are from the run folder.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from harness import arrival
from harness.driving.calls import Calls
from harness.ledger import Ledger
from harness.model.case import Job, Plan, Submission
from harness.reconcile import Seen
from harness.rundir import RunDir, RunFolderError, write_json
from harness.scheduler import Scheduler
from harness.slurm.commands import CommandError
from harness.slurm.query import JobRow

SETTLED_S = (
    60.0  # after sbatch's answer: from then on a job that neither accounts nor controller know is gone
)
REASON_AFTER_S = 120.0  # in the queue: then Slurm is asked why, since a job may wait for what will never come
REASON_EVERY_S = 300.0
# Reasons that pass by themselves: squeue(1), "JOB REASON CODES". Others are told to people.
PASSING = frozenset(
    {
        "",
        "None",
        "Priority",
        "Resources",
        "BeginTime",
        "Cleaning",
        "Prolog",
        "Dependency",
        "JobArrayTaskLimit",
    }
)


class Follower:
    """Follows the jobs of one run."""

    def __init__(self, run: RunDir, plan: Plan, scheduler: Scheduler, calls: Calls) -> None:
        self._run, self._plan, self._scheduler, self._calls = run, plan, scheduler, calls
        self._rows: dict[str, JobRow] = {}  # Slurm's last word, kept between two questions

    def look(self, known: Ledger, *, ask: bool = True) -> Seen:
        """What is known now; with ``ask``, one question to the scheduler for all open jobs.

        A scheduler that does not answer is not an error: ``Calls.trouble`` says so, and its rows are missing.
        """
        open_ = self._open(known)
        ends: dict[str, Mapping[str, Any]] = {}
        jobs: dict[str, str] = {}
        for key, (submission, index) in open_.items():
            jobs[key] = self._job_id(submission, index, known.submitted[submission.name])
            self._read_end(key, submission.round, ends)
        # Of the job that is followed now: not of an earlier round, nor of a twin that lost the claim.
        rows = {key: row for key, row in self._rows.items() if row.job_id == jobs.get(key)}
        if jobs and (ask or self._scheduler.free):
            try:
                answer = self._scheduler.rows(jobs, ends, self._settled(known, open_))
                new = {key: row for key, row in answer.items() if key not in known.ended}
                rows.update(new)
                self._rows.update(new)
                for key in new:  # a last word may have come while the question was asked
                    self._read_end(key, open_[key][0].round, ends)
            except CommandError as error:
                self._calls.trouble = str(error)
        return Seen(rows, ends, time.time_ns())

    def queued(self, known: Ledger) -> list[tuple[str, Job]]:
        """Jobs that may still be in the queue or running, each with its id (on one machine, its runner's)."""
        return [
            (self._job_id(submission, index, known.submitted[submission.name]), submission.jobs[index])
            for submission, index in self._open(known).values()
        ]

    def _open(self, known: Ledger) -> dict[str, tuple[Submission, int]]:
        """Jobs that were submitted and have not ended: key -> submission, and the job's place in it."""
        return {
            key: (submission, index)
            for key, (submission, index) in known.current(self._plan).items()
            if submission.name in known.submitted and key not in known.ended
        }

    def _settled(self, known: Ledger, open_: Mapping[str, tuple[Submission, int]]) -> list[str]:
        before_ns = time.time_ns() - SETTLED_S * 1e9
        return [key for key, (s, _) in open_.items() if known.submitted_ns[s.name] < before_ns]

    def _read_end(self, key: str, round_: int, ends: dict[str, Mapping[str, Any]]) -> None:
        if key not in ends and (said := arrival.last_word(self._run, key, round_)) is not None:
            ends[key] = said

    def _job_id(self, submission: Submission, index: int, submitted: str) -> str:
        """The job to follow: the one that holds the claim, which need not be the one that was submitted last.

        A submission of unknown outcome may have been sent twice; whichever job starts first executes it.
        """
        if self._scheduler.one_at_a_time:
            return submitted
        with contextlib.suppress(RunFolderError):
            claim = self._run.read_json(
                self._run.claim(submission.jobs[index].key, submission.round), "job_id"
            )
            return str(claim["job_id"])
        return submission.task_id(index, submitted)

    def why_they_wait(self, known: Ledger, seen: Seen) -> None:
        """Once in a while, why jobs that were queued long ago do not start; where that does not pass, it is told."""
        now = time.time()
        current = known.current(self._plan)
        waiting = {
            row.job_id: row.job_id
            for key, row in seen.rows.items()
            if row.state == "PENDING"
            and now - known.submitted_ns.get(current[key][0].name, 0) / 1e9 > REASON_AFTER_S
        }
        if not waiting:
            self._calls.stuck = ""
            return
        asked_s = self._calls.fact("reasons_s")
        if asked_s is not None and now - asked_s < REASON_EVERY_S:
            return
        if self._calls.room() < 2 or self._scheduler.free:
            return
        try:
            reasons = self._scheduler.reasons(waiting)
        except CommandError:
            return  # the next question will say so
        odd = {job_id: why for job_id, why in reasons.items() if why not in PASSING}
        self._calls.stuck = ""
        if odd:
            job_id, why = next(iter(odd.items()))
            more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
            self._calls.stuck = f"job {job_id} waits for what may never come: Slurm says {why}{more}"
        self._calls.count(reasons_s=now)

    def ask_for_starts(self, known: Ledger) -> None:
        """Ask, once in a run, how often each job was started, and write it down; no answer leaves it unknown."""
        if self._run.starts.exists():
            return
        jobs = {
            f"{job.key}#{submission.round}": submission.task_id(index, known.submitted[submission.name])
            for submission in known.submissions(self._plan)
            if submission.name in known.submitted
            for index, job in enumerate(submission.jobs)
        }
        with contextlib.suppress(CommandError):  # what Slurm knows of starts is evidence beside our own
            starts = self._scheduler.starts(jobs)
            rows = {key: [vars(row) for row in rows] for key, rows in starts.items()}
            write_json(self._run.starts, {"restarts": self._restarts(), "starts": rows})
        self._calls.count()

    def _restarts(self) -> dict[str, int]:
        """Job key -> restarts as the controller last said, where it did: sites without accounting have only that."""
        return {key: row.restarts for key, row in self._rows.items() if row.restarts >= 0}
