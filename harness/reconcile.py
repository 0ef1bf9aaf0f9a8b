"""What the driver does next: a pure function of plan, ledger, and what is seen of cluster and run folder.

It refuses to look or to act; ``harness.driver`` does both.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from harness import failures
from harness.ledger import Ledger
from harness.model.case import Plan, Submission
from harness.model.design import ENOUGH, NOT_NEEDED, WORDS, Lot
from harness.slurm.query import JobRow
from harness.slurm.states import Kind, is_over, kind_of

SETTLE_S = 15.0  # after a supervisor's last word: how long Slurm may take to call its job ended
DEFER_S = 60.0  # after sbatch said "not now": how long nothing is submitted
DIED_S = 5.0  # a job that machine or person ended: how long its last lines may take to be seen, where that is short
PASSED = ("pass", "within noise")


@dataclass(frozen=True)
class Submit:
    """Call sbatch for a submission that is certainly not in the queue."""

    submission: Submission


@dataclass(frozen=True)
class LookUp:
    """Ask whether a submission of unknown outcome is in the queue."""

    submissions: tuple[Submission, ...]


@dataclass(frozen=True)
class Over:
    """Slurm calls a job over, and its supervisor's last word is not to be seen: note when that began."""

    key: str
    state: str


@dataclass(frozen=True)
class End:
    """A job has ended; write it down."""

    key: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Judge:
    """All cases of a group that others need have ended: have them judged."""

    group: str
    case_ids: tuple[str, ...]


@dataclass(frozen=True)
class Weigh:
    """All cases of a lot's waves so far have ended: have it said whether the next wave is needed."""

    lot: Lot
    wave: int


@dataclass(frozen=True)
class Again:
    """Submit jobs of a planned submission once more, to redo these cases."""

    of: str
    round: int
    redo: Mapping[str, Mapping[str, str]]  # job key -> case -> class of its failure


Action = Submit | LookUp | Over | End | Judge | Weigh | Again


@dataclass(frozen=True)
class Seen:
    """What is known of the cluster and the run folder at one moment."""

    rows: Mapping[str, JobRow]  # job key -> Slurm's word
    ends: Mapping[str, Mapping[str, Any]]  # job key -> the supervisor's last word
    wall_ns: int


def reconcile(
    plan: Plan, known: Ledger, seen: Seen, *, one_at_a_time: bool = False, visible_after_s: float = 0.0
) -> list[Action]:
    """What to do next, in the plan's order.

    A submission that was begun and has no job id is looked up before anything else is done with it. A
    job is over when its supervisor said so, or when Slurm says so in a state that cannot change, and the
    supervisor's last word had time to be seen.

    Args:
        plan: what is to be run.
        known: what was done.
        seen: what is seen now.
        one_at_a_time: whether a submission waits for the one before.
        visible_after_s: how long a file may take from a node to here.
    """
    actions: list[Action] = []
    if unclear := unclear_submissions(plan, known):
        actions.append(LookUp(unclear))
    current = known.current(plan)
    queue = _Queue(plan, known, one_at_a_time, seen.wall_ns)
    for submission in known.submissions(plan):
        mine = [job.key for job in submission.jobs if current[job.key][0].name == submission.name]
        open_ = [key for key in mine if key not in known.ended]
        if not open_:
            continue
        if submission.name in known.refused:
            actions += [End(k, {"state": "REFUSED", "reason": known.refused[submission.name]}) for k in open_]
        elif submission.name not in known.submitted:
            if submission.name in known.submitting:
                continue
            waits, never, asks = _gate(plan, known, submission)
            if not waits and not never:
                waits, never, asks = _weighed(plan, known, submission)
            actions += [action for action in asks if action not in actions]
            if never:
                actions += [End(key, never) for key in open_]
            elif not waits and queue.takes(submission):
                actions.append(Submit(submission))
        else:
            for key in open_:
                faulted = any(
                    plan.case(c).faults for j in submission.jobs if j.key == key for c in j.case_ids
                )
                actions += _of_job(key, known, seen, visible_after_s, faulted)
    return actions + due(plan, known)


