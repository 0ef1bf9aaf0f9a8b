"""A tick that goes on until nothing is left to do: in a small job of the schedule's own, or under a timer.

In a job it leaves before its time limit, and gives its place back when everything only waits for the
queue. So that this loses nothing, and neither does a kill or a lost node, it first sees that another job
comes after it (``Chain``). It never asks for its own job to be requeued.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.model.verdict import EXIT_PASS, EXIT_UNFINISHED, EXIT_UNKNOWN
from harness.rundir import RunDir, RunFolderError
from harness.schedule import past as pasts
from harness.schedule.folder import Busy, ScheduleDir
from harness.schedule.past import Nothing
from harness.schedule.tick import Tick
from harness.schedule.when import next_due, zone_of
from harness.slurm.commands import CommandError, run_command

DEFAULT_POLL_S = 10.0
MAX_WAIT_S = 30.0  # between two steps
LOOK_S = 2.0  # between two looks into the run folder, which cost the scheduler nothing
IDLE_S = 120.0  # when nothing of a run has moved for so long, its jobs wait in the queue
MARGIN_S = 60.0  # before the time limit of our job
PAUSE_S = 120.0  # from the time limit of our job to the begin of the next
# A job may begin a little before its moment, as the clocks of two machines differ; one of scrontab, on the day
# on which the clocks are put forward, an hour before.
EARLY_S = 90.0
CLOCK_CHANGE_S = 4500.0


class Chain(Protocol):
    """The job that comes after this one."""

    def ensure(self, begin_s: float) -> str:
        """See that there is one, and if not, submit one that begins then. Returns "", or why that is not known."""

    def settle(self, begin_s: float | None) -> str:
        """Nothing is left to do: see that one is there and begins then, or, with None, none. Returns as ``ensure``."""


@dataclass
class Whole:
    """One such tick."""

    tick: Tick
    chain: Chain | None = None
    """None outside a job of the schedule's own: then there is no hurry, and nothing comes after."""
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self._now, spec = self.tick.now, self.tick.spec
        self._begun_s = self._moved_s = self._now()
        self._limit_s = spec.job_minutes * 60.0
        self._handed_on = self.chain is None
        self._wait_s = 0.0

    def drive(self, *, start_now: bool = False) -> int:
        """Step after step.

        Returns:
            The exit code: of the last run that ended; 0 where nothing was due, or the next job goes on; 4 where a
            run is unfinished and no job is known to come; 3 where a chain of jobs has come to its end.
        """
        last: int | None = None
        while True:
            past = self.tick.past()
            if isinstance(pasts.decide(past, self.tick.due()), Nothing) and not start_now:
                if last is None and self._is_early():
                    continue
                return self._nothing_left(EXIT_PASS if last is None else last)
            self._hand_on()
            with contextlib.suppress(Busy):  # another tick makes this step
                code = self.tick.step(start_now=start_now)
                start_now = False
                if (past := self.tick.past()).open_run is None:
                    last = code
                    continue
            if not self._wait(past.open_run):
                follows = "the next job goes on with it" if self._handed_on else "no job is known to come"
                self.tick.say(f"{past.open_run}: has not ended; {follows}")
                return EXIT_PASS if self._handed_on else EXIT_UNFINISHED

    def _next_s(self) -> float:
        return next_due(self.tick.spec.when, self._now(), zone_of(self.tick.spec.zone)).epoch_s

    def _is_early(self) -> bool:
        """Whether a moment is about to come; if so, it has come when this returns."""
        wait_s = self._next_s() - self._now()
        if wait_s > EARLY_S:
            return False
        self.sleep(wait_s + 0.1)
        return True

    def _hand_on(self) -> None:
        """Before anything can be lost: a job that comes after this one, at the latest a while after its end."""
        if self.chain is not None and not self._handed_on:
            begin_s = self._begun_s + self._limit_s + PAUSE_S
            if self.tick.spec.how == "self":  # then nothing else begins at the next moment
                begin_s = min(begin_s, self._next_s())
            why = self.chain.ensure(begin_s)
            self._handed_on = not why
            if why:
                self.tick.trouble(why)

    def _nothing_left(self, code: int) -> int:
        """A job that submits itself needs the next one at the next moment; one of scrontab hardly ever does."""
        if self.chain is None:
            return code
        if self.tick.spec.how != "self":
            if self._handed_on:
                self.chain.settle(None)  # if it stays after all, it finds nothing to do
            elif self._next_s() - self._now() < CLOCK_CHANGE_S:  # begun for that moment, and too early
                self.tick.trouble(self.chain.ensure(self._next_s()))
            return code
        while why := self.chain.settle(self._next_s()):
            self.tick.trouble(why)
            if self._is_over():
                self.tick.trouble(
                    "no job comes after this one, and the schedule has ended; to go on with it: "
                    f"harness schedule install {self.tick.folder.path}"
                )
                return EXIT_UNKNOWN
            self.sleep(MAX_WAIT_S)
        return code

    def _is_over(self) -> bool:
        return self.chain is not None and self._now() > self._begun_s + self._limit_s - MARGIN_S

    def _wait(self, name: str | None) -> bool:
        """Until it is time for another step; False when it is time to leave."""
        run = self.tick.folder.run(name) if name is not None else None
        self._wait_s = min(self._wait_s * 1.5, MAX_WAIT_S) or _poll_s(run)
        ended, moved = _signs(run)
        until_s = self._now() + self._wait_s
        while self._now() < until_s:
            self.sleep(LOOK_S)
            ended_now, moved_now = _signs(run)
            if moved_now != moved:
                moved, self._moved_s = moved_now, self._now()
            if ended_now != ended:
                self._wait_s = 0.0
                break
            if self._is_over():
                self._hand_on()
                return False
        idle = self._now() - self._moved_s > IDLE_S
        return not (idle and self.chain is not None and self._handed_on)


