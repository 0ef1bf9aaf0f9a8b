"""What an agent records of its node during an attempt, and how that and its ranks' records come to shared storage.

Storage that takes no more ends nothing: it is noted, tried again, and said in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.model import event as ev
from harness.model.event import Event
from harness.rundir import brief
from harness.runtime import recorder
from harness.runtime.shipper import Shipper
from harness.telemetry import Telemetry

SHIP_S = 0.25
SHIP_AGAIN_S = 10.0  # how long an attempt's end waits for shared storage that takes no more
TELEMETRY_S = 1.0


class NodeRecords:
    """The records of one node."""

    def __init__(self, node: str, telemetry: Telemetry) -> None:
        self._node, self._telemetry = node, telemetry
        self._case_id, self._attempt = "", -1
        self._recorder: recorder.Recorder | None = None
        self._shipper: Shipper | None = None
        self._shipping: asyncio.Task[None] | None = None
        self._shipped_at = self._sampled_at = 0.0
        self._unshipped = ""  # why shared storage took no records the last time it was asked
        self._unrecorded = ""  # why the agent's own records end early

    def begin(self, case_id: str, attempt: int, folder: Path, stream: Path) -> None:
        """An attempt begins: what is recorded in ``folder`` is to be shipped to ``stream``."""
        self._case_id, self._attempt = case_id, attempt
        self._shipper = Shipper(folder, stream)
        self._unshipped = self._unrecorded = ""
        with self._recording():
            self._recorder = recorder.Recorder(folder / "agent.rec", -1)
            self._event(ev.NODE_FACTS, **self._telemetry.facts())
            for what, why in self._telemetry.absent.items():
                self._event(ev.TELEMETRY_ABSENT, what=what, reason=why)
            for table, columns in self._telemetry.tables.items():
                self._recorder.define(table, columns)

    def go_on(self) -> None:
        """Ship what is new and sample what is measured, each as often as it is due."""
        now = time.monotonic()
        if (
            self._shipper is not None
            and now - self._shipped_at >= SHIP_S
            and (self._shipping is None or self._shipping.done())
        ):
            self._shipped_at = now
            self._shipping = asyncio.create_task(self._ship(self._shipper, sync=False))
        if self._recorder is not None and now - self._sampled_at >= TELEMETRY_S:
            self._sampled_at = now
            with self._recording():
                for table, values in self._telemetry.sample():
                    self._recorder.sample(table, values)

    async def finish(self) -> None:
        """Record no more, and ship all that was recorded."""
        with self._recording():
            if self._recorder is not None:
                self._recorder.close()
        self._recorder = None
        if self._shipping is not None:
            await asyncio.wait({self._shipping})
            self._shipping = None
        if self._shipper is not None:
            await self._ship(self._shipper, sync=True)
            end = time.monotonic() + SHIP_AGAIN_S
            while self._unshipped and time.monotonic() < end:
                await asyncio.sleep(0.5)
                await self._ship(self._shipper, sync=True)

    def told(self) -> dict[str, Any]:
        """What the end of the attempt says of the records: how much there is, and what is wrong with it; once."""
        shipped, records = (0, 0) if self._shipper is None else self._shipper.recorded()
        self._shipper = None
        return {"bytes": shipped, "records": records, "problem": self._unshipped or self._unrecorded}

    async def _ship(self, shipper: Shipper, *, sync: bool) -> None:
        """Ship what is new. Storage that takes no more is noted: the records are safe here, and it is tried again."""
        try:
            await asyncio.to_thread(shipper.ship, sync=sync)
            self._unshipped = ""
        except OSError as error:
            self._unshipped = brief(error)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """Where this node's own disk takes no more, this agent records no more, says so, and lives on."""
        try:
            yield
        except OSError as error:
            self._unrecorded = brief(error)
            if self._recorder is not None:
                self._recorder.abandon()
                self._recorder = None

    def _event(self, kind: str, **data: Any) -> None:
        assert self._recorder is not None  # only called while an attempt is open
        wall_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        self._recorder.event(
            Event(kind, wall_ns, mono_ns, self._node, "agent", self._case_id, self._attempt, -1, data)
        )
