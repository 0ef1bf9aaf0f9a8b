"""The driver: looks, has ``harness.reconcile`` decide, acts once, and again.

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
from typing import Any

from harness import arrival, failures, healing, ledger, pace
from harness.ledger import Ledger
from harness.model import event as ev
from harness.model.case import Job, Submission
from harness.model.design import MORE, NOT_NEEDED, Lot
from harness.reconcile import (
    Action,
    Again,
    End,
    Judge,
    LookUp,
    Over,
    Seen,
    Submit,
    Weigh,
    complete,
    reconcile,
    unclear_submissions,
)
from harness.rundir import RunDir, RunFolderError, read_lines, takes_no_more, write_json
from harness.scheduler import Scheduler, create
from harness.slurm.commands import CALLS, CommandError, Refusal, refusal_of
from harness.slurm.query import JobRow
from harness.views import CaseView, views

LOOKUP_WAIT_S = 5.0  # between two answers that do not list a submission, before it is sent again
MAX_TRIES = 8  # of an sbatch whose outcome is unknown each time, with the controller answering in between
GIVE_UP_S = 1800.0  # of a scheduler that does not answer: then whoever started us should know
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
LOOK_S = 0.4  # between two looks into the run folder, or
LOOK_SHARE = 30.0  # so many times the processor time of the last look, if that is longer

Judgement = Callable[[RunDir, Sequence[str]], Mapping[str, str]]
"""Verdict of each of these cases, as words; how cases are judged is ``analysis``'s, and no business of the driver."""
Scales = Callable[[RunDir, Lot], tuple[str, str]]
"""Whether a lot's repeats so far are enough: an answer of ``harness.model.design``, and why, in words."""


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
        return {str(k): int(v) for k, v in run.read_json(run.calls)["calls"].items()}
    except (RunFolderError, ValueError, TypeError, KeyError, AttributeError):
        return {}


class RunIsDriven(RunFolderError):
    """Another driver holds the run."""


class SchedulerAway(Exception):
    """The scheduler has not answered for so long that waiting on is a person's decision."""


