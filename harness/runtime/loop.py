"""The loop around a workload on one rank: restore, step, record, prove, save, close; and where faults land in it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.model import event as ev
from harness.runtime import page
from harness.runtime.checkpoint import MEMORY, SHARED, Checkpoints, NotCommitted
from harness.runtime.recorder import Recorder
from harness.workloads import create

if TYPE_CHECKING:
    from harness.runtime.rank import Context, Spec

FAILED_IN_A_ROW, FAILED_S = (
    3,
    60.0,
)  # checkpoints, for so long: a run that can save no more is not left to itself


class Loop:
    """One rank's way through its case.

    Args:
        spec: of the attempt.
        context: what the workload is given.
        recorder: of this rank.
        position: this rank's page.
    """

    def __init__(self, spec: Spec, context: Context, recorder: Recorder, position: page.Page) -> None:
        self._case, self._context, self._recorder, self._page = spec.case, context, recorder, position
        self._faults = context.faults
        self._workload = create(spec.case.workload)
        memory = spec.memory_folders.get(context.node)
        self._checkpoints = Checkpoints(
            self._workload,
            Path(spec.checkpoints),
            Path(memory) / spec.case.case_id if memory and spec.case.memory_every else None,
            context.rank,
            context.world,
            spec.restart,
            spec.epoch,
            keep=spec.case.checkpoint_keep,
            engine=spec.case.checkpoint_engine,
            node=context.node,
            known_step=spec.known_step,
            at=self._faults.at,
        )
        self._failed, self._failing_since = 0, 0.0

    def go(self) -> None:
        """From setup to close."""
        case, page_ = self._case, self._page
        self._define()
        self._workload.setup(self._context)
        self._context.started()
        self._context.event(ev.RANK_RUNNING)
        self._faults.sabotage = getattr(self._workload, "sabotage", self._faults.sabotage)
        first = self._restore() if case.checkpoint_every else 0
        page_.set(state=page.RUNNING)
        for step in range(first, case.steps):
            self._step(step, first)
            done = step + 1
            if case.digest_every and done % case.digest_every == 0:
                digest = self._workload.state_digest()
                self._context.event(ev.STATE_DIGEST, step=done, digest=digest)
            if done < case.steps:
                if case.checkpoint_every and (done % case.checkpoint_every == 0 or page_.save_at() == done):
                    self._save(done, SHARED)
                elif case.memory_every and done % case.memory_every == 0:
                    self._save(done, MEMORY)
        page_.set(state=page.CLOSING, section=page.CLOSE)
        self._workload.close()

    def _define(self) -> None:
        for table, columns in self._workload.tables.items():
            if table != "steps":
                self._recorder.define(table, columns)
        columns = self._workload.tables.get("steps", ())
        self._recorder.define("steps", ("step", "start_mono_ns", "step_time_ns", *columns))
        if self._case.checkpoint_every:
            self._recorder.define("checkpoints", ("step", "checkpoint_time_ns", "checkpoint_bytes"))

    def _restore(self) -> int:
        """The step to begin with."""
        self._page.set(section=page.LOAD)
        try:
            restored = self._checkpoints.restore()
        finally:
            for why in (
                self._checkpoints.refused if self._context.rank == 0 else ()
            ):  # all ranks know them all
                self._context.event(ev.CHECKPOINT_REFUSED, why=why)
        if restored is None:
            return 0
        self._context.event(ev.CHECKPOINT_RESTORED, **vars(restored))
        self._faults.restored()
        return restored.step

    def _step(self, step: int, first: int) -> None:
        early = step - first < page.EARLY_STEPS
        self._page.set(begun=step, section=page.EARLY if early else page.STEP)
        self._faults.step(step)
        self._page.advance()
        start = time.monotonic_ns()
        values = self._workload.step(step)
        end = time.monotonic_ns()
        self._recorder.sample(
            "steps", {"step": step, "start_mono_ns": start, "step_time_ns": end - start, **values}
        )
        self._page.set(finished=step)
        if step == first:
            self._context.event(ev.FIRST_STEP, step=step)

    def _save(self, done: int, level: str) -> None:
        """Take a checkpoint. One that cannot be committed costs the run nothing yet; several in a row end it."""
        self._page.set(section=page.SAVE)
        start = time.monotonic_ns()
        try:
            saved = self._checkpoints.save(done, level)
        except NotCommitted as error:
            self._faults.relieve(failed=True)
            self._failed += 1
            self._context.event(ev.CHECKPOINT_FAILED, step=done, level=level, why=str(error))
            self._failing_since = self._failing_since or time.monotonic()
            if self._failed >= FAILED_IN_A_ROW and time.monotonic() - self._failing_since > FAILED_S:
                raise
            return
        self._faults.relieve(failed=False)
        self._failed, self._failing_since = 0, 0.0
        self._recorder.sample(
            "checkpoints",
            {
                "step": done,
                "checkpoint_time_ns": time.monotonic_ns() - start,
                "checkpoint_bytes": saved.bytes,
            },
        )
        self._context.event(ev.CHECKPOINT_COMMITTED, engine=self._case.checkpoint_engine, **vars(saved))