def unclear_submissions(plan: Plan, known: Ledger) -> tuple[Submission, ...]:
    """Submissions that were begun, and of which nobody knows whether they are in the queue."""
    return tuple(
        s
        for s in known.submissions(plan)
        if s.name in known.submitting and s.name not in known.submitted and s.name not in known.refused
    )


def complete(plan: Plan, known: Ledger) -> bool:
    """Whether every job has ended, and none is to be done once more."""
    return all(job.key in known.ended for s in plan.submissions for job in s.jobs) and not due(plan, known)


class _Queue:
    """How much may be in the queue."""

    def __init__(self, plan: Plan, known: Ledger, one_at_a_time: bool, wall_ns: int) -> None:
        self._one = one_at_a_time
        self._most = plan.policy.max_jobs_in_queue
        begun = [
            s for s in known.submissions(plan) if s.name in known.submitting and s.name not in known.refused
        ]
        current = known.current(plan)
        self._jobs = sum(
            job.key not in known.ended and current[job.key][0].name == s.name for s in begun for job in s.jobs
        )
        self._full = any(wall_ns - deferred_ns < DEFER_S * 1e9 for deferred_ns in known.deferred.values())

    def takes(self, submission: Submission) -> bool:
        """Whether this may be submitted now; those behind one that may not wait as well, in order."""
        jobs = len(submission.jobs)
        if self._one:
            self._full = self._full or self._jobs > 0
        elif self._most is not None:  # one that is larger than the limit goes alone
            self._full = self._full or (self._jobs > 0 and self._jobs + jobs > self._most)
        if not self._full:
            self._jobs += jobs
        return not self._full


def _of_job(key: str, known: Ledger, seen: Seen, visible_after_s: float, faulted: bool) -> list[Action]:
    row, end = seen.rows.get(key), seen.ends.get(key)
    if row is not None and (is_over(row.state) or row.gone):
        if end is not None:
            return [End(key, _facts(row, end))]
        if key not in known.over:
            return [Over(key, row.state)]
        # Of a job that was ended there is little to wait for; but a fault that it injected must be known.
        ended_itself = kind_of(row.state) in (Kind.ENDED_WELL, Kind.ENDED_BY_PROGRAM, Kind.UNKNOWN)
        had_its_say = ended_itself or faulted
        wait_s = visible_after_s if had_its_say else min(DIED_S, visible_after_s)
        return [End(key, _facts(row, end))] if seen.wall_ns - known.over[key] >= wait_s * 1e9 else []
    if end is not None and seen.wall_ns - end["wall_ns"] > SETTLE_S * 1e9:
        return [End(key, {"state": "", "reason": "", "job_id": end["job_id"]})]
    return []


def _facts(row: JobRow, end: Mapping[str, Any] | None) -> dict[str, Any]:
    if end is not None:
        reason = ""
    elif row.gone:
        reason = "Slurm knows no such job any more, and its supervisor left no last word"
    else:
        reason = f"Slurm says {with_name(row.state)} (exit code {row.exit_code or 'unknown'})"
        if row.exit_code == "0:53":  # what slurmd says when it cannot open a job's standard output
            reason += ": its node could not write the log; is the run folder on storage that all nodes see?"
        if why := failures.of_exit_code(row.exit_code):
            reason += f": {why}"
    return {
        "state": row.state,
        "exit_code": row.exit_code,
        "nodes": row.nodes,
        "start": row.start,
        "end": row.end,
        "job_id": row.job_id,
        "reason": reason,
    }


def with_name(state: str) -> str:
    """``CANCELLED by 1000`` with the user's name, where this machine knows it."""
    match = re.fullmatch(r"CANCELLED by (\d+)", state.strip())
    if match is None:
        return state
    try:
        return f"{state} ({pwd.getpwuid(int(match.group(1))).pw_name})"
    except KeyError:
        return state


