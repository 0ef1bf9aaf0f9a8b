"""The ledger: append-only, what the driver did. A driver that was killed resumes from it.

``submitting`` is written before ``sbatch`` is called and ``submitted`` after it answered: a submission
that is only ``submitting`` may or may not be in the queue, and has to be looked up by its name.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.model.case import Plan, Submission
from harness.model.design import MORE
from harness.rundir import RunDir, append_line, content_of, lines_of

SUBMITTING, SUBMITTED, REFUSED, ENDED, CANCELLED = "submitting", "submitted", "refused", "ended", "cancelled"
OVER = "over"  # Slurm calls a job over whose supervisor's last word has not shown (yet)
DEFERRED = "deferred"  # sbatch said: not now, for instance because too many jobs are queued
MISSED = "missed"  # of unknown outcome, and the controller, which answered, does not list it
AGAIN = "again"  # jobs are submitted once more: a round
JUDGED = "judged"  # a group that others need
WEIGHED = "weighed"  # a lot: whether its repeats so far are enough
SUSPECT = "suspect"  # a node that no further job of the run shall get
FINISHED = "finished"  # everything has ended, and results and report were written


@dataclass(frozen=True)
class Ledger:
    """The ledger as read."""

    submitting: Mapping[str, int] = field(default_factory=dict)  # submission -> wall ns of the last try
    submitted: Mapping[str, str] = field(default_factory=dict)  # submission -> job id
    submitted_ns: Mapping[str, int] = field(default_factory=dict)  # submission -> wall ns
    refused: Mapping[str, str] = field(default_factory=dict)  # submission -> what sbatch said, for good
    missed: Mapping[str, int] = field(default_factory=dict)  # submission -> wall ns, since it was last sent
    deferred: Mapping[str, int] = field(default_factory=dict)  # submission -> wall ns
    over: Mapping[str, int] = field(default_factory=dict)  # job key -> wall ns at which Slurm first said so
    ended: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # job key -> state and what is known
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (case, class) -> times
    rounds: tuple[Mapping[str, Any], ...] = ()  # lines AGAIN, in order
    judged: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # group -> case -> verdict
    suspects: Mapping[str, str] = field(default_factory=dict)  # node -> why
    tries: Mapping[str, int] = field(default_factory=dict)  # submission -> times that sbatch was called
    cancelled: frozenset[str] = frozenset()  # submissions that a person cancelled
    weighed: Mapping[str, int] = field(default_factory=dict)  # lot -> the highest wave that was asked about
    closed: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # lot -> why no more: answer, words
    finished: bool = False

    def submissions(self, plan: Plan) -> list[Submission]:
        """Everything that is or was to be submitted: what was planned, then the rounds."""
        planned = {s.name: s for s in plan.submissions}
        return [
            *plan.submissions,
            *(planned[line["of"]].again(line["round"], line["keys"]) for line in self.rounds),
        ]

    def current(self, plan: Plan) -> dict[str, tuple[Submission, int]]:
        """Job key -> the newest submission that holds it, and its place there."""
        return {job.key: (s, i) for s in self.submissions(plan) for i, job in enumerate(s.jobs)}


def read(run: RunDir) -> Ledger:
    """Read a run's ledger; a missing one is empty."""
    return _understood(content_of(run.ledger))


@functools.lru_cache(maxsize=4)  # a look is taken more often than a line is written
def _understood(content: bytes) -> Ledger:
    submitting: dict[str, int] = {}
    submitted: dict[str, str] = {}
    submitted_ns: dict[str, int] = {}
    refused: dict[str, str] = {}
    missed: dict[str, int] = {}
    deferred: dict[str, int] = {}
    over: dict[str, int] = {}
    ended: dict[str, Mapping[str, Any]] = {}
    failures: Counter[tuple[str, str]] = Counter()
    rounds: dict[str, Mapping[str, Any]] = {}
    judged: dict[str, Mapping[str, str]] = {}
    suspects: dict[str, str] = {}
    tries: Counter[str] = Counter()
    cancelled: set[str] = set()
    weighed: dict[str, int] = {}
    closed: dict[str, tuple[str, str]] = {}
    finished = False
    for line in lines_of(content):
        what, name = line["what"], line.get("name", "")
        if what == SUBMITTING:
            submitting[name] = line["wall_ns"]
            deferred.pop(name, None)
            missed.pop(name, None)
            tries[name] += 1
        elif what == SUBMITTED:
            submitted[name], submitted_ns[name] = line["job_id"], line["wall_ns"]
        elif what == REFUSED:
            refused[name] = line["why"]
        elif what == MISSED:
            missed.setdefault(name, line["wall_ns"])
        elif what == DEFERRED:
            submitting.pop(name, None)
            tries[name] -= 1
            deferred[name] = line["wall_ns"]
        elif what == OVER:
            over.setdefault(name, line["wall_ns"])
        elif what == ENDED:
            if name not in ended:
                failures.update(line["facts"].get("failures", {}).items())
            ended[name] = line["facts"]
        elif what == AGAIN and name not in rounds:
            rounds[name] = line
            for key in line["keys"]:
                ended.pop(key, None)
                over.pop(key, None)
        elif what == JUDGED:
            judged[name] = line["verdicts"]
        elif what == WEIGHED:
            weighed[name] = line["wave"]
            if line["answer"] != MORE:
                closed.setdefault(name, (line["answer"], line["why"]))
        elif what == SUSPECT:
            suspects.setdefault(name, line["why"])
        elif what == CANCELLED:
            cancelled.add(name)
        elif what == FINISHED:
            finished = True
    return Ledger(
        submitting,
        submitted,
        submitted_ns,
        refused,
        missed,
        deferred,
        over,
        ended,
        failures,
        tuple(rounds.values()),
        judged,
        suspects,
        tries,
        frozenset(cancelled),
        weighed,
        closed,
        finished,
    )


def write(run: RunDir, what: str, name: str, **facts: Any) -> None:
    """Append one line, durably."""
    append_line(run.ledger, {"what": what, "name": name, "wall_ns": time.time_ns(), **facts})
