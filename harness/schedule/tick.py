"""A tick: looks whether something is due or unfinished, makes one step of it, and writes down how it ended.

Cheap when there is nothing to do: the history is read, and nobody is asked. It can be killed at any
instruction; the next one goes on. Of several at once one makes the step, and the others leave it to it.
How runs are made and driven is not its business: it is given ``Runs``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.model.verdict import EXIT_PASS, EXIT_UNFINISHED, EXIT_UNKNOWN, EXIT_USAGE
from harness.rundir import RunDir, in_words
from harness.schedule import past as pasts
from harness.schedule.folder import (
    ENDED,
    FAILED,
    SKIPPED,
    STARTED,
    TOLD,
    TROUBLE,
    ScheduleDir,
    ScheduleError,
    Spec,
    moment_facts,
)
from harness.schedule.past import GoOn, Nothing, Past, Start
from harness.schedule.when import Moment, last_due, moment_now, zone_of
from harness.slurm.commands import CommandError


class Broken(Exception):
    """No run can be made or driven of this, and trying again would not help; the message says why."""


class Runs(Protocol):
    """How runs are made and driven."""

    def make(self, spec: Spec, run: RunDir) -> None:
        """Plan the campaign, and put the run folder in place.

        Raises:
            Broken: the campaign or site cannot be planned, or the folder not be made.
            CommandError: the scheduler does not answer.
        """

    def advance(self, run: RunDir) -> int:
        """One step; 0 when the run is complete and has its report, else 4.

        Raises:
            Broken: the run folder is damaged.
            CommandError: the scheduler does not answer.
        """


def say(text: str) -> None:
    """One line for the log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Tick:
    """Ticks of one schedule."""

    folder: ScheduleDir
    spec: Spec
    runs: Runs
    now: Callable[[], float] = time.time
    say: Callable[[str], None] = field(default=say)

    def past(self) -> Past:
        """What the history says now."""
        return pasts.read(self.folder.lines(), self.spec.since_s)

    def due(self) -> Moment:
        """The newest moment that has come."""
        return last_due(self.spec.when, self.now(), zone_of(self.spec.zone))

    def step(self, *, start_now: bool = False) -> int:
        """Go on with what is unfinished, or start what is due; with ``start_now``, start even if nothing is.

        Returns:
            The exit code: 0 nothing to do, 4 unfinished, 2 no run could be made, 3 the scheduler does not answer;
            when a run has ended, its own.

        Raises:
            Busy: another tick is at it.
            ScheduleError: with ``start_now``, a run of this very minute is there.
        """
        with self.folder.held():
            past = self.past()
            self._tell(past)
            todo = pasts.decide(past, self.due())
            if start_now and not isinstance(todo, GoOn):
                todo = Start(self._this_minute(past))
            if isinstance(todo, Nothing):
                return EXIT_PASS
            self.folder.rotate_log()
            if isinstance(todo, GoOn):
                return self._advance(todo.run, self._moment_of(todo.run))
            moment = moment_facts(todo.moment)
            by = {
                "process": os.getpid(),
                "host": os.uname().nodename,
                "job": os.environ.get("SLURM_JOB_ID", ""),
            }
            self.folder.tell(STARTED, run=todo.moment.name, **moment, by=by)
            self.say(f"{todo.moment.name}: started")
            return self._advance(todo.moment.name, moment)

    def _this_minute(self, past: Past) -> Moment:
        moment = moment_now(self.now(), zone_of(self.spec.zone))
        if moment.name in past.runs:
            raise ScheduleError(
                f"{self.folder.runs / moment.name}: a run of this minute is there; wait for the next one"
            )
        return moment

    def _moment_of(self, run: str) -> dict[str, Any]:
        started = [x for x in self.folder.lines() if x["what"] == STARTED and x["run"] == run]
        return {name: started[-1][name] for name in ("moment", "moment_s")}

    def _advance(self, name: str, moment: Mapping[str, Any]) -> int:
        run = self.folder.run(name)
        try:
            if not run.identity.exists():
                self.runs.make(self.spec, run)
            self.folder.point_latest(name)
            code = self.runs.advance(run)
        except Broken as error:
            self.folder.tell(FAILED, run=name, **moment, why=str(error), exit=EXIT_USAGE)
            self.say(f"{name}: {error}")
            self._tell(self.past())
            return EXIT_USAGE
        except CommandError as error:
            self.trouble(str(error))
            code = EXIT_UNKNOWN
        except OSError as error:
            with contextlib.suppress(OSError):  # a full disk takes no history either
                self.trouble(in_words(error))
            raise
        if code in (EXIT_UNFINISHED, EXIT_UNKNOWN):
            self._skip_missed()
            return code
        return self._ended(name, moment)

    def _ended(self, name: str, moment: Mapping[str, Any]) -> int:
        run = self.folder.run(name)
        summary = _summary(run)
        code = int(summary.get("exit_code", EXIT_UNKNOWN))
        counts = {verdict: count for verdict, count in summary.get("counts", {}).items() if count}
        report = run.path / "report.html"
        self.folder.tell(ENDED, run=name, **moment, exit=code, counts=counts, report=str(report))
        self.say(f"{name}: ended with exit code {code}; {report}")
        for pruned in self.folder.prune(self.spec.keep):
            self.say(f"{pruned}: only results and reports are kept from now on")
        self._tell(self.past())
        return code

    def _skip_missed(self) -> None:
        past = self.past()
        moment = pasts.missed(past, self.due())
        if moment is not None:
            why = f"the run of {past.open_run} has not ended"
            self.folder.tell(SKIPPED, **moment_facts(moment), why=why)
            self.say(f"{moment.name}: skipped, since {why}")
            self._tell(self.past())

    def trouble(self, why: str) -> None:
        """Write down what went wrong, if anything did; once, while it stays the same."""
        if not why:
            return
        self.say(why)
        if self.past().trouble != why:
            self.folder.tell(TROUBLE, why=why)

    def _tell(self, past: Past) -> None:
        """Mail how it ended. Written down afterwards: after a kill it is told again, and never not at all."""
        if not self.spec.mail or past.outcome is None or past.told:
            return
        from harness.schedule import mail

        if not mail.wanted(self.spec, past.outcome):
            return
        why = mail.send(mail.message(self.spec, self.folder, past.outcome, self._cases(past.outcome)))
        self.folder.tell(TOLD, of=pasts.key(past.outcome), to=self.spec.mail, why=why)
        if why:
            self.say(f"no mail to {self.spec.mail}: {why}")

    def _cases(self, outcome: Mapping[str, Any]) -> tuple[str, ...]:
        cases = _summary(self.folder.run(outcome["run"])).get("cases", ()) if outcome["what"] == ENDED else ()
        return tuple(
            f"{c['verdict']:<13} {c['label']:<28} {c['key_figure']}" + (f"  [{c['why']}]" if c["why"] else "")
            for c in cases
        )


def _summary(run: RunDir) -> dict[str, Any]:
    """``summary.json``; empty where there is none, which makes the verdict unknown."""
    try:
        data = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
