"""The driver: looks, has ``harness.reconcile`` decide, acts once, and again.

It can be killed at any instruction; started again on the same run folder it goes on. One driver at a
time holds the run's lock. It asks the scheduler one question a poll, and reads how far cases are from
the run folder, which costs the scheduler nothing. Its parts are in ``harness.driving``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from harness import healing, ledger
from harness.driving import ending
from harness.driving.calls import Calls, Polls
from harness.driving.following import Follower
from harness.driving.lease import lease
from harness.driving.submitting import Submitter
from harness.ledger import Ledger
from harness.model.case import Job
from harness.model.design import MORE, Lot
from harness.reconcile import (
    Action,
    Again,
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
from harness.rundir import RunDir
from harness.scheduler import Scheduler, create
from harness.slurm.commands import CommandError
from harness.views import CaseView, views

GIVE_UP_S = 1800.0  # of a scheduler that does not answer: then whoever started us should know
LOOK_S = 0.4  # between two looks into the run folder, or
LOOK_SHARE = 30.0  # so many times the processor time of the last look, if that is longer

Judgement = Callable[[RunDir, Sequence[str]], Mapping[str, str]]
"""Verdict of each of these cases, as words; how cases are judged is ``analysis``'s, and no business of the driver."""
Scales = Callable[[RunDir, Lot], tuple[str, str]]
"""Whether a lot's repeats so far are enough: an answer of ``harness.model.design``, and why, in words."""


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
        self._visible_after_s = float(self.site["paths"].get("visible_after_s", 0.0))
        self.calls = Calls(run, self.site, self.scheduler)
        self._submitter = Submitter(run, self.scheduler, self.calls)
        self._follower = Follower(run, self.plan, self.scheduler, self.calls)

    @property
    def words(self) -> str:
        """What people should know of the scheduler; "" when all is well."""
        return self.calls.words

    def lease(self) -> contextlib.AbstractContextManager[None]:
        """Hold the run, as ``harness.driving.lease`` has it."""
        return lease(self.run)

    # --- looking and acting ---------------------------------------------------------------------------

    def look(self, known: Ledger, *, ask: bool = True) -> Seen:
        """What is known now; with ``ask``, one question to the scheduler for all open jobs.

        A scheduler that does not answer is not an error: ``calls.trouble`` says so, and its rows are missing.
        """
        return self._follower.look(known, ask=ask)

    def apply(self, actions: Sequence[Action], known: Ledger) -> None:
        """Do what was decided by what was known, each thing once, each written down before the next."""
        current = known.current(self.plan)
        suspects = set(known.suspects)
        for action in actions:
            if isinstance(action, Submit):
                if not self._submitter.submit(action.submission):
                    return  # later ones would fare no better, and would overtake it
            elif isinstance(action, LookUp):
                self._submitter.look_up(action.submissions)
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
                ending.open_round(self.run, action)
            else:
                ending.end(
                    self.run,
                    action,
                    current[action.key][0],
                    known,
                    suspects,
                    blames_nodes=not self.scheduler.one_at_a_time,
                )

    # --- the loop -------------------------------------------------------------------------------------

    def step(self, *, ask: bool) -> Seen:
        """One reconciliation: look, decide, act. With ``ask``, the scheduler is asked; else only the run folder."""
        if ask:
            self.calls.trouble = self.calls.held_back = ""
            self._submitter.forget_nodes()
            if self.calls.room() < 3:  # a poll may take two calls, and a look-up two
                ask = False
                self.calls.held_back = f"{self.calls.per_minute} calls in a minute, the site's limit"
        known = ledger.read(self.run)
        seen = self.look(known, ask=ask)
        self.calls.count()
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
        if ask and not self.calls.trouble:
            self._follower.why_they_wait(known, seen)
        self.calls.count()
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
        polls = Polls(float(self.site["scheduler"]["poll_s"]))
        answered = time.monotonic()
        while True:
            began_cpu = (
                time.process_time()
            )  # not the clock: a look may wait long for a scheduler that is away
            ask = polls.due()
            seen = self.step(ask=ask)
            known = ledger.read(self.run)
            tell(views(self.run, self.plan, known, seen.rows), self.words)
            if self.complete(known):
                self.close()
                return
            trouble = self.calls.trouble
            if not trouble:
                answered = time.monotonic()
            elif time.monotonic() - answered > GIVE_UP_S:
                raise SchedulerAway(
                    f"the scheduler has not answered for {GIVE_UP_S / 60:.0f} minutes: {trouble}"
                )
            if ask:
                states = {key: row.state for key, row in seen.rows.items()}
                state = (states, set(seen.ends), set(known.ended), known.rounds)
                polls.asked(state, changes=bool(seen.ends), away=bool(trouble))
            elif seen.ends:
                polls.hurry()
            # A look at a thousand jobs costs more than one at ten: this process stays a small part of a core.
            time.sleep(max(LOOK_S, LOOK_SHARE * (time.process_time() - began_cpu)))

    def close(self) -> list[str]:
        """All jobs have ended: undo faults that are left, and ask once how often Slurm started each job.

        Returns:
            Faults that could not be undone, in words.
        """
        problems = healing.heal_left(self.run, self.plan, self.site)
        self._follower.ask_for_starts(ledger.read(self.run))
        return problems

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
            self.calls.trouble = ""
            self._submitter.look_up(unclear)
            if self.calls.trouble:
                raise CommandError(
                    f"of unknown outcome: {', '.join(s.job_name(run_id) for s in unclear)}; "
                    f"the controller was asked, and: {self.calls.trouble}; try again when it answers"
                )
        return [s.job_name(run_id) for s in unclear_submissions(self.plan, ledger.read(self.run))]

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
            self.calls.count()
        return ids

    def queued(self) -> list[tuple[str, Job]]:
        """Jobs that may still be in the queue or running, each with its id (on one machine, its runner's)."""
        return self._follower.queued(ledger.read(self.run))
