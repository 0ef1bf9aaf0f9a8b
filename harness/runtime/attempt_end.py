"""Ends one attempt: a last checkpoint where the job is taken away, then what still runs, and what each node shipped.

Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model import attempt as at
from harness.model import event as ev
from harness.model.attempt import Attempt, StreamEnd
from harness.model.case import Case
from harness.runtime import page
from harness.runtime.attempt_blame import Ending
from harness.runtime.attempt_start import Start
from harness.runtime.attempt_told import Told
from harness.runtime.checkpoint_files import CheckpointError, committed

if TYPE_CHECKING:
    from harness.runtime.supervisor import Supervisor

SAVE_S = 15.0  # what a last checkpoint may take: Slurm kills 30 s after SIGTERM, unless told otherwise
SAVE_AHEAD_S = 0.4  # how far ahead of the ranks the step of the last checkpoint lies
FINISH_S = 30.0
STEP_END_S = 15.0


class End:
    """The end of one attempt.

    Args:
        supervisor: of its job.
        case: what it runs.
        attempt: as it began.
        folder: its own, on shared storage.
        told: what agents say of it.
    """

    def __init__(
        self, supervisor: Supervisor, case: Case, attempt: Attempt, folder: Path, told: Told
    ) -> None:
        self._s, self._case, self._attempt = supervisor, case, attempt
        self._folder, self._told = folder, told

    async def save(self, step_s: float) -> str:
        """The job is being taken away and will be started again: have the ranks save what they have.

        They must all do so after the same step, a little ahead of the furthest; who cannot is not waited for.

        Args:
            step_s: how long a step takes, in seconds.

        Returns:
            That it was saved, in words; "" where it was not.
        """
        case, ranks = self._case, self._told.ranks
        if not case.checkpoint_every or not self._s.job.requeue or self._s.stepped_down:
            return ""
        if any(r.ended or r.finished < 0 for r in ranks):
            return ""
        ahead = 2 + math.ceil(SAVE_AHEAD_S / max(step_s, 1e-4))
        step = max(r.begun for r in ranks) + min(ahead, 10_000)
        if step >= case.steps:
            return ""
        for node in self._attempt.nodes:
            self._s.links.send(node, "save", steps=step)
        end = time.monotonic() + SAVE_S
        while time.monotonic() < end and not any(r.ended for r in ranks) and not self._told.lost_node():
            if all(r.begun >= step or (r.finished == step - 1 and r.section != page.SAVE) for r in ranks):
                return f"; saved after {step} steps" if self.saved_step() >= step else ""
            await self._told.tick()
        return ""

    def saved_step(self) -> int:
        """The newest checkpoint on shared storage; 0 for none."""
        if not self._case.checkpoint_every:
            return 0
        try:
            found = committed(self._s.run.checkpoints(self._s.job.key, self._case.case_id))
        except CheckpointError:  # storage is away: nothing is known of it now
            return 0
        return max((stamp.step for stamp in found), default=0)

    async def settle(self, start: Start, ending: Ending) -> tuple[Ending, tuple[StreamEnd, ...]]:
        """End what still runs, and learn how much each node shipped; the reason also says what went wrong in that."""
        links = self._s.links
        live = [n for n in self._attempt.nodes if not links.lost(n)]
        for node in live:
            links.send(node, "finish", case_id=self._case.case_id, attempt=self._attempt.folder)
        end = time.monotonic() + FINISH_S
        while time.monotonic() < end and any(
            n not in self._told.finished and not links.lost(n) for n in live
        ):
            await self._told.tick()
        if ending.outcome != at.COMPLETED:
            self._s.event(ev.ATTEMPT_LEFT, self._case.case_id, self._attempt.index)
        streams = tuple(self._stream(node) for node in self._attempt.nodes) if start.asked else ()
        if ending.outcome != at.COMPLETED:
            problems = "".join(f"; {s.node}: {s.problem}" for s in streams if s.problem)
            ending = replace(ending, reason=ending.reason + problems)
        await self._end_step(start.step, ending)
        return ending, streams

    def _stream(self, node: str) -> StreamEnd:
        said: dict[str, Any] = self._told.finished.get(node, {})
        path = str((self._folder / f"{node}.stream").relative_to(self._s.run.path))
        return StreamEnd(node, path, said.get("bytes"), said.get("records"), str(said.get("problem", "")))

    async def _end_step(self, step: asyncio.subprocess.Process | None, ending: Ending) -> None:
        if step is not None and self._case.in_place and ending.outcome != at.COMPLETED:
            self._s.leave_step(step)  # nobody waits for a broken step
        elif step is not None and not self._told.lost_node():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(step.wait(), STEP_END_S)
            if step.returncode is None:
                step.kill()