class Driver:
    """Drives one run.

    Args:
        run: its folder.
        scheduler: what runs its jobs; the site's own unless told otherwise.
        judge: judges the cases of groups that others need; without one they are unknown, which is no pass.
        weigh: says whether repeats are enough; without one they never are, and all are run.
    """

    def __init__(
        self,
        run: RunDir,
        scheduler: Scheduler | None = None,
        judge: Judgement | None = None,
        weigh: Scales | None = None,
    ) -> None:
        self.run = run
        self.plan = run.read_plan()
        self.site = run.read_site()
        self.identity = run.read_identity()
        self.scheduler = scheduler or create(run, self.site, self.identity["run_id"])
        self._judge = judge or (lambda run, case_ids: dict.fromkeys(case_ids, "unknown"))
        self._weigh = weigh or (lambda run, lot: (MORE, "nobody is there to say"))
        self._counted: Counter[str] = Counter(CALLS)  # of this process, before this run
        self._per_minute = int(self.site["scheduler"].get("calls_per_minute", 60))
        self._visible_after_s = float(self.site["paths"].get("visible_after_s", 0.0))
        self._rows: dict[str, JobRow] = {}  # Slurm's last word, kept between two questions
        self._nodes: dict[str, dict[str, str]] = {}  # partition -> node -> state, asked once a step
        self.trouble = ""  # what the scheduler last answered instead of an answer
        self.stuck = ""  # why jobs wait, where that does not pass by itself
        self.held_back = ""  # why nothing is asked or submitted, though the scheduler is well

    @property
    def words(self) -> str:
        """What people should know of the scheduler; "" when all is well."""
        if self.trouble:
            return f"the scheduler does not answer, trying again: {self.trouble}"
        return f"held back for now: {self.held_back}" if self.held_back else self.stuck

    # --- cancelling -----------------------------------------------------------------------------------

    def cancel_unsubmitted(self) -> list[str]:
        """Nothing more is submitted; what may be in the queue unknown to us is looked up. Returns what stays unclear.

        Raises:
            CommandError: the controller does not answer, so that nothing can be said of an unclear submission.
        """
        run_id = self.identity["run_id"]
        known = ledger.read(self.run)
        for submission in known.submissions(self.plan):
            ledger.write(self.run, ledger.CANCELLED, submission.name)
            if submission.name in {*known.submitted, *known.refused, *known.submitting}:
                continue
            ledger.write(self.run, ledger.REFUSED, submission.name, why="cancelled before it was submitted")
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
            RunIsDriven: another driver holds it.
            RunFolderError: the folder cannot be written.
        """
        try:
            descriptor = os.open(self.run.lease, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if takes_no_more(error):
                raise
            raise RunFolderError(
                f"{self.run.path}: cannot be written ({error.strerror}); "
                "a run is driven by the user who planned it"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise RunIsDriven(
                f"{self.run.path}: another `harness run` (or resume, or advance) drives it; "
                f"watch it with `harness status {self.run.path}`"
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
        current = known.current(self.plan)
        open_ = {
            key: (submission, index)
            for key, (submission, index) in current.items()
            if submission.name in known.submitted and key not in known.ended
        }
        ends: dict[str, Mapping[str, Any]] = {}
        jobs: dict[str, str] = {}
        for key, (submission, index) in open_.items():
            jobs[key] = self._job_id(submission, index, known.submitted[submission.name])
            self._read_end(key, submission.round, ends)
        # Of the job that is followed now: not of an earlier round, nor of a twin that lost the claim.
        rows = {key: row for key, row in self._rows.items() if row.job_id == jobs.get(key)}
        if jobs and (ask or self.scheduler.free):
            try:
                answer = self.scheduler.rows(jobs, ends, self._settled(known, open_))
                new = {key: row for key, row in answer.items() if key not in known.ended}
                rows.update(new)
                self._rows.update(new)
                for key in new:  # a last word may have come while the question was asked
                    self._read_end(key, open_[key][0].round, ends)
            except CommandError as error:
                self.trouble = str(error)
        return Seen(rows, ends, time.time_ns())

    def _why_they_wait(self, known: Ledger, seen: Seen) -> None:
        """Once in a while, why jobs that were queued long ago do not start; where that does not pass, it is told."""
        now = time.time()
        current = known.current(self.plan)
        waiting = {
            row.job_id: row.job_id
            for key, row in seen.rows.items()
            if row.state == "PENDING"
            and now - known.submitted_ns.get(current[key][0].name, 0) / 1e9 > REASON_AFTER_S
        }
        if not waiting:
            self.stuck = ""
            return
        with contextlib.suppress(RunFolderError, ValueError, TypeError):
            if now - float(self.run.read_json(self.run.calls, "reasons_s")["reasons_s"]) < REASON_EVERY_S:
                return
        if self._room() < 2 or self.scheduler.free:
            return
        try:
            reasons = self.scheduler.reasons(waiting)
        except CommandError:
            return  # the next question will say so
        odd = {job_id: why for job_id, why in reasons.items() if why not in PASSING}
        self.stuck = ""
        if odd:
            job_id, why = next(iter(odd.items()))
            more = f", and {len(odd) - 1} more" if len(odd) > 1 else ""
            self.stuck = f"job {job_id} waits for what may never come: Slurm says {why}{more}"
        self._count(reasons_s=now)

    def _settled(self, known: Ledger, open_: Mapping[str, tuple[Submission, int]]) -> list[str]:
        before_ns = time.time_ns() - SETTLED_S * 1e9
        return [key for key, (s, _) in open_.items() if known.submitted_ns[s.name] < before_ns]

    def _read_end(self, key: str, round_: int, ends: dict[str, Mapping[str, Any]]) -> None:
        if key not in ends and (said := arrival.last_word(self.run, key, round_)) is not None:
            ends[key] = said

    def _job_id(self, submission: Submission, index: int, submitted: str) -> str:
        """The job to follow: the one that holds the claim, which need not be the one that was submitted last.

        A submission of unknown outcome may have been sent twice; whichever job starts first executes it.
        """
        if self.scheduler.one_at_a_time:
            return submitted
        with contextlib.suppress(RunFolderError):
            claim = self.run.read_json(self.run.claim(submission.jobs[index].key, submission.round), "job_id")
            return str(claim["job_id"])
        return submission.task_id(index, submitted)

    # --- acting ---------------------------------------------------------------------------------------

    def apply(self, actions: Sequence[Action], known: Ledger) -> None:
        """Do what was decided by what was known, each thing once, each written down before the next."""
        current = known.current(self.plan)
        suspects = set(known.suspects)
        for action in actions:
            if isinstance(action, Submit):
                if not self._submit(action.submission):
                    return  # later ones would fare no better, and would overtake it
            elif isinstance(action, LookUp):
                self._look_up(action.submissions)
            elif isinstance(action, Over):
                ledger.write(self.run, ledger.OVER, action.key, state=action.state)
            elif isinstance(action, Judge):
                verdicts = dict(self._judge(self.run, action.case_ids))
                ledger.write(self.run, ledger.JUDGED, action.group, verdicts=verdicts)
            elif isinstance(action, Weigh):
                answer, why = self._weigh(self.run, action.lot)
                ledger.write(
                    self.run, ledger.WEIGHED, action.lot.name, wave=action.wave, answer=answer, why=why
                )
            elif isinstance(action, Again):
                self._again(action)
            else:
                self._end(action, current[action.key][0], known, suspects)

    def _submit(self, submission: Submission) -> bool:
        """Whether it was submitted, or refused for good."""
        if self._room() < 2:  # sbatch, and perhaps sinfo before it
            self.held_back = f"{self._per_minute} calls in a minute, the site's limit (calls_per_minute)"
            return False
        with interrupts_wait():  # a Ctrl-C must not come between sbatch and the line that names its job
            return self._submit_now(submission)

    def _submit_now(self, submission: Submission) -> bool:
        try:
            exclude = self._excluded(submission)
        except CommandError as error:
            self.trouble = str(error)
            return False
        ledger.write(self.run, ledger.SUBMITTING, submission.name, exclude=exclude)
        try:
            job_id = self.scheduler.submit(submission, exclude)
        except CommandError as error:
            refusal = refusal_of(error)
            if refusal is Refusal.FOR_GOOD:
                ledger.write(self.run, ledger.REFUSED, submission.name, why=str(error))
                return True
            if refusal is Refusal.FOR_NOW:
                ledger.write(self.run, ledger.DEFERRED, submission.name, why=str(error))
                self.held_back = str(error)
            else:
                self.trouble = str(error)  # unknown outcome: it will be looked up
            return False
        finally:
            self._count()
        ledger.write(self.run, ledger.SUBMITTED, submission.name, job_id=job_id)
        return True

    def _excluded(self, submission: Submission) -> list[str]:
        """Nodes that a submission must not get, of those that its partition has.

        Raises:
            CommandError: the controller did not say which nodes there are.
        """
        known = ledger.read(self.run)
        site = self.run.read_site(submission.partition)
        wanted = list(site.get("exclude_nodes", ()))
        if not (wanted or known.suspects) or self.scheduler.one_at_a_time:
            return []
        if submission.partition not in self._nodes:
            self._nodes[submission.partition] = self.scheduler.nodes(site.get("partition"))
            self._count()
        excluded, _ = failures.exclusion(
            wanted, list(known.suspects), self._nodes[submission.partition], submission.jobs[0].nodes
        )
        return excluded

    def _look_up(self, submissions: Sequence[Submission]) -> None:
        try:
            found = self.scheduler.find(submissions)
        except CommandError as error:
            self.trouble = str(error)
            return
        finally:
            self._count()
        known = ledger.read(self.run)
        for submission in submissions:
            name = submission.name
            if name in found:
                ledger.write(self.run, ledger.SUBMITTED, name, job_id=found[name], looked_up=True)
            elif name in known.cancelled:
                ledger.write(self.run, ledger.REFUSED, name, why="cancelled before it was submitted")
            elif (
                name not in known.missed
            ):  # a controller that wakes up answers before it has read all its mail
                ledger.write(self.run, ledger.MISSED, name)
            elif time.time_ns() - known.missed[name] > LOOKUP_WAIT_S * 1e9:
                if known.tries[name] >= MAX_TRIES:
                    why = f"submitted {known.tries[name]} times, and none left a job in the queue"
                    ledger.write(self.run, ledger.REFUSED, name, why=why)
                elif not self._submit(submission):
                    return

    def _end(self, action: End, submission: Submission, known: Ledger, suspects: set[str]) -> None:
        """Write down that a job has ended, and why its cases failed, where that is for us to know."""
        facts = dict(action.facts)
        facts["failures"] = self._failures(action.key, submission, facts, known)
        for node, why in self._suspects(action.key, submission, facts).items():
            if node not in suspects:
                suspects.add(node)
                ledger.write(self.run, ledger.SUSPECT, node, why=f"{why} (job {facts.get('job_id', '')})")
        ledger.write(self.run, ledger.ENDED, action.key, facts=facts)

    def _failures(
        self, key: str, submission: Submission, facts: Mapping[str, Any], known: Ledger
    ) -> dict[str, str]:
        """Case -> class of failure, of the cases that failed other than by what was asked of them."""
        if facts["state"] in ("REFUSED", "SKIPPED", NOT_NEEDED) or {submission.name, key} & known.cancelled:
            return {}
        lines = list(read_lines(self.run.attempts(key)))
        events = list(read_lines(self.run.events(key)))
        faulted = {e["case_id"] for e in events if e["kind"] == ev.FAULT_REQUESTED}
        job = next(job for job in submission.jobs if job.key == key)
        classes = {
            case_id: failures.of_case(case_id, lines, facts["state"])
            for case_id in job.case_ids
            if case_id not in faulted
        }
        return {case_id: failure for case_id, failure in classes.items() if failure}

    def _suspects(self, key: str, submission: Submission, facts: Mapping[str, Any]) -> dict[str, str]:
        if self.scheduler.one_at_a_time:
            return {}
        first = self._first_restart(key, submission.round)
        events: list[dict[str, Any]] = []
        of_this_round = False
        for line in read_lines(self.run.events(key)):
            if line["kind"] == ev.JOB_STARTED:
                of_this_round = line["data"]["restart"] >= first
            if of_this_round:
                events.append(line)
        if any(e["kind"] == ev.FAULT_REQUESTED for e in events):
            return {}  # the node was broken by us
        return failures.lost_nodes(events, str(facts.get("nodes", "")), facts["failures"].values())

    def _first_restart(self, key: str, round_: int) -> int:
        if not round_:
            return 0
        with contextlib.suppress(RunFolderError):
            return int(self.run.read_json(self.run.round(key, round_), "first_restart")["first_restart"])
        return 0

    def _again(self, action: Again) -> None:
        """Open a round: first what its supervisors must know, then the line that makes it count."""
        for key, cases in action.redo.items():
            restarts = [
                line["data"]["restart"]
                for line in read_lines(self.run.events(key))
                if line["kind"] == ev.JOB_STARTED
            ]
            self.run.job(key).mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(
                self.run.round(key, action.round),
                {"cases": sorted(cases), "why": dict(cases), "first_restart": max(restarts, default=-1) + 1},
            )
        ledger.write(
            self.run,
            ledger.AGAIN,
            f"{action.of}.{action.round}",
            of=action.of,
            round=action.round,
            keys=sorted(action.redo),
            why={case: failure for cases in action.redo.values() for case, failure in cases.items()},
        )

    # --- counting -------------------------------------------------------------------------------------

    def _room(self) -> int:
        """Calls that may be made now."""
        if self.scheduler.free:
            return self._per_minute
        return pace.room(self._recent(), time.time(), self._per_minute)

    def _recent(self) -> list[float]:
        with contextlib.suppress(RunFolderError, ValueError, TypeError):
            return [float(t) for t in self.run.read_json(self.run.calls, "recent_s")["recent_s"]]
        return []

    def _count(self, **facts: float) -> None:
        """Add the commands that were run since the last time to the run's own count; and remember these facts."""
        new = CALLS - self._counted
        if not new:
            return
        kept: dict[str, Any] = {}
        with contextlib.suppress(RunFolderError):
            kept = self.run.read_json(self.run.calls)
        self._counted = Counter(CALLS)
        now = time.time()
        recent = [*pace.recent(self._recent(), now), *[now] * new.total()]
        calls = dict(Counter(read_calls(self.run)) + new)
        with contextlib.suppress(OSError):  # a count is no reason to stop
            write_json(self.run.calls, {**kept, **facts, "calls": calls, "recent_s": recent})

    # --- the loop -------------------------------------------------------------------------------------

    def step(self, *, ask: bool) -> Seen:
        """One reconciliation: look, decide, act. With ``ask``, the scheduler is asked; else only the run folder."""
        if ask:
            self.trouble = self.held_back = ""
            self._nodes.clear()
            if self._room() < 3:  # a poll may take two calls, and a look-up two
                ask, self.held_back = False, f"{self._per_minute} calls in a minute, the site's limit"
        known = ledger.read(self.run)
        seen = self.look(known, ask=ask)
        self._count()
        actions = reconcile(
            self.plan,
            known,
            seen,
            one_at_a_time=self.scheduler.one_at_a_time,
            visible_after_s=self._visible_after_s,
        )
        if not (ask or self.scheduler.free):  # these ask as well
            actions = [a for a in actions if not isinstance(a, LookUp | Submit)]
        self.apply(actions, known)
        if ask and not self.trouble:
            self._why_they_wait(known, seen)
        self._count()
        return seen

    def complete(self, known: Ledger) -> bool:
        """Whether every job has ended, and none is to be done once more."""
        return complete(self.plan, known)

    def drive(self, tell: Callable[[list[CaseView], str], None]) -> None:
        """Reconcile until every job has ended, then undo faults that are left.

        Args:
            tell: is given the cases, and what people should know of the scheduler, about twice a second.

        Raises:
            SchedulerAway: it has not answered for half an hour; nothing is lost.
        """
        poll_s = float(self.site["scheduler"]["poll_s"])
        rng = random.Random()
        next_ask, wait_s = 0.0, poll_s
        before: object = None
        answered = time.monotonic()
        while True:
            began_cpu = (
                time.process_time()
            )  # not the clock: a look may wait long for a scheduler that is away
            ask = time.monotonic() >= next_ask
            seen = self.step(ask=ask)
            known = ledger.read(self.run)
            tell(views(self.run, self.plan, known, seen.rows), self.words)
            if self.complete(known):
                self.close()
                return
            if not self.trouble:
                answered = time.monotonic()
            elif time.monotonic() - answered > GIVE_UP_S:
                raise SchedulerAway(
                    f"the scheduler has not answered for {GIVE_UP_S / 60:.0f} minutes: {self.trouble}"
                )
            if ask:
                state = (
                    {k: r.state for k, r in seen.rows.items()},
                    set(seen.ends),
                    set(known.ended),
                    known.rounds,
                )
                changed = state != before or bool(seen.ends)
                wait_s = pace.next_wait_s(poll_s, wait_s, changed=changed, away=bool(self.trouble))
                before = state
                next_ask = time.monotonic() + pace.jittered(wait_s, rng)
            elif seen.ends:
                next_ask = min(next_ask, time.monotonic() + poll_s)
            # A look at a thousand jobs costs more than one at ten: this process stays a small part of a core.
            time.sleep(max(LOOK_S, LOOK_SHARE * (time.process_time() - began_cpu)))

    def close(self) -> list[str]:
        """All jobs have ended: undo faults that are left, and ask once how often Slurm started each job.

        Returns:
            Faults that could not be undone, in words.
        """
        problems = healing.heal_left(self.run, self.plan, self.site)
        if not self.run.starts.exists():
            known = ledger.read(self.run)
            jobs = {
                f"{job.key}#{submission.round}": submission.task_id(index, known.submitted[submission.name])
                for submission in known.submissions(self.plan)
                if submission.name in known.submitted
                for index, job in enumerate(submission.jobs)
            }
            with contextlib.suppress(CommandError):  # what Slurm knows of starts is evidence beside our own
                starts = self.scheduler.starts(jobs)
                rows = {key: [vars(row) for row in rows] for key, rows in starts.items()}
                write_json(self.run.starts, {"restarts": self._restarts(), "starts": rows})
            self._count()
        return problems

    def _restarts(self) -> dict[str, int]:
        """Job key -> restarts as the controller last said, where it did: sites without accounting have only that."""
        return {key: row.restarts for key, row in self._rows.items() if row.restarts >= 0}

    def cancel(self, jobs: Sequence[tuple[str, Job]]) -> list[str]:
        """End these jobs, an array as one where all its open tasks are meant; returns the ids that were named.

        Raises:
            CommandError: it is not known whether they were ended.
        """
        chosen = {job_id for job_id, _ in jobs}
        arrays: dict[str, set[str]] = {}
        for job_id, _ in self.queued():
            arrays.setdefault(job_id.split("_")[0], set()).add(job_id)
        ids = list(
            dict.fromkeys(
                i.split("_")[0] if arrays.get(i.split("_")[0], {""}) <= chosen else i for i, _ in jobs
            )
        )
        if ids:
            self.scheduler.cancel(ids)
            self._count()
        return ids

    def queued(self) -> list[tuple[str, Job]]:
        """Jobs that may still be in the queue or running, each with its id (on one machine, its runner's)."""
        known = ledger.read(self.run)
        return [
            (self._job_id(submission, index, known.submitted[submission.name]), submission.jobs[index])
            for key, (submission, index) in known.current(self.plan).items()
            if submission.name in known.submitted and key not in known.ended
        ]
