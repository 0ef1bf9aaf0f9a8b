"""Sends submissions to the scheduler: each written down before and after, looked up where its outcome is unknown."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence

from harness import failures, ledger
from harness.driving.calls import Calls
from harness.model.case import Submission
from harness.rundir import RunDir
from harness.scheduler import Scheduler
from harness.slurm.commands import CommandError, Refusal, refusal_of

LOOKUP_WAIT_S = 5.0  # between two answers that do not list a submission, before it is sent again
MAX_TRIES = 8  # of an sbatch whose outcome is unknown each time, with the controller answering in between


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


class Submitter:
    """Submits for one run."""

    def __init__(self, run: RunDir, scheduler: Scheduler, calls: Calls) -> None:
        self._run, self._scheduler, self._calls = run, scheduler, calls
        self._nodes: dict[str, dict[str, str]] = {}  # partition -> node -> state, asked once a step

    def forget_nodes(self) -> None:
        """Ask anew which nodes there are before the next submission that must know."""
        self._nodes.clear()

    def submit(self, submission: Submission) -> bool:
        """Whether it was submitted, or refused for good."""
        if self._calls.room() < 2:  # sbatch, and perhaps sinfo before it
            self._calls.held_back = (
                f"{self._calls.per_minute} calls in a minute, the site's limit (calls_per_minute)"
            )
            return False
        with interrupts_wait():  # a Ctrl-C must not come between sbatch and the line that names its job
            return self._submit_now(submission)

    def _submit_now(self, submission: Submission) -> bool:
        try:
            exclude = self._excluded(submission)
        except CommandError as error:
            self._calls.trouble = str(error)
            return False
        ledger.write(self._run, ledger.SUBMITTING, submission.name, exclude=exclude)
        try:
            job_id = self._scheduler.submit(submission, exclude)
        except CommandError as error:
            refusal = refusal_of(error)
            if refusal is Refusal.FOR_GOOD:
                ledger.write(self._run, ledger.REFUSED, submission.name, why=str(error))
                return True
            if refusal is Refusal.FOR_NOW:
                ledger.write(self._run, ledger.DEFERRED, submission.name, why=str(error))
                self._calls.held_back = str(error)
            else:
                self._calls.trouble = str(error)  # unknown outcome: it will be looked up
            return False
        finally:
            self._calls.count()
        ledger.write(self._run, ledger.SUBMITTED, submission.name, job_id=job_id)
        return True

    def _excluded(self, submission: Submission) -> list[str]:
        """Nodes that a submission must not get, of those that its partition has.

        Raises:
            CommandError: the controller did not say which nodes there are.
        """
        known = ledger.read(self._run)
        site = self._run.read_site(submission.partition)
        wanted = list(site.get("exclude_nodes", ()))
        if not (wanted or known.suspects) or self._scheduler.one_at_a_time:
            return []
        if submission.partition not in self._nodes:
            self._nodes[submission.partition] = self._scheduler.nodes(site.get("partition"))
            self._calls.count()
        excluded, _ = failures.exclusion(
            wanted, list(known.suspects), self._nodes[submission.partition], submission.jobs[0].nodes
        )
        return excluded

    def look_up(self, submissions: Sequence[Submission]) -> None:
        """Learn which of these are in the queue; one that two answers, seconds apart, do not list is sent again."""
        try:
            found = self._scheduler.find(submissions)
        except CommandError as error:
            self._calls.trouble = str(error)
            return
        finally:
            self._calls.count()
        known = ledger.read(self._run)
        for submission in submissions:
            name = submission.name
            if name in found:
                ledger.write(self._run, ledger.SUBMITTED, name, job_id=found[name], looked_up=True)
            elif name in known.cancelled:
                ledger.write(self._run, ledger.REFUSED, name, why="cancelled before it was submitted")
            elif (
                name not in known.missed
            ):  # a controller that wakes up answers before it has read all its mail
                ledger.write(self._run, ledger.MISSED, name)
            elif time.time_ns() - known.missed[name] > LOOKUP_WAIT_S * 1e9:
                if known.tries[name] >= MAX_TRIES:
                    why = f"submitted {known.tries[name]} times, and none left a job in the queue"
                    ledger.write(self._run, ledger.REFUSED, name, why=why)
                elif not self.submit(submission):
                    return
