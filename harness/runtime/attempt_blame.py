"""Why an attempt ends, and who is blamed for it: a rank that hangs or died, a node that was lost, or nobody here.

Every finding is put on record, once. What looks like a failure may be the job that is being taken away: then our own
signal is on its way, and is waited for. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import failures
from harness.model import attempt as at
from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case
from harness.runtime import detect, page
from harness.runtime.attempt_start import Start
from harness.runtime.attempt_told import Told
from harness.runtime.command import ENDED_FROM_OUTSIDE
from harness.runtime.rank_view import RankView, culprit, exit_words
from harness.slurm.commands import controller_is_away

if TYPE_CHECKING:
    from harness.runtime.supervisor import Supervisor

# As harness.model.campaign_faults.Detection has it, for cases that were planned before there was one.
DETECTION = {"lease_s": 5.0, "frozen_s": 1.0, "step_s": 10.0, "checkpoint_s": 60.0, "start_s": 120.0}
SIGNAL_S = 2.0


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: its outcome, the reason in words, and the class of its failure where we can tell."""

    outcome: str
    reason: str
    failure: str = ""


class Blame:
    """Judges one attempt.

    Args:
        supervisor: of its job.
        case: what it runs.
        attempt: as it began.
        told: what agents say of it.
        start: how its ranks were started.
    """

    def __init__(
        self, supervisor: Supervisor, case: Case, attempt: Attempt, told: Told, start: Start
    ) -> None:
        self._s, self._case, self._attempt = supervisor, case, attempt
        self._told, self._start = told, start
        self._detector = detect.Detector(
            {**DETECTION, **case.detection},
            len(told.ranks),
            time.monotonic(),
            own_loop=case.command is None,
            history=supervisor.histories.setdefault(case.case_id, detect.History()),
        )
        self._detected: set[str] = set()
        self._blamed: int | None = None  # the rank whose end or standstill ended the attempt

    def step_s(self) -> float:
        """How long a step takes, as far as is known, in seconds."""
        return self._detector.step_s()

    def step(self) -> int:
        """The step at which the attempt failed; see ``blamed_step``."""
        return blamed_step(self._told.ranks, self._blamed, self._s.links.lost)

    def failure(self, ending: Ending) -> str:
        """The class of the failure; "" for none, or where others know better."""
        if (
            ending.outcome == at.INTERRUPTED
        ):  # Slurm's final state says why, but for the warning before the time limit
            return failures.TIME_LIMIT if self._s.signal_name == "SIGUSR2" else ""
        if ending.outcome == at.NODE_LOST:
            return failures.MACHINE
        return ending.failure if ending.outcome == at.FAILED else ""

    async def _is_taken(self) -> bool:
        """Whether the job is being taken away; its processes may hear of that before we do."""
        if not self._s.signal.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._s.signal.wait(), SIGNAL_S)
        return self._s.signal.is_set()

    # --- nodes ----------------------------------------------------------------------------------------

    async def too_few_nodes(self) -> Ending:
        """The attempt cannot begin; a job that is ended at once loses its steps before it hears of it."""
        links = self._s.links
        lost = "; ".join(f"{n}: {link.lost}" for n, link in links.links.items() if link.lost)
        words = f"{len(self._attempt.nodes)} usable nodes, the case needs {self._case.nodes} ({lost})"
        if await self._is_taken():
            return Ending(at.INTERRUPTED, f"received {self._s.signal_name} before its nodes were ready")
        if links.none_began() and not controller_is_away(words):
            return Ending(at.FAILED, words, failures.PROGRAM)
        return Ending(at.NODE_LOST, words)

    async def lost(self, problem: str) -> Ending:
        """A node is lost; but where its agent was ended with the job, our own signal is on its way."""
        if any(self._s.links.closed(node) for node in self._attempt.nodes) and not self._case.in_place:
            await self._is_taken()
        while self._s.links.may_be_cut_off() and not self._s.signal.is_set():
            await self._told.tick()  # for less than a lease
        if self._s.signal.is_set():
            return Ending(at.INTERRUPTED, f"received {self._s.signal_name}")
        for node in self._attempt.nodes:
            if why := self._s.links.lost(node):
                self._detect(detect.SILENT, -1, node, why)
        return Ending(at.NODE_LOST, problem)

    # --- ranks ----------------------------------------------------------------------------------------

    def look(self) -> str:
        """What the detector finds, in words: a reason to end this attempt; "" for nothing, or nothing to act on."""
        ranks = self._told.ranks
        finding = self._detector.look(time.monotonic(), ranks, [not r.ended for r in ranks])
        if finding is None:
            return ""
        rank = ranks[finding.rank]
        self._detect(finding.what, finding.rank, rank.node, finding.evidence)
        self._blamed = finding.rank
        if self._case.command is not None and self._case.recovery == "none":
            return ""  # a program may have its reasons, and nobody asked for it to be ended
        return f"{finding.what}: rank {finding.rank} on {rank.node} at step {rank.begun}: {finding.evidence}"

    async def ended(self) -> Ending:
        """The ranks have ended; but where they fell silent, they may have been ended with the job, as above."""
        ending = self._of_ranks()
        if not self._case.in_place:
            spoke = [r.words for r in self._told.ranks if r.words]
            silent = all(words.startswith(ENDED_FROM_OUTSIDE) for words in spoke)
            if ending.outcome == at.FAILED and silent and await self._is_taken():
                return Ending(at.INTERRUPTED, f"received {self._s.signal_name}")
        self._blame_dead()
        return ending

    def _of_ranks(self) -> Ending:
        ranks = self._told.ranks
        bad = [n for n, r in enumerate(ranks) if r.state != page.DONE]
        if not bad:
            return Ending(at.COMPLETED, "")
        found = culprit(ranks)
        self._blamed = number = bad[0] if found is None else found
        rank = ranks[number]
        failure = failures.of_words(rank.words)
        if rank.words:
            return Ending(at.FAILED, f"rank {number} on {rank.node}: {rank.words}", failure)
        if rank.ended:
            reason = (
                f"rank {number} on {rank.node} ended{exit_words(rank)} without finishing: {page.STATES[rank.state]}, "
                f"{rank.finished + 1} of {max(rank.of, self._case.steps)} steps, "
                f"{sum(ranks[n].ended for n in bad)} of {len(ranks)} ranks like it; "
                f"{self._start.log_tail(number)}"
            )
            return Ending(at.FAILED, reason, failure)
        reason = (
            f"the step of its ranks ended with code {self._start.step_code()} before rank {number} was heard of: "
            f"{self._start.log_tail(None)}"
        )
        return Ending(at.FAILED, reason, failure)

    def _blame_dead(self) -> None:
        """Put on record which rank's end took the others with it."""
        ranks = self._told.ranks
        if (number := culprit(ranks)) is not None:
            rank = ranks[number]
            words = f"its process ended{exit_words(rank)}; {rank.words or 'without a word'}"
            if (astray := detect.stray(ranks)) is None:
                return self._detect(detect.DEAD, number, rank.node, words)
            view = ranks[astray]
            words = f"{detect.strayed_words(astray, view)}; of rank {number}: {words}"
            self._detect(detect.STRAYED, astray, view.node, words)

    def _detect(self, what: str, rank: int, node: str, evidence: str) -> None:
        """Put on record that something is wrong, and who is blamed for it; once for each."""
        if f"{what} {rank} {node}" in self._detected:
            return
        self._detected.add(f"{what} {rank} {node}")
        ranks = self._told.ranks
        step = ranks[rank].begun if 0 <= rank < len(ranks) else self._told.slowest().begun
        self._s.event(
            ev.DETECTED,
            self._case.case_id,
            self._attempt.index,
            rank,
            what=what,
            node=node,
            step=step,
            evidence=evidence,
        )


def blamed_step(ranks: Sequence[RankView], blamed: int | None, lost: Callable[[str], str]) -> int:
    """The step that the blamed rank had begun, or the ranks of lost nodes; -1 where nobody is blamed.

    Args:
        ranks: of the attempt.
        blamed: whose end or standstill ended it; None for nobody's.
        lost: why a node counts as lost, "" while it does not.
    """
    if blamed is not None:
        return ranks[blamed].begun
    return max((r.begun for r in ranks if lost(r.node)), default=-1)