# ---- what groups wait for ----


Held = tuple[bool, Mapping[str, Any], list[Action]]
"""Whether a submission waits; how its jobs end if it is never sent, else nothing; what has to be asked for it."""


def _gate(plan: Plan, known: Ledger, submission: Submission) -> Held:
    """What groups that it waits for do to a submission."""
    waits, judge = False, list[Action]()
    for group in (*submission.after, *submission.needs):
        cases = tuple(c.case_id for c in plan.cases if c.group == group)
        if not _has_ended(plan, known, set(cases)):
            waits = True
        elif group in submission.needs:
            if group not in known.judged:
                judge.append(Judge(group, _run(plan, known, cases)))
                waits = True
            elif failed := [(c, v) for c, v in known.judged[group].items() if v not in PASSED]:
                label = {c.case_id: c.label for c in plan.cases}
                case_id, verdict = failed[0]
                more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
                why = f"not run: it needs {group}, and {label.get(case_id, case_id)}{more} is {verdict}"
                return False, {"state": "SKIPPED", "reason": why}, []
    return waits, {}, judge


def _run(plan: Plan, known: Ledger, cases: Sequence[str]) -> tuple[str, ...]:
    """Those of the cases that were not left out because the repeats before them were enough."""
    states = {key: facts.get("state") for key, facts in known.ended.items()}
    jobs = (job for s in plan.submissions for job in s.jobs if states.get(job.key) == NOT_NEEDED)
    left_out = {case_id for job in jobs for case_id in job.case_ids}
    return tuple(case_id for case_id in cases if case_id not in left_out)


def _weighed(plan: Plan, known: Ledger, submission: Submission) -> Held:
    """What the repeats before it do to a submission of more."""
    lot = plan.lot(submission.lot) if submission.wave else None
    if lot is None:
        return False, {}, []
    if lot.name in known.closed:
        answer, why = known.closed[lot.name]
        state, words = (NOT_NEEDED, WORDS) if answer == ENOUGH else ("SKIPPED", "not run: ")
        return False, {"state": state, "reason": f"{words}{why}"}, []
    asked = known.weighed.get(lot.name, 0)
    if submission.wave <= asked:
        return False, {}, []
    turn = submission.wave == asked + 1 and _has_ended(plan, known, lot.before(submission.wave))
    return True, {}, [Weigh(lot, submission.wave)] if turn else []


def _has_ended(plan: Plan, known: Ledger, case_ids: Set[str]) -> bool:
    keys = {job.key for s in plan.submissions for job in s.jobs if not case_ids.isdisjoint(job.case_ids)}
    again = {key for action in due(plan, known) for key in action.redo}
    return all(key in known.ended for key in keys) and not keys & again


# ---- what is done once more ----


def due(plan: Plan, known: Ledger) -> list[Again]:
    """Rounds that the policy asks for: jobs that have ended with a failure that is worth another try."""
    redo: dict[str, dict[str, dict[str, str]]] = {}
    home = {job.key: s.name for s in plan.submissions for job in s.jobs}
    for key, facts in known.ended.items():
        for case_id, failure in facts.get("failures", {}).items():
            if facts.get("final") or known.failures[case_id, failure] > plan.policy.retry.get(failure, 0):
                continue
            redo.setdefault(home[key], {}).setdefault(key, {})[case_id] = failure
    numbers = {name: 1 + sum(line["of"] == name for line in known.rounds) for name in redo}
    return [Again(name, numbers[name], keys) for name, keys in redo.items()]


def blame(facts: Mapping[str, Any]) -> Sequence[str]:
    """Classes of failure of an ended job's cases, in the order of ``failures.CLASSES``."""
    found = set(facts.get("failures", {}).values())
    return [name for name in failures.CLASSES if name in found]