def _poll_s(run: RunDir | None) -> float:
    if run is not None:
        with contextlib.suppress(RunFolderError, KeyError, TypeError, ValueError):
            return float(run.read_site()["scheduler"]["poll_s"])
    return DEFAULT_POLL_S


def _signs(run: RunDir | None) -> tuple[int, float]:
    """How many jobs have said their last word, and when one of them last said how far it is."""
    if run is None:
        return 0, 0.0
    ended, moved = 0, 0.0
    with contextlib.suppress(OSError):  # files come and go
        for path in run.path.glob("work/*/*.json"):
            if path.name.startswith("end"):
                ended += 1
            moved = max(moved, path.stat().st_mtime)
    return ended, moved


class SlurmChain:
    """The schedule's own jobs: one name, one at a time (``--dependency=singleton``), each submitted by the one before.

    The queue itself says whether the next one is there, so that a job that was requeued, or submitted
    twice, or whose sbatch answered too late, still leaves one: whoever finds another pending submits none.
    """

    def __init__(self, folder: ScheduleDir, name: str, timeout_s: float = 30.0) -> None:
        self._folder, self._name, self._timeout_s = folder, name, timeout_s

    def ensure(self, begin_s: float) -> str:
        """See ``Chain``."""
        try:
            if not self.pending():
                self._submit(begin_s)
        except CommandError as error:
            return f"the next job of the schedule is not known to be in the queue: {error}"
        return ""

    def settle(self, begin_s: float | None) -> str:
        """See ``Chain``. Of several jobs one stays; one that begins too early finds nothing to do, and goes on."""
        try:
            pending = self.pending()
            if begin_s is not None and not pending:
                self._submit(begin_s)
            elif begin_s is not None:
                change = ["scontrol", "update", f"JobId={pending.pop(0)}", f"StartTime={_ahead(begin_s)}"]
                with contextlib.suppress(CommandError):
                    run_command(change, timeout_s=self._timeout_s)
            if pending:
                run_command(["scancel", *pending], timeout_s=self._timeout_s)
        except CommandError as error:
            return f"the next job of the schedule is not known to be in the queue: {error}"
        return ""

    def _submit(self, begin_s: float) -> None:
        run_command(
            ["sbatch", "--parsable", f"--begin={_ahead(begin_s)}", str(self._folder.script)],
            timeout_s=self._timeout_s,
        )

    def pending(self) -> list[str]:
        """Ids of its jobs that wait in the queue, this one left out.

        Raises:
            CommandError: the controller does not answer.
        """
        said = run_command(
            [
                *("squeue", "--noheader", "--states=PENDING", "--format=%i"),
                *(f"--name={self._name}", f"--user={getpass.getuser()}"),
            ],
            timeout_s=self._timeout_s,
        )
        return [job_id for job_id in said.split() if job_id != os.environ.get("SLURM_JOB_ID")]

    def cancel(self) -> None:
        """End all its jobs.

        Raises:
            CommandError: it is not known whether they were ended.
        """
        run_command(
            ["scancel", f"--name={self._name}", f"--user={getpass.getuser()}"],
            timeout_s=self._timeout_s,
        )


def _ahead(begin_s: float) -> str:
    """A time as Slurm reads it; at least a minute ahead, so that jobs with nothing to do cannot chase each other."""
    return f"now+{max(60, math.ceil(begin_s - time.time()))}"
