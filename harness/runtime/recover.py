"""What follows an attempt that did not complete: again in place, again by a requeue, or the end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import failures
from harness.model import attempt as at
from harness.model.attempt import Attempt
from harness.model.case import Case
from harness.runtime.checkpoint_files import NONE_USABLE

AGAIN, REQUEUE, END = "again", "requeue", "end"


@dataclass(frozen=True)
class Decision:
    """What to do; with ``END``, how the case ended and why."""

    what: str
    outcome: str = ""
    reason: str = ""


def decide(
    case: Case, history: Sequence[Attempt], *, live: int, first_restart: int, requeue: bool
) -> Decision:
    """Decide after the last attempt of ``history``.

    Args:
        case: the case.
        history: its attempts, oldest first; at least one.
        live: nodes of the allocation that can be used.
        first_restart: attempts of earlier restarts than this belong to an earlier round, and count no more.
        requeue: whether Slurm may start the job again.
    """
    last = history[-1]
    if last.outcome == at.COMPLETED:
        return Decision(END, last.outcome, last.reason)
    if case.recovery == "none":
        return Decision(END, last.outcome, last.reason)
    if last.outcome == at.FAILED and not may_recover(last):
        return Decision(END, last.outcome, last.reason)
    if NONE_USABLE in last.reason:
        return Decision(END, last.outcome, last.reason)  # it would be the same again
    tried = [a for a in history if a.restart >= first_restart]
    if len(tried) > case.max_restarts:
        return Decision(END, last.outcome, _given_up(case, tried))
    if not case.in_place:
        if requeue:
            return Decision(REQUEUE)
        return Decision(END, last.outcome, last.reason)
    if last.outcome == at.INTERRUPTED:
        return Decision(END, last.outcome, last.reason)  # the allocation is being taken away
    if live < case.nodes and not (case.shrink and live):
        spares = f"{case.spares} spare{'s' * (case.spares != 1)}"
        words = f"{last.reason}; {live} of its nodes are left, it needs {case.nodes} and had {spares}"
        return Decision(END, last.outcome, words)
    return Decision(AGAIN)


def may_recover(attempt: Attempt) -> bool:
    """Whether a failed attempt is worth another: not beyond its time limit, and not where a first one failed to start.

    A rank that was killed before its first step is no failure to start.
    """
    if attempt.failure == failures.TIME_LIMIT:
        return False
    return attempt.last_begun >= 0 or attempt.index > 0 or attempt.fell_silent


def _given_up(case: Case, tried: Sequence[Attempt]) -> str:
    last = tried[-1]
    steps = {a.blamed_step for a in tried}
    same = f", each time at step {last.blamed_step}" if len(steps) == 1 and last.blamed_step >= 0 else ""
    times = f"after {len(tried)} attempts (max_restarts {case.max_restarts})"
    return f"{last.reason}; not recovered {times}{same}"
